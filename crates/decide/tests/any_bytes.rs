//! Expressions, create bodies and filters from any bytes. Each gives an answer or an error, and a parsed value means
//! the same when it is parsed again. The fuzz targets in `fuzz/` go on from here.

use herder_decide::fuzz::{fuzz_create, fuzz_expression, fuzz_filters};
use proptest::prelude::*;

const EXPRESSIONS: &[&str] = &[
    "zone==a",
    "node!=~node-1",
    "disk==/ssd|nvme/",
    "image==redis:7",
    "container!=*db*",
    "zone==/(?i)Z[0-9]+/",
    "ab===~x",
];

const CREATES: &[&str] = &[
    r#"{"Image":"redis:7","Env":["A=1","constraint:zone==z0","affinity:container!=db","reschedule:on-node-failure"]}"#,
    r#"{"Labels":{"com.docker.swarm.constraints":"[\"zone!=z1\"]","com.docker.swarm.whitelists":"[\"node==n0|n1\"]"}}"#,
    r#"{"HostConfig":{"Memory":100,"NanoCpus":1000000000,"CpuShares":2,"CpuQuota":50000,"CpuPeriod":100000}}"#,
    r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8000-8010"}]},"NetworkMode":"host"},"ExposedPorts":{"1/udp":{}}}"#,
    r#"{"HostConfig":{"Binds":["n1/data:/d:ro"],"Mounts":[{"Type":"volume","Source":"n1/v"}],"NetworkMode":"n1/back"}}"#,
    r#"{"HostConfig":{"Links":["db:x"],"VolumesFrom":["web:ro"],"PidMode":"container:db"},"Memory":7,"CpuShares":1}"#,
    r#"{"NetworkingConfig":{"EndpointsConfig":{"n0/back":{"Aliases":["a"],"IPAMConfig":null}}},"HostConfig":null}"#,
];

const FILTERS: &[&str] = &[
    r#"{"name":["^/?web$","db"],"label":["tier=db"],"status":["exited"],"node":["n0"]}"#,
    r#"{"label":{"tier=db":true,"tier":false},"id":{"db0":true},"exited":["0"]}"#,
    r#"{"reference":["red*:7"],"dangling":["false"],"before":["redis:7"],"since":["redis:7"],"driver":["local"]}"#,
    r#"{"type":["container"],"event":["start"],"container":["db"],"scope":["local"],"health":["none"],"volume":["data"]}"#,
];

/// One of the texts with some bytes changed, cut out, doubled or put in.
fn mutated(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\"\\/{}[]:,=!~*^$|().-0129enutlz ".to_vec()),];
    let change = (0..4_u8, any::<prop::sample::Index>(), 1..8_usize, byte);
    (prop::sample::select(texts), prop::collection::vec(change, 0..6)).prop_map(|(text, changes)| {
        let mut bytes = text.as_bytes().to_vec();
        for (kind, at, length, byte) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.drain(at..end)),
                2 => bytes.insert(at, byte),
                _ => {
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_expression(&bytes);
        fuzz_create(&bytes);
        fuzz_filters(&bytes);
    }

    #[test]
    fn expressions_with_mistakes_are_read_or_refused(bytes in mutated(EXPRESSIONS)) {
        fuzz_expression(&bytes);
        let expression = String::from_utf8_lossy(&bytes);
        let env: Vec<String> = ["constraint", "affinity", "whitelist"].map(|it| format!("{it}:{expression}")).into();
        fuzz_create(serde_json::json!({ "Env": env }).to_string().as_bytes());
    }

    #[test]
    fn creates_with_mistakes_are_read_or_refused(bytes in mutated(CREATES)) {
        fuzz_create(&bytes);
    }

    #[test]
    fn filters_with_mistakes_are_read_or_refused(bytes in mutated(FILTERS)) {
        fuzz_filters(&bytes);
    }
}

#[test]
fn what_the_changes_start_from_is_read() {
    for text in CREATES.iter().chain(FILTERS) {
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        fuzz_create(text.as_bytes());
        fuzz_filters(text.as_bytes());
    }
    for text in EXPRESSIONS {
        assert!(text.parse::<herder_decide::expr::Expression>().is_ok(), "{text}");
        fuzz_expression(text.as_bytes());
    }
}
