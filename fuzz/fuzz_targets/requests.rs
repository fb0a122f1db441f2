//! Requests at the door.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| herder_front::fuzz::fuzz_request(bytes));
