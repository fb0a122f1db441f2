//! Rules of ingress routes, and labels of services.
#![no_main]

use herder_decide::fuzz::fuzz_rule;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_rule(bytes));
