use std::sync::Arc;

use herder_model::swarm::{Config, Secret, TaskSpec};

use super::*;

fn node() -> NodeFacts {
    NodeFacts {
        id: "0ex47a7avj41hclzfptzixjr1".into(),
        hostname: "h1".into(),
        os: "linux".into(),
        architecture: "x86_64".into(),
    }
}

fn parsed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("readable")
}

/// Members that both have, and what only one of them has, as text; nothing if they are the same.
fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let empty = Map::new();
    let (ours, theirs) = (ours.as_object().unwrap_or(&empty), theirs.as_object().unwrap_or(&empty));
    let changed = ours.iter().filter(|(key, value)| theirs.get(*key) != Some(value));
    let changed = changed.map(|(key, value)| format!("{key}: {value}, not {:?}", theirs.get(key)));
    let missing = theirs.keys().filter(|key| !ours.contains_key(*key)).map(|key| format!("{key} is missing"));
    changed.chain(missing).collect()
}

/// `real.json`: services on Docker 20.10 in swarm mode, their tasks, and the containers that it made of them.
#[test]
fn containers_are_made_as_swarm_mode_makes_them() {
    let recorded: Vec<Value> = serde_json::from_str(include_str!("real.json")).expect("json");
    assert!(recorded.len() >= 6);
    for it in recorded {
        let service = it["service"].as_str().expect("a name");
        let mut record =
            TaskRecord { task: parsed(&it["task"]), service_name: service.into(), ..TaskRecord::default() };
        record.ports = parsed(&it["ports"]);
        let facts = ServiceFacts { labels: parsed(&it["labels"]), ..ServiceFacts::default() };
        let mut told = Assignments::default();
        told.services.insert(record.task.service_id.clone(), facts);
        let created = create(&record, &told, &node(), &[], &Overlays::new()).expect("a container");
        assert_eq!(created.name, it["name"], "{service}");

        let (mut body, mut config, mut shown) = (created.body, it["config"].clone(), it["host_config"].clone());
        let mut host = body["HostConfig"].take();
        body.as_object_mut()
            .expect("an object")
            .retain(|key, _| !matches!(key.as_str(), "HostConfig" | "NetworkingConfig" | "StopTimeout"));
        // What the engine says itself when nobody does.
        if body.get("Hostname").is_none() {
            config.as_object_mut().expect("an object").remove("Hostname");
        }
        for (key, default) in
            [("LogConfig", json!({"Config": {}, "Type": "json-file"})), ("Isolation", json!("default"))]
        {
            if host.get(key).is_none() {
                host[key] = default;
            }
        }
        if let Some(memory) = host["Memory"].as_i64() {
            host["MemorySwap"] = (2 * memory).into();
        }
        for host in [&mut host, &mut shown] {
            host.as_object_mut().expect("an object").retain(|_, value| !value.is_null() && *value != json!(false));
        }
        assert_eq!(differences(&body, &config), [""; 0], "{service}");
        assert_eq!(differences(&host, &shown), [""; 0], "{service}");
    }
}

/// A task with this container; what else it has as members of the task.
fn record(container: Value, task: Value) -> TaskRecord {
    let mut spec: TaskSpec = parsed(&task["Spec"]);
    spec.container_spec = Some(parsed(&container));
    let mut record = TaskRecord { service_name: "web".into(), ..TaskRecord::default() };
    (record.task.id, record.task.service_id, record.task.slot) = ("t1".into(), "s1".into(), 1);
    record.task.generic_resources =
        task["GenericResources"].as_array().map(|it| parsed(&json!(it))).unwrap_or_default();
    record.task.spec = Arc::new(spec);
    record
}

/// Checks the value at a path of the body (`HostConfig.SecurityOpt`) for a container with this member.
#[track_caller]
fn check(container: Value, path: &str, expected: Value) {
    check_task(container, json!({"Spec": {}}), path, expected);
}

#[track_caller]
fn check_task(mut container: Value, task: Value, path: &str, expected: Value) {
    container["Image"] = "busybox".into();
    let created =
        create(&record(container, task), &Assignments::default(), &node(), &[], &Overlays::new()).expect("a container");
    let pointer = format!("/{}", path.replace('.', "/"));
    assert_eq!(created.body.pointer(&pointer).unwrap_or(&Value::Null), &expected, "{path}");
}

#[test]
fn settings_that_the_recording_lacks() {
    check(json!({"StopGracePeriod": 1_500_000_000}), "StopTimeout", json!(2));
    check(json!({"StopGracePeriod": 0}), "StopTimeout", json!(0));
    check(json!({}), "StopTimeout", Value::Null);
    let security = |privileges: Value, expected: Value| {
        check(json!({"Privileges": privileges}), "HostConfig.SecurityOpt", expected);
    };
    security(json!({"SELinuxContext": {"Disable": true}}), json!(["label=disable"]));
    security(json!({"SELinuxContext": {"User": "u", "Type": "t"}}), json!(["label=user:u", "label=type:t"]));
    security(json!({"Seccomp": {"Mode": "unconfined"}}), json!(["seccomp=unconfined"]));
    security(json!({"Seccomp": {"Mode": "custom", "Profile": "e30="}}), json!(["seccomp={}"]));
    security(json!({"AppArmor": {"Mode": "disabled"}}), json!(["apparmor=unconfined"]));
    security(json!({"NoNewPrivileges": true}), json!(["no-new-privileges=true"]));
    security(json!({"CredentialSpec": {"File": "f"}}), json!(["credentialspec=file://f"]));
    security(json!({}), Value::Null);
    check(json!({"Hosts": ["10.0.0.9 a b", "bad"]}), "HostConfig.ExtraHosts", json!(["a:10.0.0.9"]));
    check(json!({"OomScoreAdj": 5}), "HostConfig.OomScoreAdj", json!(5));
    check(json!({"Init": false}), "HostConfig.Init", json!(false));
    check(json!({}), "HostConfig.Init", Value::Null);

    let resources = |resources: Value| json!({"Spec": {"Resources": resources}});
    let swap = json!({"Limits": {"MemoryBytes": 100}, "SwapBytes": 50, "MemorySwappiness": 0});
    check_task(json!({}), resources(swap.clone()), "HostConfig.MemorySwap", json!(150));
    check_task(json!({}), resources(swap), "HostConfig.MemorySwappiness", json!(0));
    check_task(json!({}), resources(json!({"SwapBytes": -1})), "HostConfig.MemorySwap", json!(-1));
    // Reservations hold nobody to anything.
    check_task(json!({}), resources(json!({"Reservations": {"MemoryBytes": 100}})), "HostConfig.Memory", Value::Null);

    let gpu = |value: &str| json!({"NamedResourceSpec": {"Kind": "gpu", "Value": value}});
    let disks = json!({"DiscreteResourceSpec": {"Kind": "SSD", "Value": 3}});
    let given = json!({"Spec": {}, "GenericResources": [gpu("a"), gpu("b"), disks]});
    let env = json!(["A=1", "DOCKER_RESOURCE_GPU=a,b", "DOCKER_RESOURCE_SSD=3"]);
    check_task(json!({"Env": ["A=1"]}), given, "Env", env);

    let networks = json!({"Spec": {"Networks": [{"Target": "front", "Aliases": ["w"]}, {"Target": "back"}]}});
    check_task(json!({}), networks.clone(), "HostConfig.NetworkMode", json!("front"));
    let endpoints = json!({"front": {"Aliases": ["w"]}});
    check_task(json!({}), networks.clone(), "NetworkingConfig.EndpointsConfig", endpoints);
    let two = create(&record(json!({}), networks), &Assignments::default(), &node(), &[], &Overlays::new())
        .expect("a container");
    assert_eq!(two.networks, [("back".to_owned(), json!({}))]);
}

#[test]
fn volumes_whose_driver_is_said_are_made_first() {
    let volume = |source: &str, options: Value| json!({"Type": "volume", "Source": source, "Target": "/v", "VolumeOptions": options});
    let driver = json!({"DriverConfig": {"Name": "nfs", "Options": {"a": "{{.Task.Slot}}"}}, "Labels": {"l": "{{.Service.Name}}"}});
    let mounts = json!([
        volume("v-{{.Task.Slot}}", driver),
        volume("plain", json!({"NoCopy": true})),
        volume("", json!({"DriverConfig": {"Name": "nfs"}})),
        {"Type": "bind", "Source": "/", "Target": "/x"},
    ]);
    let made = create(
        &record(json!({"Mounts": mounts}), json!({"Spec": {}})),
        &Assignments::default(),
        &node(),
        &[],
        &Overlays::new(),
    );
    let expected = json!({"Name": "v-1", "Driver": "nfs", "DriverOpts": {"a": "1"}, "Labels": {"l": "web"}});
    assert_eq!(made.expect("a container").volumes, [expected]);
    // Whatever a client sends as options.
    for odd in [json!("text"), json!([1]), json!({"Labels": 3, "DriverConfig": "x"}), json!(null)] {
        let odd = record(json!({"Mounts": [volume("v", odd)]}), json!({"Spec": {}}));
        assert!(
            create(&odd, &Assignments::default(), &node(), &[], &Overlays::new())
                .expect("a container")
                .volumes
                .is_empty()
        );
    }
}

#[test]
fn images_have_the_names_that_the_engine_shows() {
    let digest = "sha256:6c8a7399585bd3e2218f3d59aadcef557adb4453e12c42157a4ba3c591f6312b";
    for (name, expected) in [
        ("busybox", "busybox:latest"),
        ("busybox:1", "busybox:1"),
        ("docker.io/library/busybox", "busybox:latest"),
        ("docker.io/me/app:2", "me/app:2"),
        ("host:5000/app", "host:5000/app:latest"),
        ("library/a/b", "library/a/b:latest"),
        (&format!("busybox@{digest}"), &format!("busybox@{digest}")),
        (&format!("busybox:1@{digest}"), &format!("busybox:1@{digest}")),
        (digest, digest),
    ] {
        assert_eq!(image(name), expected);
    }
}

fn told() -> Assignments {
    let secret = |id: &str, data: &str, templating: Option<&str>| {
        Arc::new(parsed::<Secret>(&json!({"ID": id, "Spec": {"Name": id, "Data": data,
            "Templating": templating.map(|name| json!({"Name": name}))}})))
    };
    let config = |id: &str, data: &[u8], templating: Option<&str>| {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        Arc::new(parsed::<Config>(&json!({"ID": id, "Spec": {"Name": id, "Data": data,
            "Templating": templating.map(|name| json!({"Name": name}))}})))
    };
    let template = br#"{{env "G"}} {{.Service.Name}} {{secret "tok"}} {{config "plain"}} {{env "none"}}."#;
    Assignments {
        secrets: vec![secret("s1", "YWJj", None)],
        configs: vec![
            config("plain", b"hello", None),
            config("tpl", template, Some("golang")),
            config("bad", br#"x={{secret "nope"}}"#, Some("golang")),
            config("odd", b"x", Some("other")),
            config("raw", &[0xff], Some("golang")),
        ],
        ..Assignments::default()
    }
}

/// Files of a task with these references, as `target mode uid:gid data`; or why there are none.
#[track_caller]
fn check_files(secrets: Value, configs: Value, expected: &str) {
    let record = record(json!({"Env": ["G=hi"], "Secrets": secrets, "Configs": configs}), json!({"Spec": {}}));
    let shown = match files(&record, &told(), &node()) {
        Ok(files) => {
            let line = |file: File| {
                let data = String::from_utf8_lossy(&file.data).into_owned();
                format!("{} {:o} {}:{} {data}", file.target, file.mode, file.uid, file.gid)
            };
            files.into_iter().map(line).collect::<Vec<_>>().join("\n")
        }
        Err(error) => error,
    };
    assert_eq!(shown, expected);
}

#[test]
fn secrets_and_configs_become_files() {
    let secret = |id: &str, name: &str, uid: &str| {
        json!([{"SecretID": id, "SecretName": id,
        "File": {"Name": name, "UID": uid, "GID": "2", "Mode": 0o400}}])
    };
    let config = |id: &str, name: &str| {
        json!({"ConfigID": id, "ConfigName": id,
        "File": {"Name": name, "UID": "0", "GID": "0", "Mode": 0o444}})
    };
    check_files(secret("s1", "tok", "1"), json!([]), "/run/secrets/tok 400 1:2 abc");
    check_files(secret("s1", "/etc/tok", ""), json!([]), "/etc/tok 400 0:2 abc");
    check_files(secret("s1", "tok", "x"), json!([]), "the UID \"x\" of secret s1 must be a number");
    check_files(secret("gone", "tok", ""), json!([]), "secret gone not found");
    check_files(json!([]), json!([config("plain", "c")]), "/c 444 0:0 hello");
    check_files(json!([]), json!([{"ConfigID": "plain", "ConfigName": "plain", "Runtime": {}}]), "");
    check_files(
        secret("s1", "tok", "0"),
        json!([config("plain", "plain"), config("tpl", "/etc/t")]),
        "/run/secrets/tok 400 0:2 abc\n/plain 444 0:0 hello\n/etc/t 444 0:0 hi web abc hello .",
    );
    check_files(
        json!([]),
        json!([config("bad", "b")]),
        "failed to expand templated config bad: template: expansion:1:4: executing \"expansion\" at <secret \"nope\">: error calling secret: secret target nope not found",
    );
    check_files(
        json!([]),
        json!([config("odd", "b")]),
        "failed to expand templated config odd: unrecognized template type",
    );
    check_files(
        json!([]),
        json!([config("raw", "b")]),
        "failed to expand templated config raw: the template is no text",
    );
}

#[test]
fn a_task_has_its_addresses_in_overlay_networks_and_asks_there_for_names() {
    let task = json!({"Spec": {"Networks": [{"Target": "ov", "Aliases": ["w"]}, {"Target": "back"}]}});
    let mut record = record(json!({}), task);
    let place = |id: &str, address: [u8; 4]| TaskNetwork {
        network_id: id.into(),
        v4: Some(address.into()),
        ..TaskNetwork::default()
    };
    record.networks = vec![place("in", [10, 0, 0, 5]), place("ov", [10, 0, 16, 4]), place("back", [10, 0, 17, 4])];
    let overlay = |id: &str, dns: &[&str]| Overlay {
        engine_id: format!("engine-{id}"),
        dns: dns.iter().map(|it| it.parse().expect("an address")).collect(),
    };
    let overlays = Overlays::from([
        ("in".to_owned(), overlay("in", &[])),
        ("ov".to_owned(), overlay("ov", &["10.0.16.1", "fd00::1"])),
        ("back".to_owned(), overlay("back", &["10.0.17.1"])),
    ]);
    let made = create(&record, &Assignments::default(), &node(), &[], &overlays).expect("a container");
    assert_eq!(made.body["HostConfig"]["NetworkMode"], "engine-in");
    assert_eq!(made.body["HostConfig"]["Dns"], json!(["10.0.16.1", "10.0.17.1", "fd00::1"]));
    let first = json!({"IPAMConfig": {"IPv4Address": "10.0.0.5"}, "MacAddress": "02:42:0a:00:00:05"});
    assert_eq!(made.body["NetworkingConfig"]["EndpointsConfig"], json!({"engine-in": first}));
    let names: Vec<&str> = made.networks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["engine-ov", "engine-back"]);
    let ov = json!({"IPAMConfig": {"IPv4Address": "10.0.16.4"}, "MacAddress": "02:42:0a:00:10:04", "GwPriority": 99});
    assert_eq!(made.networks[0].1, ov);
}
