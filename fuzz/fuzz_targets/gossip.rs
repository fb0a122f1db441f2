//! Gossip: packets as they come, and what is inside of those that open.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use herder_wire::gossip::core::Core;
use herder_wire::gossip::seal::Sealer;
use herder_wire::gossip::{Member, Settings};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

fuzz_target!(|bytes: &[u8]| {
    let me = Member { id: "a".into(), addr: SocketAddr::from(([10, 0, 0, 1], 7946)), generation: 1 };
    let mut core = Core::new(me, [1; 32], Settings::default(), StdRng::seed_from_u64(1));
    let from = SocketAddr::from(([10, 0, 0, 2], 7946));
    let _ = core.packet(Duration::ZERO, from, bytes);
    // A traitor with the pool's key.
    let sealed = Sealer::new(&[1; 32], [2; 16]).seal(bytes);
    let _ = core.packet(Duration::ZERO, from, &sealed);
    let _ = core.view();
});
