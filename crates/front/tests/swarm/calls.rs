//! Calls that the recordings do not have.

use std::sync::Arc;
use std::time::Duration;

use herder_decide::schedule::Scheduler;
use herder_front::{Front, FrontSettings, Reply, swarm};
use herder_pool::{Pool, Settings, full};
use http::{Request, header};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fake::{Node, World};

pub(crate) struct Door {
    front: Arc<Front>,
    pub(crate) world: Arc<World>,
    _stop: tokio_util::sync::DropGuard,
}

/// A door of a swarm with one node.
pub(crate) async fn door() -> Door {
    let front = Front::new(Pool::new(Settings::default()), Scheduler::default(), FrontSettings::default());
    let world = World::new();
    front.set_swarm(Arc::new(Node::new(world.clone(), 0, "m1")));
    let stop = CancellationToken::new();
    tokio::spawn(swarm::follow(front.clone(), stop.clone()));
    tokio::task::yield_now().await;
    let door = Door { front, world, _stop: stop.drop_guard() };
    door.check("POST /swarm/init", &json!({}), "200 \"nnnnnnnnnnnnnnnnnnnnnnnn0\"").await;
    door
}

impl Door {
    async fn reply(&self, line: &str, body: &Value) -> Reply {
        let (method, path) = line.split_once(' ').expect("method and path");
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.front.handle(request.body(full(body)).expect("a request")).await
    }

    /// Status and body.
    pub(crate) async fn ask(&self, line: &str, body: &Value) -> (u16, String) {
        let (parts, body) = self.reply(line, body).await.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (parts.status.as_u16(), String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Checks the beginning of the answer.
    async fn check(&self, line: &str, body: &Value, expected: &str) {
        let (status, text) = self.ask(line, body).await;
        let said = format!("{status} {text}");
        assert!(said.starts_with(expected), "{line}: {said}");
    }
}

fn service(name: &str, replicas: u64) -> Value {
    json!({"Name": name, "Mode": {"Replicated": {"Replicas": replicas}},
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}})
}

#[tokio::test]
async fn events_of_the_swarm_are_told_and_remembered() {
    let door = door().await;
    let filters = "filters=%7B%22type%22%3A%5B%22service%22%5D%7D";
    let mut live = door.reply(&format!("GET /events?{filters}"), &Value::Null).await.into_body();
    door.check("POST /services/create", &service("ev", 1), "201 ").await;
    let version = door.world.version_of("services", "ev").expect("a service");
    door.check(&format!("POST /services/ev/update?version={version}"), &service("ev", 2), "200 ").await;
    door.check("DELETE /services/ev", &Value::Null, "200").await;
    let mut told = String::new();
    while told.lines().count() < 3 {
        let frame =
            timeout(Duration::from_secs(60), live.frame()).await.expect("in time").expect("more").expect("no failure");
        told.push_str(&String::from_utf8_lossy(frame.data_ref().expect("data")));
    }
    let seen: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let text = |event: &Value| format!("{} {} {}", event["Type"], event["Action"], event["Actor"]["Attributes"]);
    let expected = [
        r#""service" "create" {"name":"ev"}"#,
        r#""service" "update" {"name":"ev","replicas.new":"2","replicas.old":"1"}"#,
        r#""service" "remove" {"name":"ev"}"#,
    ];
    assert_eq!(seen.iter().map(text).collect::<Vec<_>>(), expected);
    assert!(seen.iter().all(|event| event["scope"] == "swarm"));
    // Who comes later is told what was, until now.
    let (_, past) = door.ask(&format!("GET /events?{filters}&since=1&until=0s"), &Value::Null).await;
    assert_eq!(past.lines().map(|line| text(&serde_json::from_str(line).expect("JSON"))).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_write_that_comes_too_late_is_decided_anew_unless_the_client_said_what_it_saw() {
    let door = door().await;
    door.world.be_late(3);
    door.check("POST /services/create", &service("web", 1), "201 ").await;
    let version = door.world.version_of("services", "web").expect("a service");
    door.world.be_late(1);
    let late = r#"500 {"message":"rpc error: code = Unknown desc = update out of sequence"}"#;
    door.check(&format!("POST /services/web/update?version={version}"), &service("web", 2), late).await;
    door.world.be_late(1000);
    door.check("DELETE /services/web", &Value::Null, late).await;
}

#[tokio::test(start_paused = true)]
async fn managers_that_do_not_answer_are_not_waited_for_forever() {
    let door = door().await;
    door.world.be_silent();
    door.check("GET /services", &Value::Null, r#"500 {"message":"rpc error: code = DeadlineExceeded desc = "#).await;
    let (status, info) = door.ask("GET /info", &Value::Null).await;
    let info: Value = serde_json::from_str(&info).expect("JSON");
    assert_eq!((status, &info["Swarm"]["LocalNodeState"]), (200, &json!("active")));
    assert!(info["Swarm"]["Error"].as_str().is_some_and(|it| it.contains("did not answer within 25 s")));
}

#[tokio::test]
async fn bodies_and_parameters_that_make_no_sense_change_nothing() {
    let door = door().await;
    door.check("POST /services/create", &json!([]), r#"400 {"message":"invalid JSON: expected an object"}"#).await;
    door.check("POST /services/create", &json!({"Name": 5}), r#"400 {"message":"invalid JSON: "#).await;
    door.check("POST /services/create", &json!({}), r#"400 {"message":"mismatched Runtime and *Spec fields"}"#).await;
    door.check(
        "POST /services/web/update?version=1&registryAuthFrom=x",
        &json!({}),
        r#"400 {"message":"invalid registryAuthFrom 'x'"}"#,
    )
    .await;
    door.check("GET /services?filters=x", &Value::Null, "400 ").await;
    door.check(
        "POST /nodes/m1/update?version=2",
        &json!({"Role": "boss", "Availability": "active"}),
        r#"400 {"message":"invalid Role: \"boss\""}"#,
    )
    .await;
    door.check(
        "POST /nodes/m1/update?version=2",
        &json!({"Role": "Manager"}),
        r#"400 {"message":"invalid Availability: \"\""}"#,
    )
    .await;
    door.check(
        "POST /swarm/update?version=1&rotateWorkerToken=maybe",
        &json!({}),
        r#"400 {"message":"invalid value for rotateWorkerToken: maybe"}"#,
    )
    .await;
    door.check(
        "GET /services/web/logs",
        &Value::Null,
        r#"400 {"message":"must specify at least one of 'stdout' or 'stderr'"}"#,
    )
    .await;
    door.check("POST /swarm/join", &json!({}), r#"503 {"message":"This node is already part of a swarm."#).await;
    door.check(
        "POST /v1.30/configs/create",
        &json!({"Name": "c", "Data": "eA==", "Templating": {"Name": "golang"}}),
        r#"400 {"message":"config templating is not supported on the specified API version: 1.30"}"#,
    )
    .await;
    door.check(
        "PATCH /services",
        &Value::Null,
        r#"405 {"message":"the method is not allowed here; allowed: GET, HEAD"}"#,
    )
    .await;
    door.check("GET /services", &Value::Null, "200 []").await;
}

#[tokio::test]
async fn null_is_what_is_not_there() {
    let door = door().await;
    let mut body = service("web", 1);
    body["Labels"] = Value::Null;
    body["TaskTemplate"]["ContainerSpec"]["Args"] = Value::Null;
    body["TaskTemplate"]["Networks"] = Value::Null;
    body["EndpointSpec"] = json!({"Ports": null});
    door.check("POST /services/create", &body, "201 ").await;
}

#[tokio::test]
async fn networks_of_every_engine_can_be_had_by_services() {
    let door = door().await;
    door.check("GET /networks/host?scope=swarm", &Value::Null, r#"200 {"Name":"host","Id":"host""#).await;
    door.check("GET /networks/ov?scope=swarm", &Value::Null, r#"404 {"message":"network ov not found"}"#).await;
}

#[tokio::test]
async fn networks_of_the_swarm_stand_beside_those_of_engines() {
    let door = door().await;
    let none = Value::Null;
    let overlay = |name: &str| json!({"Name": name, "Driver": "overlay", "Labels": {"a": "b"}});
    door.check("POST /networks/create", &overlay("ov"), r#"201 {"Id":""#).await;
    door.check("POST /networks/create", &overlay("ov"), r#"409 {"message":"network with name ov already exists"}"#)
        .await;
    let bridge = json!({"Name": "ov", "Driver": "bridge"});
    door.check("POST /networks/create", &bridge, r#"409 {"message":"network with name ov already exists"}"#).await;
    door.check("GET /networks/ov", &none, r#"200 {"Name":"ov""#).await;
    door.check("GET /networks/ov?scope=local", &none, "404 ").await;
    door.check(r#"GET /networks?filters=%7B%22label%22:%5B%22a=b%22%5D%7D"#, &none, r#"200 [{"Name":"ov""#).await;
    door.check(r#"GET /networks?filters=%7B%22dangling%22:%5B%22true%22%5D%7D"#, &none, "200 [{").await;
    door.check(
        r#"GET /networks?filters=%7B%22driver%22:%5B%22bridge%22%5D,%22scope%22:%5B%22swarm%22%5D%7D"#,
        &none,
        "200 []",
    )
    .await;
    let on_ov =
        json!({"Name": "on-ov", "TaskTemplate": {"ContainerSpec": {"Image": "i"}, "Networks": [{"Target": "ov"}]}});
    door.check("POST /services/create", &on_ov, "201 ").await;
    let in_use = r#"400 {"message":"rpc error: code = FailedPrecondition desc = network"#;
    door.check("DELETE /networks/ov", &none, in_use).await;
    door.check("DELETE /networks/ingress", &none, "204").await;
    let published = json!({"Name": "p", "TaskTemplate": {"ContainerSpec": {"Image": "i"}}, "EndpointSpec": {"Ports": [{"TargetPort": 80}]}});
    let no_ingress = r#"400 {"message":"rpc error: code = FailedPrecondition desc = service needs ingress network"#;
    door.check("POST /services/create", &published, no_ingress).await;
    door.check("DELETE /services/on-ov", &none, "200").await;
    door.check("DELETE /networks/ov", &none, "204").await;
    door.check("GET /networks/ov", &none, r#"404 {"message":"network ov not found"}"#).await;
}

/// Names and ids that are there, and some that are not.
const NAMES: [&str; 6] = ["web", "tok", "m1", "nnnnnnnnnnnnnnnnnnnnnnnn0", "nosuch", ""];

/// Members of all bodies, with values of all kinds.
fn any_body() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|it| json!(it)),
        any::<i32>().prop_map(|it| json!(it)),
        prop::sample::select(vec![
            "web", "tok", "czNjcjN0", "worker", "manager", "active", "host", "any", "{{.Node", "é"
        ])
        .prop_map(|it| json!(it)),
    ];
    let keys = vec![
        "Name",
        "Labels",
        "Data",
        "Role",
        "Availability",
        "TaskTemplate",
        "ContainerSpec",
        "Image",
        "Mode",
        "Replicated",
        "Replicas",
        "GlobalJob",
        "EndpointSpec",
        "Ports",
        "TargetPort",
        "PublishMode",
        "Networks",
        "Target",
        "Spec",
        "CAConfig",
        "NodeCertExpiry",
        "Secrets",
        "SecretID",
        "SecretName",
        "File",
        "UpdateConfig",
        "MaxFailureRatio",
        "Constraints",
        "Placement",
        "JoinToken",
        "RemoteAddrs",
        "UnlockKey",
        "ForceNewCluster",
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec((prop::sample::select(keys.clone()), inner.clone()), 0..5)
                .prop_map(|it| Value::Object(it.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())),
            prop::collection::vec(inner, 0..3).prop_map(Value::Array),
        ]
    })
}

fn any_call() -> impl Strategy<Value = (String, Value)> {
    let kinds = vec!["services", "nodes", "tasks", "secrets", "configs", "swarm"];
    let verbs = vec!["", "/update", "/create", "/init", "/join", "/leave", "/unlock", "/unlockkey"];
    let queries = vec![
        "",
        "?version=1",
        "?version=3",
        "?force=1",
        "?rollback=previous&version=2",
        "?scope=swarm",
        "?filters=%7B%22name%22%3A%5B%22w%22%5D%7D",
        "?status=true&insertDefaults=1",
    ];
    let line = (
        prop::sample::select(vec!["GET", "POST", "DELETE"]),
        prop::sample::select(kinds),
        prop::sample::select(NAMES.to_vec()),
        prop::sample::select(verbs),
        prop::sample::select(queries),
    );
    let line = line.prop_map(|(method, kind, name, verb, query)| match name {
        "" => format!("{method} /{kind}{verb}{query}"),
        name => format!("{method} /{kind}/{name}{verb}{query}"),
    });
    (line, any_body())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Calls in any order cause no panic, and every answer is one of Docker's.
    #[test]
    fn no_call_makes_trouble(calls in prop::collection::vec(any_call(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let door = door().await;
            door.check("POST /services/create", &service("web", 1), "201 ").await;
            door.check("POST /secrets/create", &json!({"Name": "tok", "Data": "czNjcjN0"}), "201 ").await;
            for (line, body) in calls {
                let (status, text) = door.ask(&line, &body).await;
                let known = matches!(status, 200 | 201 | 204 | 400 | 401 | 403 | 404 | 405 | 409 | 501 | 503)
                    || status == 500 && text.contains("rpc error") || text.contains("service does not have a previous");
                assert!(known, "{line} {body}: {status} {text}");
                assert!(status < 400 || text.starts_with(r#"{"message":"#), "{line} {body}: {status} {text}");
            }
        });
    }
}

#[tokio::test]
async fn a_backup_is_made_with_the_key_in_the_body_and_goes_back_the_same_way() {
    let door = door().await;
    let ask = async |line: &str, body: &str| {
        let (method, path) = line.split_once(' ').expect("method and path");
        let request = Request::builder().method(method).uri(path).body(full(body.to_owned())).expect("a request");
        let (parts, body) = door.front.handle(request).await.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        format!("{} {}", parts.status.as_u16(), String::from_utf8_lossy(&bytes))
    };
    for (line, body, expected) in [
        ("POST /herder/backup", "KEY\n", "200 sealed with KEY"),
        ("POST /herder/restore", "KEY\nsealed with KEY", r#"200 {"Cluster":"forced false","Node":"","Others":[],"#),
        ("POST /herder/restore?force=1", "KEY\nsealed with KEY", r#"200 {"Cluster":"forced true""#),
        ("POST /herder/restore", "KEY\nsealed with OTHER", r#"400 {"message":"another key"}"#),
        ("POST /herder/restore", "KEY", r#"400 {"message":"the body is not a key, a line feed and a backup"}"#),
        ("POST /herder/restore", "", r#"400 {"message":"the body is not a key, a line feed and a backup"}"#),
        ("GET /herder/backup", "", r#"405 {"message":"the method is not allowed here; allowed: POST"}"#),
    ] {
        let said = ask(line, body).await;
        assert!(said.starts_with(expected), "{line}: {said}");
    }
    assert!(ask("POST /herder/backup", &"k".repeat(300)).await.starts_with("413"));
}
