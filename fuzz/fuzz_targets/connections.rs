//! Fuzzes a connection to the door until its end.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| herder_front::fuzz::fuzz_connection(bytes));
