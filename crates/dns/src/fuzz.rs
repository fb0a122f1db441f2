//! Entry point of the fuzz target `dns`.

use std::net::Ipv4Addr;

use herder_decide::net::{Host, Names, States};
use hickory_proto::op::Message;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::packet::{Reply, reply};

/// Answers any packet, as a container's and as a stranger's. An answer can be read, belongs to its question and fits.
///
/// # Panics
///
/// If it does not: that is what the fuzzer looks for.
pub fn fuzz_packet(packet: &[u8]) {
    let state = serde_json::json!({
        "facts": {"name": "ov", "vni": 4097, "subnets": [{"subnet": "10.0.1.0/24", "gateway": "10.0.1.1"}]},
        "nodes": {"n1": {"vtep": "192.0.2.1", "up": true}},
        "endpoints": {"t1": {"node": "n1", "v4": "10.0.1.3", "names": ["web.1"], "service": "s1", "serving": true}},
        "services": {"s1": {"name": "web", "mode": "dnsrr"}}
    });
    let state = serde_json::from_value(state).expect("a state");
    let states: States = [("ov".to_owned(), std::sync::Arc::new(state))].into();
    let names = Names::of(&states, &Host { node: "n1".into(), ..Host::default() });
    let mut chance = SmallRng::seed_from_u64(1);
    for (source, is_tcp) in [(3, false), (3, true), (9, false)] {
        let source = Ipv4Addr::new(10, 0, 1, source).into();
        if let Reply::Bytes(bytes) = reply(&names, "ov", source, packet, is_tcp, &mut chance) {
            let answer = Message::from_vec(&bytes).expect("an answer that can be read");
            assert_eq!(answer.metadata.id.to_be_bytes(), packet[..2], "the number of the question");
            assert!(is_tcp || bytes.len() <= 1232.max(packet.len() + 64), "an answer that fits");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A head that is often right, and anything after it.
    fn packets() -> impl Strategy<Value = Vec<u8>> {
        let question = prop_oneof![
            Just(b"\x03web\0\0\x01\0\x01".to_vec()),
            Just(b"\x013\x011\x010\x0210\x07in-addr\x04arpa\0\0\x0c\0\x01".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..80),
        ];
        (any::<[u8; 4]>(), 0_u8..3, 0_u8..2, question, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(head, count, more, question, rest)| {
                let head = [head[0], head[1], head[2] & 0x7f, head[3], 0, count, 0, 0, 0, 0, 0, more];
                [&head[..], &question, &rest].concat()
            },
        )
    }

    proptest! {
        #[test]
        fn any_packet_is_answered_or_passed_over(packet in packets(), cut in any::<proptest::sample::Index>()) {
            fuzz_packet(&packet);
            fuzz_packet(&packet[..cut.index(packet.len())]);
        }
    }
}
