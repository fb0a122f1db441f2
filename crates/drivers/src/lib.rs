//! Hands on the outside world: Docker engines, key-value stores, TLS.
