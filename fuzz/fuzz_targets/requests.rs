//! Requests at the door, and paths taken apart and put together.
#![no_main]

use herder_front::fuzz::{fuzz_path, fuzz_request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_path(bytes);
    fuzz_request(bytes);
});
