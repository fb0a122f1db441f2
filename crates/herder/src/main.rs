//! The program: configuration, parts, shutdown.

fn main() {}
