//! Releases side by side: what one of them writes, read by the other.
//!
//! `level0` is a frozen copy of the records as the release before feature levels had them. A release that is out gets its copy
//! here before its records are changed.

mod any;
mod level0;

use any::Source;
use herder_model::swarm::{self as now, TaskState};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Random bytes to make a value of.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..800)
}

/// A release's own types of the objects that share members ([`object`] puts them together).
trait Release {
    type ServiceRecord: Serialize + DeserializeOwned;
    type TaskRecord: Serialize + DeserializeOwned;
    type NodeRecord: Serialize + DeserializeOwned;
    type ClusterRecord: Serialize + DeserializeOwned;
    type ServiceSpec: Serialize + DeserializeOwned;
    type TaskSpec: Serialize + DeserializeOwned;
    type TaskStatus: Serialize + DeserializeOwned;
    type NodeSpec: Serialize + DeserializeOwned;
    type NodeDescription: Serialize + DeserializeOwned;
    type NodeStatus: Serialize + DeserializeOwned;
    type ClusterSpec: Serialize + DeserializeOwned;
    type SecretSpec: Serialize + DeserializeOwned;
    type ConfigSpec: Serialize + DeserializeOwned;
    type Command: Serialize + DeserializeOwned;

    type ToLeader: Serialize + DeserializeOwned;
    type ToNode: Serialize + DeserializeOwned;
}

macro_rules! release {
    ($name:ident, $module:ident) => {
        struct $name;

        impl Release for $name {
            type ServiceRecord = $module::ServiceRecord;
            type TaskRecord = $module::TaskRecord;
            type NodeRecord = $module::NodeRecord;
            type ClusterRecord = $module::ClusterRecord;
            type ServiceSpec = $module::ServiceSpec;
            type TaskSpec = $module::TaskSpec;
            type TaskStatus = $module::TaskStatus;
            type NodeSpec = $module::NodeSpec;
            type NodeDescription = $module::NodeDescription;
            type NodeStatus = $module::NodeStatus;
            type ClusterSpec = $module::ClusterSpec;
            type SecretSpec = $module::SecretSpec;
            type ConfigSpec = $module::ConfigSpec;
            type Command = $module::Command;

            type ToLeader = $module::ToLeader;
            type ToNode = $module::ToNode;
        }
    };
}

release!(Before, level0);
release!(Now, now);

/// A part of a record that this release could write.
fn part<T: Serialize + DeserializeOwned>(source: &mut Source<'_>) -> Value {
    message::<T>(source).unwrap_or_else(|| json!({}))
}

/// A message that this release could send.
fn message<T: Serialize + DeserializeOwned>(source: &mut Source<'_>) -> Option<Value> {
    source.any::<T>().map(|value| serde_json::to_value(value).expect("JSON"))
}

/// The name of a message.
fn name(message: &Value) -> Option<&str> {
    message.as_str().or_else(|| message.as_object()?.keys().next().map(String::as_str))
}

/// Messages of sessions that the release before knows.
const KNOWN_MESSAGES: [&str; 14] = [
    "hello",
    "reports",
    "describe",
    "alive",
    "ready",
    "whole",
    "leave",
    "welcome",
    "assignments",
    "changes",
    "heard",
    "elsewhere",
    "dissolved",
    "refused",
];

/// Adds the members that all objects have.
fn with_meta(source: &mut Source<'_>, more: Value) -> Value {
    let mut object =
        json!({"ID": source.text(), "Version": {"Index": 1 + source.below(9)}, "CreatedAt": "a", "UpdatedAt": "b"});
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

/// A record with one of its members replaced. Members that records share are flattened, which hides them from [`Source::any`].
fn record<T: Serialize + DeserializeOwned>(source: &mut Source<'_>, member: &str, value: Value) -> Value {
    let mut record = part::<T>(source);
    record[member] = value;
    record
}

/// An object as a release writes it into the log.
fn object<R: Release>(source: &mut Source<'_>) -> Value {
    match source.below(6) {
        0 => {
            let more = json!({"Spec": part::<R::ServiceSpec>(source), "PreviousSpec": part::<R::ServiceSpec>(source),
                "Endpoint": {"Spec": {}}});
            let service = with_meta(source, more);
            json!({"service": record::<R::ServiceRecord>(source, "service", service)})
        }
        1 => {
            let word = |source: &mut Source<'_>| TaskState::KNOWN[source.below(TaskState::KNOWN.len())].as_str();
            let mut status = part::<R::TaskStatus>(source);
            status["State"] = word(source).into();
            let more = json!({"Spec": part::<R::TaskSpec>(source), "Status": status, "DesiredState": word(source), "Labels": null,
                "ServiceID": source.text(), "NodeID": source.text(), "Slot": 1});
            let task = with_meta(source, more);
            json!({"task": record::<R::TaskRecord>(source, "task", task)})
        }
        2 => {
            let mut spec = part::<R::NodeSpec>(source);
            (spec["Role"], spec["Availability"]) = ("manager".into(), "drain".into());
            let mut status = part::<R::NodeStatus>(source);
            status["State"] = "down".into();
            let more = json!({"Spec": spec, "Description": part::<R::NodeDescription>(source), "Status": status});
            let node = with_meta(source, more);
            let mut node = record::<R::NodeRecord>(source, "node", node);
            node["role"] = "worker".into();
            json!({"node": node})
        }
        3 => {
            let more = json!({"Spec": part::<R::ClusterSpec>(source), "TLSInfo": {}, "RootRotationInProgress": false,
                "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24, "DataPathPort": 4789});
            let cluster = with_meta(source, more);
            json!({"cluster": record::<R::ClusterRecord>(source, "cluster", cluster)})
        }
        4 => {
            let more = json!({"Spec": part::<R::SecretSpec>(source)});
            json!({"secret": with_meta(source, more)})
        }
        _ => {
            let more = json!({"Spec": part::<R::ConfigSpec>(source)});
            json!({"config": with_meta(source, more)})
        }
    }
}

/// A command as a release writes it into the log.
fn command<R: Release>(source: &mut Source<'_>) -> Value {
    let changes: Vec<Value> = (0..1 + source.below(3))
        .map(|_| match source.below(6) {
            0 => json!({"remove": ["task", source.text()]}),
            1 => json!({"expect": ["service", source.text(), 7]}),
            2 => {
                let more = json!({"Spec": part::<R::ServiceSpec>(source), "Endpoint": {"Spec": {}}});
                let service = with_meta(source, more);
                json!({"putspec": record::<R::ServiceRecord>(source, "service", service)})
            }
            _ => json!({"put": object::<R>(source)}),
        })
        .collect();
    json!({"at": 7, "changes": changes})
}

/// Reads as one release, writes as that.
fn through<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, TestCaseError> {
    let text = serde_json::to_string(value).expect("JSON");
    let read: T = serde_json::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
    Ok(serde_json::to_value(&read).expect("JSON"))
}

/// True if everything in `small` is in `large`.
fn holds(small: &Value, large: &Value) -> bool {
    match (small, large) {
        (Value::Object(small), Value::Object(large)) => {
            small.iter().all(|(key, value)| large.get(key).is_some_and(|other| holds(value, other)))
        }
        (Value::Array(small), Value::Array(large)) => {
            small.len() == large.len() && small.iter().zip(large).all(|(one, other)| holds(one, other))
        }
        _ => small == large,
    }
}

/// Members that hold no record: their keys are people's.
const MAPS: [&str; 8] =
    ["Labels", "Options", "DriverOpts", "Sysctls", "BindOptions", "VolumeOptions", "TmpfsOptions", "Runtime"];
/// Members whose value is a number in a record's clothes.
const NUMBERS: [&str; 5] = ["Version", "JobIteration", "spec_version", "previous_spec_version", "PluginSpec"];

/// Adds members that a later release could have added, to all records.
fn with_novelties(value: &mut Value, source: &mut Source<'_>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                if !MAPS.contains(&name.as_str()) && !NUMBERS.contains(&name.as_str()) {
                    with_novelties(value, source);
                }
            }
            // The name of a kind or of a change stands alone.
            let is_record =
                members.keys().any(|name| name.chars().next().is_some_and(char::is_uppercase) || name == "made_at");
            if is_record && source.below(2) == 0 {
                let novelty = [json!("new"), json!(null), json!({"Deep": [1, {"x": -1.5}]}), json!(true)];
                members.insert("Novelty".to_owned(), novelty[source.below(novelty.len())].clone());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| with_novelties(item, source)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The release before refused specifications with these members, and never wrote one.
fn without_refused(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !["NetworkAttachmentSpec", "PluginSpec"].contains(&name.as_str()));
            members.values_mut().for_each(without_refused);
        }
        Value::Array(items) => items.iter_mut().for_each(without_refused),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Reads a message as a release.
type Read = fn(&Value) -> Result<Value, TestCaseError>;

/// Words that the release before knows.
fn with_known_words(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                match name.as_str() {
                    "role" | "Role" => *value = "manager".into(),
                    "availability" | "Availability" => *value = "pause".into(),
                    "state" | "State" => *value = "running".into(),
                    "removed" => {
                        // Pairs of kind and id; what is removed from a network is an id alone.
                        let removed = value.as_array_mut().into_iter().flatten();
                        removed.filter_map(|removed| removed.get_mut(0)).for_each(|kind| *kind = "secret".into());
                    }
                    _ => with_known_words(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(with_known_words),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A manager that goes back to the release before reads this release's log, and loses only unknown members.
    #[test]
    fn the_release_before_reads_what_this_one_writes_without_new_features(bytes in bytes()) {
        let written = through::<now::Command>(&command::<Now>(&mut Source::new(&bytes)))?;
        let read = through::<level0::Command>(&written)?;
        prop_assert!(holds(&read, &written), "was    {}\nbecame {}", written, read);
    }

    #[test]
    fn this_release_reads_and_writes_what_the_one_before_wrote_as_it_was(bytes in bytes()) {
        let mut written = through::<level0::Command>(&command::<Before>(&mut Source::new(&bytes)))?;
        without_refused(&mut written);
        prop_assert_eq!(through::<now::Command>(&written)?, written);
    }

    /// A manager of this release keeps what a later one wrote, whatever it writes itself afterwards.
    #[test]
    fn this_release_keeps_what_the_next_one_writes(bytes in bytes(), more in bytes()) {
        let mut source = Source::new(&more);
        let mut written = through::<now::Command>(&command::<Now>(&mut Source::new(&bytes)))?;
        with_novelties(&mut written, &mut source);
        let novelty = with_meta(&mut source, json!({"Name": "x", "Anything": [{"at": "all"}]}));
        if let Value::Array(changes) = &mut written["changes"] {
            changes.push(json!({"put": {"novelty": novelty}}));
            changes.push(json!({"remove": ["novelty", "x"]}));
            changes.push(json!({"put": {"node": {"node": with_meta(&mut source, json!({
                "Spec": {"Labels": null, "Role": "learner", "Availability": "shy"}, "Status": {"State": "dreaming"},
                "Description": {"Hostname": "h", "Platform": {}, "Resources": {}, "Engine": {}, "TLSInfo": {}},
            })), "role": "learner", "state_since": 0}}}));
        }
        prop_assert_eq!(through::<now::Command>(&written)?, written);
    }

    #[test]
    fn nodes_and_leaders_of_the_release_before_understand_this_one(bytes in bytes()) {
        let mut source = Source::new(&bytes);
        let said = message::<level0::ToLeader>(&mut source).map(|it| (through::<now::ToLeader>(&it), it));
        let told = message::<level0::ToNode>(&mut source).map(|it| (through::<now::ToNode>(&it), it));
        for (read, said) in said.into_iter().chain(told) {
            prop_assert!(holds(&said, &read?), "{}", said);
        }
        let said = message::<now::ToLeader>(&mut source).map(|it| (through::<level0::ToLeader> as Read, it));
        let told = message::<now::ToNode>(&mut source).map(|it| (through::<level0::ToNode> as Read, it));
        let messages = said.into_iter().chain(told);
        for (read, mut said) in messages.filter(|(_, it)| name(it).is_some_and(|it| KNOWN_MESSAGES.contains(&it))) {
            with_known_words(&mut said);
            let read = read(&said)?;
            prop_assert!(holds(&read, &said), "was    {}\nbecame {}", said, read);
        }
    }
}

/// A manager or node of this release keeps hooks of a later one. No member that it does not know is
/// lost.
#[test]
fn hooks_of_a_later_release_are_kept_whole() {
    let hooks = json!({"PreStart": [{"Command": ["m"], "Retries": 3}], "PreRemove": [{"Command": ["x"]}]});
    let container = json!({"Image": "i", "Herder": {"Hooks": hooks, "Later": [1]}});
    let spec = json!({"Name": "s", "Labels": null, "TaskTemplate": {"ContainerSpec": container, "ForceUpdate": 0}, "Mode": {}});
    let service =
        json!({"ID": "s", "Version": {}, "CreatedAt": "", "UpdatedAt": "", "Spec": spec, "Endpoint": {"Spec": {}}});
    let record = json!({"service": service, "spec_version": {}, "previous_spec_version": {}});
    let change = json!({"at": 1, "changes": [{"putspec": record}]});
    assert_eq!(through::<now::Command>(&change).expect("read"), change);
}

/// Documents why feature levels exist: the release before loses members, and fails at a new kind.
#[test]
fn the_release_before_loses_members_and_fails_at_kinds() {
    let secret =
        json!({"ID": "s", "Version": {}, "CreatedAt": "", "UpdatedAt": "", "Spec": {"Labels": null, "Novelty": 1}});
    let change = json!({"at": 1, "changes": [{"put": {"secret": secret}}]});
    let read: level0::Command = serde_json::from_value(change.clone()).expect("a command");
    assert!(!serde_json::to_string(&read).expect("JSON").contains("Novelty"));
    let read: now::Command = serde_json::from_value(change.clone()).expect("a command");
    assert_eq!(serde_json::to_value(&read).expect("JSON"), change);
    let change = json!({"at": 1, "changes": [{"put": {"novelty": {"ID": "s"}}}]});
    let error = serde_json::from_value::<level0::Command>(change.clone()).expect_err("refused");
    assert!(error.to_string().contains("unknown variant `novelty`"), "{error}");
    assert!(serde_json::from_value::<now::Command>(change).is_ok());
}

/// Checks the objects that share members and are put together by hand in [`object`]. A member that is added to one of
/// them must be added there, too.
#[test]
fn every_shared_object_is_made_whole() {
    let now::Service {
        id: _,
        meta: _,
        spec: _,
        previous_spec: _,
        endpoint: _,
        update_status: _,
        service_status: _,
        job_status: _,
        rest,
    } = now::Service::default();
    assert!(rest.is_empty());
    let now::SwarmNode { id: _, meta: _, spec: _, description: _, status: _, manager_status: _, rest } =
        now::SwarmNode::default();
    assert!(rest.is_empty());
    let now::Secret { id: _, meta: _, spec: _, rest } = now::Secret::default();
    assert!(rest.is_empty());
    let now::Config { id: _, meta: _, spec: _, rest } = now::Config::default();
    assert!(rest.is_empty());
}
