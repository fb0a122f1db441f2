//! Whatever is asked, no handler panics. The fuzz targets in `fuzz/` go on from here.

use herder_front::fuzz::{fuzz_action, fuzz_request};
use proptest::prelude::*;

/// Paths of the API with anything in their holes.
fn path() -> impl Strategy<Value = String> {
    let route = prop::sample::select(vec![
        "/containers/json",
        "/containers/create",
        "/containers/X/json",
        "/containers/X/start",
        "/containers/X/archive",
        "/containers/X/attach/ws",
        "/containers/prune",
        "/containers/X/rename",
        "/images/json",
        "/images/create",
        "/images/X/json",
        "/images/get",
        "/images/load",
        "/build",
        "/networks",
        "/networks/create",
        "/networks/X/connect",
        "/volumes",
        "/volumes/create",
        "/exec/X/start",
        "/system/df",
        "/info",
        "/version",
        "/_ping",
        "/commit",
        "/auth",
        "/session",
        "/swarm",
        "/plugins/X/json",
        "/distribution/X/json",
        "/herder/nodes",
        "/eventbus/info",
        "/",
        "",
    ]);
    let query =
        "(\\?(all|filters|name|limit|size|fromImage|fromSrc|buildargs|container|path|t|force)=[ -~&&[^#]]{0,20})?";
    (prop::sample::select(vec!["", "/v1.24", "/v1.41", "/v1.99", "/v0", "/vx"]), route, "[!-~&&[^#?]]{0,12}", query)
        .prop_map(|(version, route, hole, query)| {
            let query = query.replace(' ', "%20");
            format!("{version}{}{query}", route.replace('X', &hole))
        })
}

fn body() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("-1".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("1e300".to_owned()),
        "\"[a-z:=~!/*()\\[\\]^$+|{}]{0,12}\"",
        Just("[]".to_owned()),
        Just("{}".to_owned()),
    ];
    let value = leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop::sample::select(vec![
            "Image",
            "Env",
            "Labels",
            "HostConfig",
            "NetworkMode",
            "Binds",
            "PortBindings",
            "HostPort",
            "80/tcp",
            "Memory",
            "CpuShares",
            "NanoCpus",
            "VolumesFrom",
            "Links",
            "NetworkingConfig",
            "EndpointsConfig",
            "Name",
            "Container",
            "com.docker.swarm.constraints",
            "Mounts",
            "Cmd",
            "action",
            "id",
            "instances",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((key, inner), 0..5).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    });
    prop_oneof![4 => value, 1 => ".{0,40}"]
}

#[test]
fn what_was_found_stays_found() {
    for request in ["POST /volumes/create\n1", "POST /networks/create\n[]", "POST /containers/create\n\"x\""] {
        fuzz_request(request.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_requests_never_panic(method in "GET|POST|PUT|DELETE|HEAD|OPTIONS|PATCH", path in path(), body in body()) {
        fuzz_request(format!("{method} {path}\n{body}").as_bytes());
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_request(&bytes);
        fuzz_action(&bytes);
    }

    #[test]
    fn random_actions_never_panic(body in body()) {
        fuzz_action(body.as_bytes());
        fuzz_request(format!("POST /\n{body}").as_bytes());
    }
}
