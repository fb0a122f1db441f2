//! First bytes of connections that a trusted proxy opens to the ingress.
#![no_main]

use herder_ingress::fuzz::fuzz_proxy;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_proxy(bytes));
