//! Sends any requests; no handler panics. The fuzz targets in `fuzz/` go on from here.

use std::collections::BTreeSet;

use herder_decide::schedule::Scheduler;
use herder_front::fuzz::{fuzz_action, fuzz_connection, fuzz_path, fuzz_request, fuzz_request_on};
use herder_front::{Front, FrontSettings};
use herder_pool::fake::{FakeContainer, FakeEngine, FakeSpec};
use herder_pool::{Pool, Settings};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

/// Paths of the API with anything in their holes.
fn path() -> impl Strategy<Value = String> {
    named_path("[!-~&&[^#?]]{0,12}")
}

/// Paths of the API with these names in their holes.
fn named_path<N: AsRef<str> + std::fmt::Debug>(hole: impl Strategy<Value = N>) -> impl Strategy<Value = String> {
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
        "/herder/token/rotate",
        "/herder/why/web",
        "/herder/backup",
        "/herder/restore",
        "/eventbus/info",
        "/",
        "",
    ]);
    let query =
        "(\\?(all|filters|name|limit|size|fromImage|fromSrc|buildargs|container|path|t|force)=[ -~&&[^#]]{0,20})?";
    (prop::sample::select(vec!["", "/v1.24", "/v1.41", "/v1.99", "/v0", "/vx"]), route, hole, query).prop_map(
        |(version, route, hole, query)| {
            let query = query.replace(' ', "%20");
            format!("{version}{}{query}", route.replace('X', hole.as_ref()))
        },
    )
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

/// Whole requests of clients.
const PACKETS: &[&str] = &[
    "GET /v1.41/containers/json?all=1&filters=%7B%22name%22%3A%5B%22web%22%5D%7D HTTP/1.1\r\nHost: door\r\n\r\n",
    "POST /containers/create?name=x HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 13\r\nExpect: 100-continue\r\n\r\n{\"Image\":\"x\"}",
    "POST /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n",
    "POST /containers/web/attach?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nraw bytes",
    "HEAD /_ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /info HTTP/1.0\r\n\r\n",
    "CONNECT door:80 HTTP/1.1\r\n\r\n\x16\x03\x01",
    "PUT /containers/n1%2Fweb/archive?path=%2F HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\ntarOPTIONS * HTTP/1.1\r\n\r\n",
];

/// One of the packets, or two, with some bytes changed or missing.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\r\n :/%?&0f9-;,".to_vec())];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize, byte), 0..5);
    let some = prop::collection::vec(prop::sample::select(PACKETS), 1..3);
    (some, changes).prop_map(|(packets, changes)| {
        let mut bytes = packets.concat().into_bytes();
        for (at, missing, byte) in changes {
            let at = at.index(bytes.len());
            bytes.splice(at..(at + missing).min(bytes.len()), [byte]);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn random_connections_never_panic(bytes in packet()) {
        fuzz_connection(&bytes);
    }

    #[test]
    fn paths_come_together_as_they_were_taken_apart(path in path(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        fuzz_path(path.as_bytes());
        fuzz_path(&[b"/", bytes.as_slice()].concat());
    }
}

/// Each may wait for some engine.
const REQUESTS_OVER_ENGINES: usize = 5000;

/// The same over engines, whose containers are called like what is asked for.
#[tokio::test]
async fn random_requests_over_engines_never_panic() {
    let mut engines = Vec::new();
    for name in ["n1", "n2"] {
        let engine = FakeEngine::start(FakeSpec::new(name)).await.expect("a free port");
        engine.add(FakeContainer::new(if name == "n1" { "web" } else { "db" }));
        engines.push(engine);
    }
    let pool = Pool::new(Settings::default());
    let addrs: BTreeSet<String> = engines.iter().map(FakeEngine::addr).collect();
    let mut changes = pool.changes();
    pool.set_members(&addrs);
    changes.wait_for(|_| pool.nodes().iter().filter(|node| node.is_healthy()).count() == 2).await.expect("a pool");
    let front = Front::new(pool, Scheduler::default(), FrontSettings::default());
    let hole = prop::sample::select(vec!["web", "db", "n1%2Fweb", "n2/db", "n1", "bridge", "busybox", "n1/x", "w", ""]);
    let good = prop::sample::select(vec![
        r#"{"Image":"busybox","Env":["constraint:node!=n2"]}"#,
        r#"{"Image":"busybox","HostConfig":{"Links":["db:x"],"NetworkMode":"n1/bridge","Memory":7}}"#,
        r#"{"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"80"}]}},"Name":"v"}"#,
        r#"{"Container":"n1/web","Force":true}"#,
        r#"{"AttachStdout":true,"Cmd":["true"]}"#,
    ]);
    let body = prop_oneof![good.prop_map(str::to_owned), body()];
    let asked = ("GET|POST|PUT|DELETE|HEAD", named_path(hole), body);
    let mut runner = TestRunner::default();
    let mut fine = 0;
    for _ in 0..REQUESTS_OVER_ENGINES {
        let (method, path, body) = asked.new_tree(&mut runner).expect("a request").current();
        let status = fuzz_request_on(&front, format!("{method} {path}\n{body}").as_bytes()).await;
        fine += usize::from(status.is_some_and(|status| status.is_success()));
    }
    assert!(fine > REQUESTS_OVER_ENGINES / 100, "hardly any of the requests means something: {fine}");
}
