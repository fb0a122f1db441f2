//! Expressions of constraints and affinities, create bodies with them, filters of lists.
#![no_main]

use herder_decide::fuzz::{fuzz_create, fuzz_expression, fuzz_filters};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_expression(bytes);
    fuzz_create(bytes);
    fuzz_filters(bytes);
});
