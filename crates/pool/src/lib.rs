//! Which nodes exist, what is on them, and a way to reach each engine.
