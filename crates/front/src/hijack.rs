//! A connection that stopped being HTTP: bytes in both directions, each with its own end.
