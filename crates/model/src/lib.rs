//! The nouns: nodes and what is on them, as values.
