//! Tests of the objects that an engine is shown as.

mod played;

use std::collections::BTreeMap;

use herder_deploy::Kind;
use serde_json::{Value, json};

use super::shape;

fn spec() -> Value {
    json!({
        "Name": "s_web", "Labels": {"com.docker.stack.namespace": "s"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "busybox", "Args": ["sleep", "9"], "Env": ["SLOT={{.Task.Slot}}"],
                "Labels": {"com.docker.stack.namespace": "s"},
                "Secrets": [{"SecretID": "s_pass", "SecretName": "s_pass",
                    "File": {"Name": "pass", "UID": "0", "GID": "0", "Mode": 0o444}}],
                "Configs": [{"ConfigID": "s_conf", "ConfigName": "s_conf",
                    "File": {"Name": "/etc/app/conf", "UID": "7", "GID": "8", "Mode": 0o440}}],
                "Herder": {"HostConfig": {"Privileged": true}},
            },
            "RestartPolicy": {"Condition": "on-failure", "MaxAttempts": 3},
            "Networks": [{"Target": "s_default", "Aliases": ["web"]}, {"Target": "s_back", "Aliases": ["web"]}],
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]},
    })
}

fn given() -> BTreeMap<(Kind, String), Value> {
    let body = |name: &str, data: &str| json!({"Name": name, "Labels": {"l": "1"}, "Data": data});
    [
        ((Kind::Secret, "s_pass".to_owned()), body("s_pass", "c2VjcmV0")),
        ((Kind::Config, "s_conf".to_owned()), body("s_conf", "YT0x")),
        ((Kind::Config, "s_other".to_owned()), body("s_other", "")),
    ]
    .into()
}

#[test]
fn a_service_becomes_containers_that_know_what_was_declared() {
    let made = shape::made(&spec(), 2, &given(), &json!({"Name": "h", "OSType": "linux"})).expect("it is made");
    let body = &made.create.body;
    assert_eq!(made.create.name, "s-web-2");
    assert_eq!(body["HostConfig"]["NetworkMode"], "s_default");
    assert_eq!(made.create.networks[0].0, "s_back");
    assert_eq!(body["HostConfig"]["Privileged"], true);
    assert_eq!(body["HostConfig"]["RestartPolicy"], json!({"Name": "on-failure", "MaximumRetryCount": 3}));
    assert_eq!(body["HostConfig"]["PortBindings"]["80/tcp"], json!([{"HostIp": "", "HostPort": "8080"}]));
    assert_eq!(body["Env"], json!(["SLOT=2"]));
    let labels = body["Labels"].as_object().expect("labels");
    assert!(labels.keys().all(|key| !key.starts_with("com.docker.swarm.")), "{labels:?}");
    assert!(!body.to_string().contains("c2VjcmV0") && !body.to_string().contains("secret\""), "{body}");
    let files: Vec<String> =
        made.files.iter().map(|it| format!("{} {:o} {}", it.target, it.mode, it.data.len())).collect();
    assert_eq!(files, ["/run/secrets/pass 444 6", "/etc/app/conf 440 3"]);
    // What lists show of it is the declaration again.
    let container = json!({"Id": "1", "Names": ["/s-web-2"], "Labels": labels, "Created": 1});
    let service = shape::services(std::slice::from_ref(&container)).remove(0);
    let mut wanted = spec();
    wanted["Mode"]["Replicated"]["Replicas"] = 1.into();
    assert_eq!(service["Spec"], wanted);
    let names: Vec<String> = shape::files_of(&container).into_iter().map(|it| it.1).collect();
    assert_eq!(names, ["s_pass", "s_conf"]);
}

#[test]
fn containers_are_shown_as_tasks() {
    let check = |state: Value, restarts: u64, expected: &str| {
        let labels = json!({"herder.service": "s_web", "herder.slot": "1", "herder.spec": spec().to_string()});
        let container =
            json!({"Id": "0123456789", "State": state, "RestartCount": restarts, "Config": {"Labels": labels}});
        let tasks = shape::tasks(&container);
        let tasks = tasks.iter().map(|it| {
            format!("{} {}", it["Status"]["State"].as_str().unwrap_or(""), it["Status"]["Err"].as_str().unwrap_or(""))
        });
        assert_eq!(tasks.map(|it| it.trim().to_owned()).collect::<Vec<_>>().join(", "), expected);
    };
    check(json!({"Status": "running"}), 0, "running");
    check(json!({"Status": "running"}), 2, "running");
    check(json!({"Status": "running", "Health": {"Status": "starting"}}), 0, "starting");
    check(json!({"Status": "running", "Health": {"Status": "healthy"}}), 0, "running");
    check(json!({"Status": "exited", "ExitCode": 0}), 0, "complete");
    check(json!({"Status": "exited", "ExitCode": 3}), 0, "failed task: non-zero exit (3)");
    check(
        json!({"Status": "restarting", "ExitCode": 1}),
        2,
        "starting, failed task: non-zero exit (1), failed task: non-zero exit (1)",
    );
}

#[test]
fn an_archive_is_read_by_tar() {
    let made = shape::made(&spec(), 1, &given(), &json!({})).expect("it is made");
    let archive = shape::archive(&made.files).expect("an archive");
    let mut archive = tar::Archive::new(archive.as_slice());
    let entries = archive.entries().expect("entries").map(|entry| {
        let entry = entry.expect("an entry");
        let head = entry.header();
        let (path, mode) = (entry.path().expect("a path"), head.mode().expect("a mode"));
        format!("{} {mode:o} {} {}", path.display(), head.uid().expect("a user"), entry.size())
    });
    let entries: Vec<String> = entries.collect();
    assert_eq!(
        entries,
        ["run/secrets/ 755 0 0", "run/secrets/pass 444 0 6", "etc/app/ 755 0 0", "etc/app/conf 440 7 3"]
    );
}

#[test]
fn networks_of_an_engine_are_bridges_that_are_shown_as_declared() {
    let body = json!({"Name": "s_default", "Driver": "overlay", "Attachable": true, "Labels": {"l": "1"}});
    let mut there = shape::network_body(&body);
    assert_eq!(there["Driver"], "bridge");
    there["Scope"] = "local".into();
    shape::network(&mut there);
    assert_eq!(
        (&there["Driver"], &there["Scope"], &there["Labels"]),
        (&body["Driver"], &json!("swarm"), &body["Labels"])
    );
    assert_eq!(there["Attachable"], true);
}
