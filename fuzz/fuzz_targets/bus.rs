//! Frames of the event bus: between nodes, and of clients.
#![no_main]

use std::sync::OnceLock;

use herder_bus::bridge::{Bridge, Limits, Rules};
use herder_bus::{Links, Settings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    herder_bus::fuzz_frame(bytes);
    static BRIDGE: OnceLock<std::sync::Arc<Bridge>> = OnceLock::new();
    let bridge = BRIDGE.get_or_init(|| {
        let (bus, _) = Links::bus("a", Settings::default());
        Bridge::new(bus, Rules::documented("herder"), Limits::default())
    });
    herder_bus::bridge::tcp::fuzz_frames(bridge, bytes);
});
