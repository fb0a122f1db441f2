//! Packets that containers send to the DNS server of overlay networks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| herder_dns::fuzz::fuzz_packet(bytes));
