//! Conversion of the engine's JSON to the model. Pure: the meaning of an answer does not depend on the time of reading.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use herder_decide::naming::Naming;
use herder_decide::{render, request};
use herder_model::{
    Container, Entry, Health, Image, LABEL_RESCHEDULE, LABEL_SWARM_ID, MountPoint, Network, PublishedPort, Volume,
};
use serde_json::{Value, json};

/// Facts of an engine from `GET /info` and `GET /version`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    pub engine_id: String,
    pub name: String,
    pub ncpu: i64,
    pub memory_bytes: i64,
    pub labels: BTreeMap<String, String>,
    pub os_type: String,
    pub architecture: String,
    pub server_version: String,
    /// The newest version of the API that the engine speaks.
    pub api_version: String,
    /// Seconds since 1970 by the engine's clock, if it tells.
    pub system_time: Option<i64>,
    /// A daemon label `node` was left out.
    pub has_node_label: bool,
}

/// Reads `/info` and `/version`. The error is a whole sentence about what is wrong with the engine.
pub(crate) fn facts(addr: &str, info: &Value, version: &Value) -> Result<Facts, String> {
    let (ncpu, memory_bytes) = (number(&info["NCPU"]), number(&info["MemTotal"]));
    if ncpu == 0 || memory_bytes == 0 {
        return Err(format!(
            "cannot get resources for this engine, make sure {addr} is a Docker Engine, not a Swarm manager"
        ));
    }
    let mut labels = BTreeMap::new();
    let mut has_node_label = false;
    for label in info["Labels"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (key, value) = label
            .split_once('=')
            .ok_or(format!("the engine's label `{label}` has no value; start dockerd with --label {label}=VALUE"))?;
        // It would shadow the key `node` of constraints.
        if key == "node" {
            has_node_label = true;
        } else {
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
    for (label, field) in [
        ("storagedriver", "Driver"),
        ("kernelversion", "KernelVersion"),
        ("operatingsystem", "OperatingSystem"),
        ("ostype", "OSType"),
    ] {
        labels.insert(label.into(), text(&info[field]));
    }
    Ok(Facts {
        engine_id: text(&info["ID"]),
        name: text(&info["Name"]),
        ncpu,
        memory_bytes,
        labels,
        os_type: text(&info["OSType"]),
        architecture: text(&info["Architecture"]),
        server_version: text(&info["ServerVersion"]),
        api_version: text(&version["ApiVersion"]),
        system_time: timestamp(&info["SystemTime"]).map(|time| time.as_second()),
        has_node_label,
    })
}

/// One container, from its entry in the list (as text) and its inspection. `shift` seconds are added to the
/// engine's own times, when its clock differs from ours.
pub(crate) fn container(
    summary: &str,
    inspect: &Value,
    shift: i64,
    naming: Naming,
) -> Result<Container, serde_json::Error> {
    let entry: Value = serde_json::from_str(summary)?;
    let (config, host, state) = (&inspect["Config"], &inspect["HostConfig"], &inspect["State"]);
    let labels = strings(&config["Labels"]);
    let seconds = |value: &Value| match timestamp(value).map(|time| time.as_second()) {
        Some(time) if time > 0 => time + shift,
        _ => 0,
    };
    let exposed = config["ExposedPorts"].as_object().into_iter().flatten().map(|(port, _)| port.clone());
    let mut container = Container {
        id: text(&entry["Id"]),
        name: text(&inspect["Name"]).trim_start_matches('/').to_owned(),
        swarm_id: labels.get(LABEL_SWARM_ID).cloned().unwrap_or_default(),
        image: text(&config["Image"]),
        image_id: text(&inspect["Image"]),
        created: number(&entry["Created"]) + shift,
        state: text(&entry["State"]),
        started_at: seconds(&state["StartedAt"]),
        finished_at: seconds(&state["FinishedAt"]),
        exit_code: number(&state["ExitCode"]),
        health: match state["Health"]["Status"].as_str() {
            Some("starting") => Some(Health::Starting),
            Some("healthy") => Some(Health::Healthy),
            Some("unhealthy") => Some(Health::Unhealthy),
            _ => None,
        },
        inspect: labels.contains_key(LABEL_RESCHEDULE).then(|| Arc::new(inspect.clone())),
        reserved: request::reserved(host, &labels),
        labels: labels.into(),
        network_mode: text(&host["NetworkMode"]),
        // What an engine took is valid; a form that is not known counts for nothing.
        host_ports: exact(request::host_ports(&host["PortBindings"]).unwrap_or_default().into_iter()),
        exposed_ports: exact(exposed),
        published: exact(entry["Ports"].as_array().into_iter().flatten().map(published)),
        mounts: exact(inspect["Mounts"].as_array().into_iter().flatten().map(mount)),
        networks: entry["NetworkSettings"]["Networks"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, network)| (name.clone(), text(&network["NetworkID"])))
            .collect(),
        entry: Entry::default(),
        entry_mark: entry_mark(summary),
    };
    container.entry = render::entry(summary, &container, naming);
    Ok(container)
}

/// Without room for more: a container is kept for long, and there are tens of thousands of them.
fn exact<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.shrink_to_fit();
    items
}

/// True if two readings of a container show the same. `Status` in the summary is left out: it changes with time alone.
pub(crate) fn same_container(a: &Container, b: &Container) -> bool {
    // Field by field without `..`, so that a new field is not forgotten here. `entry` follows from the others.
    let Container {
        id,
        name,
        swarm_id,
        image,
        image_id,
        created,
        state,
        started_at,
        finished_at,
        exit_code,
        health,
        labels,
        reserved,
        network_mode,
        host_ports,
        exposed_ports,
        published,
        mounts,
        networks,
        entry: _,
        entry_mark,
        inspect,
    } = a;
    let strings = [id, name, swarm_id, image, image_id, state, network_mode]
        == [&b.id, &b.name, &b.swarm_id, &b.image, &b.image_id, &b.state, &b.network_mode];
    let numbers =
        [created, started_at, finished_at, exit_code] == [&b.created, &b.started_at, &b.finished_at, &b.exit_code];
    strings
        && numbers
        && (health, labels, reserved) == (&b.health, &b.labels, &b.reserved)
        && (host_ports, exposed_ports, published) == (&b.host_ports, &b.exposed_ports, &b.published)
        && (mounts, networks, inspect) == (&b.mounts, &b.networks, &b.inspect)
        && *entry_mark == b.entry_mark
}

/// Returns a hash of a list entry without the time in `Status`. `Up 2 minutes (healthy)` and `Up 3 minutes (healthy)`
/// are equal, `Exited (0) 1 second ago` and `Exited (1) 1 second ago` are not.
pub(crate) fn entry_mark(summary: &str) -> u64 {
    let (head, status, tail) = around_status(summary);
    let mut hasher = DefaultHasher::new();
    (head, tail).hash(&mut hasher);
    timeless(status).for_each(|word| word.hash(&mut hasher));
    hasher.finish()
}

/// The first word of a status, and the words in parentheses.
fn timeless(status: &str) -> impl Iterator<Item = &str> {
    let words = status.split_inclusive([' ', ')']).map(str::trim).filter(|word| !word.is_empty());
    let mut open = false;
    words.enumerate().filter_map(move |(index, word)| {
        open |= word.starts_with('(');
        let counts = open || index == 0;
        open &= !word.ends_with(')');
        counts.then_some(word)
    })
}

/// The text of a list entry before the value of `Status`, the value, and the text after it.
fn around_status(summary: &str) -> (&str, &str, &str) {
    let Some((head, tail)) = summary.split_once(r#""Status":""#) else { return (summary, "", "") };
    // Docker's status texts have no quotes in them.
    let (status, tail) = tail.split_once('"').unwrap_or((tail, ""));
    (head, status, tail)
}

/// Returns the content of a list entry in the form of an inspection. It is for a container that the engine cannot
/// inspect (its files are damaged, say) but lists.
pub(crate) fn inspect_of_entry(entry: &Value) -> Value {
    let name = list(&entry["Names"]).into_iter().find(|name| !name.trim_start_matches('/').contains('/'));
    json!({
        "Name": name,
        "Image": entry["ImageID"],
        "Config": {"Image": entry["Image"], "Labels": entry["Labels"]},
        "HostConfig": {"NetworkMode": entry["HostConfig"]["NetworkMode"]},
        "Mounts": entry["Mounts"],
    })
}

fn published(port: &Value) -> PublishedPort {
    PublishedPort {
        ip: text(&port["IP"]),
        private: port_number(&port["PrivatePort"]),
        public: port_number(&port["PublicPort"]),
        protocol: text(&port["Type"]),
    }
}

fn mount(mount: &Value) -> MountPoint {
    MountPoint {
        kind: text(&mount["Type"]),
        name: text(&mount["Name"]),
        source: text(&mount["Source"]),
        destination: text(&mount["Destination"]),
    }
}

/// An entry of `GET /images/json`.
pub(crate) fn image(entry: Value, shift: i64) -> Image {
    Image {
        id: text(&entry["Id"]),
        parent_id: text(&entry["ParentId"]),
        repo_tags: list(&entry["RepoTags"]),
        repo_digests: list(&entry["RepoDigests"]),
        labels: strings(&entry["Labels"]),
        created: number(&entry["Created"]) + shift,
        size: number(&entry["Size"]),
        summary: Arc::new(entry),
    }
}

/// An entry of `GET /networks`.
pub(crate) fn network(entry: Value) -> Network {
    Network {
        id: text(&entry["Id"]),
        name: text(&entry["Name"]),
        driver: text(&entry["Driver"]),
        scope: text(&entry["Scope"]),
        labels: strings(&entry["Labels"]),
        summary: Arc::new(entry),
    }
}

/// An entry of `GET /volumes`.
pub(crate) fn volume(entry: Value) -> Volume {
    Volume {
        name: text(&entry["Name"]),
        driver: text(&entry["Driver"]),
        labels: strings(&entry["Labels"]),
        summary: Arc::new(entry),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn port_number(value: &Value) -> u16 {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default()
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn timestamp(value: &Value) -> Option<jiff::Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> Value {
        json!({"ID": "AB:CD", "Name": "h1", "NCPU": 2, "MemTotal": 1000, "Driver": "overlay2", "KernelVersion": "6.1",
            "OperatingSystem": "Debian", "OSType": "linux", "Architecture": "x86_64", "ServerVersion": "20.10.24",
            "Labels": ["zone=a", "node=evil", "ostype=plan9"], "SystemTime": "2026-01-01T00:00:10.5Z"})
    }

    #[test]
    fn labels_of_the_engine_win_over_daemon_labels_and_node_is_dropped() {
        let facts = facts("a:1", &info(), &json!({"ApiVersion": "1.41"})).unwrap();
        let labels: Vec<String> = facts.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            labels.join(" "),
            "kernelversion=6.1 operatingsystem=Debian ostype=linux storagedriver=overlay2 zone=a"
        );
        assert_eq!(facts.system_time, Some(1_767_225_610));
    }

    #[test]
    fn an_engine_without_resources_or_with_a_bare_label_is_refused() {
        for (field, value, reason) in [
            ("NCPU", json!(0), "make sure a:1 is a Docker Engine"),
            ("Labels", json!(["bare"]), "label `bare` has no value"),
        ] {
            let mut info = info();
            info[field] = value;
            let error = facts("a:1", &info, &Value::Null).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_container_keeps_what_its_entry_says_and_shifts_its_times() {
        let summary = r#"{"Id":"c1","Created":100,"State":"running","Ports":[{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}],"NetworkSettings":{"Networks":{"bridge":{"NetworkID":"n1"}}},"New":1}"#;
        let inspect = json!({"Name": "/web", "Image": "sha256:1", "Config": {"Image": "busybox", "Labels":
            {"com.docker.swarm.id": "s1"}, "ExposedPorts": {"80/tcp": {}}}, "HostConfig": {"NetworkMode": "default",
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostPort": ""}], "53/udp":
            [{"HostPort": "53-55"}]}}, "State": {"StartedAt": "1970-01-01T00:01:40Z", "FinishedAt":
            "0001-01-01T00:00:00Z", "Health": {"Status": "healthy"}}});
        let container = container(summary, &inspect, 7, Naming::Docker).unwrap();
        assert_eq!((container.created, container.started_at, container.finished_at), (107, 107, 0));
        assert_eq!((container.name.as_str(), container.swarm_id.as_str()), ("web", "s1"));
        assert_eq!(container.health, Some(Health::Healthy));
        let node = herder_model::Node { name: "n1".into(), ip: "10.0.0.1".into(), ..Default::default() };
        let shown: Value = serde_json::from_str(&render::container(&node, &container, 0)).unwrap();
        assert_eq!(
            (&shown["New"], &shown["Created"], &shown["Ports"][0]["IP"]),
            (&json!(1), &json!(107), &json!("10.0.0.1"))
        );
        let ports: Vec<String> =
            container.host_ports.iter().map(|port| format!("{}-{}/{}", port.first, port.last, port.protocol)).collect();
        assert_eq!(ports, ["8080-8080/tcp", "53-55/udp"]);
        assert_eq!(container.networks.get("bridge"), Some("n1"));
        assert!(container.inspect.is_none());
    }

    /// Answers of a real engine, 20.10.24.
    const ENTRY: &str = include_str!("fake/entry.json");
    const INSPECT: &str = include_str!("fake/inspect.json");

    fn real(summary: &str) -> Container {
        container(summary, &serde_json::from_str(INSPECT).unwrap(), 0, Naming::Docker).unwrap()
    }

    #[test]
    fn a_container_of_a_real_engine_is_understood() {
        let seen = real(ENTRY);
        assert_eq!((seen.name.as_str(), seen.state.as_str(), seen.image.as_str()), ("web", "running", "busybox"));
        assert_eq!((seen.created, seen.started_at, seen.finished_at), (1_795_223_152, 1_795_223_152, 0));
        assert_eq!(seen.swarm_id, "5".repeat(64));
        assert_eq!(seen.health, Some(Health::Starting));
        assert_eq!((seen.reserved.nano_cpus, seen.reserved.memory_bytes), (500_000_000, 64 << 20));
        let mut asked: Vec<String> = seen.host_ports.iter().map(|it| format!("{}/{}", it.first, it.protocol)).collect();
        asked.sort();
        assert_eq!(asked, ["53/udp", "8080/tcp"]);
        assert_eq!(seen.exposed_ports, ["53/udp", "80/tcp", "9000/tcp"]);
        assert_eq!(seen.published.iter().filter(|port| port.public == 8080).count(), 2);
        assert_eq!((seen.mounts[0].kind.as_str(), seen.mounts[0].name.as_str()), ("volume", "data"));
        assert_eq!(seen.network_mode, "default");
    }

    #[test]
    fn time_alone_makes_no_other_container() {
        let old = real(ENTRY);
        assert!(same_container(&old, &real(&ENTRY.replace("Up 1 second", "Up 3 hours"))));
        for (from, to) in [("\"running\"", "\"paused\""), ("10.231.101.2", "10.231.101.3"), ("8080", "8081")] {
            assert!(!same_container(&old, &real(&ENTRY.replace(from, to))), "{from} became {to}");
        }
    }

    #[test]
    fn entries_that_differ_in_the_time_only_are_the_same() {
        let with = |status: &str| ENTRY.replace("Up 1 second (health: starting)", status);
        for (a, b, same) in [
            ("Up 2 minutes", "Up About an hour", true),
            ("Up 2 minutes (healthy)", "Up 3 minutes (healthy)", true),
            ("Up 2 minutes (health: starting)", "Up 2 minutes (healthy)", false),
            ("Up 2 minutes (healthy)", "Up 2 minutes", false),
            ("Exited (0) 1 second ago", "Exited (0) 2 weeks ago", true),
            ("Exited (0) 1 second ago", "Exited (137) 1 second ago", false),
            ("Up 2 minutes", "Exited (0) 2 minutes ago", false),
            ("Created", "Created", true),
            ("Created", "Dead", false),
        ] {
            assert_eq!(entry_mark(&with(a)) == entry_mark(&with(b)), same, "{a} and {b}");
        }
        assert_ne!(entry_mark(ENTRY), entry_mark(&ENTRY.replace("8080", "8081")));
    }

    #[test]
    fn a_list_entry_alone_makes_a_container() {
        let inspect = inspect_of_entry(&serde_json::from_str(ENTRY).unwrap());
        let seen = container(ENTRY, &inspect, 0, Naming::Docker).unwrap();
        assert_eq!((seen.name.as_str(), seen.image.as_str(), seen.labels.get("app")), ("web", "busybox", Some("shop")));
        assert_eq!((seen.network_mode.as_str(), seen.mounts.len()), ("default", 1));
    }
}
