//! Lookup of an object by its full id, else by its whole name, else by a prefix of its id.

use std::sync::Arc;

use herder_model::swarm::{Config, Kind, NetworkRecord, NodeRecord, Secret, ServiceRecord, Table, TaskRecord, View};

use crate::swarm::Denial;

/// The service that `text` means.
pub fn service<'v>(view: &'v View, text: &str) -> Result<&'v Arc<ServiceRecord>, Denial> {
    one(Kind::Service, &view.services, text, |it| it.service.spec.name == text)
}

/// The node that `text` means; its name is that of its host.
pub fn node<'v>(view: &'v View, text: &str) -> Result<&'v Arc<NodeRecord>, Denial> {
    one(Kind::Node, &view.nodes, text, |it| it.node.description.hostname == text)
}

/// The task that `text` means.
pub fn task<'v>(view: &'v View, text: &str) -> Result<&'v Arc<TaskRecord>, Denial> {
    one(Kind::Task, &view.tasks, text, |it| task_name(it) == text)
}

pub fn secret<'v>(view: &'v View, text: &str) -> Result<&'v Arc<Secret>, Denial> {
    one(Kind::Secret, &view.secrets, text, |it| it.spec.name == text)
}

pub fn config<'v>(view: &'v View, text: &str) -> Result<&'v Arc<Config>, Denial> {
    one(Kind::Config, &view.configs, text, |it| it.spec.name == text)
}

/// The network that `text` means. One that is being removed is not found.
pub fn network<'v>(view: &'v View, text: &str) -> Result<&'v Arc<NetworkRecord>, Denial> {
    let seen = |it: &&Arc<NetworkRecord>| !it.is_removing();
    if let Some(found) = view.networks.get(text).filter(seen) {
        return Ok(found);
    }
    if let Some(found) =
        view.named(Kind::Network, text).and_then(|id| view.networks.get(id)).filter(|it| it.name == text)
    {
        return Ok(found);
    }
    let begin = view.networks.range(text.to_owned()..).take_while(|(id, _)| !text.is_empty() && id.starts_with(text));
    let found: Vec<&Arc<NetworkRecord>> = begin.map(|(_, it)| it).filter(seen).collect();
    match found[..] {
        [found] => Ok(found),
        [] => Err(Denial::plain(404, format!("network {text} not found"))),
        _ => {
            let text = format!("network {text} is ambiguous ({} matches found based on ID prefix)", found.len());
            Err(Denial::plain(400, text))
        }
    }
}

/// Returns the name of a task: its service, its slot (of a global service, its node), and its id.
pub fn task_name(record: &TaskRecord) -> String {
    let task = &record.task;
    let place = if task.slot == 0 { task.node_id.clone() } else { task.slot.to_string() };
    format!("{}.{place}.{}", record.service_name, task.id)
}

fn one<'v, T>(
    kind: Kind,
    table: &'v Table<T>,
    text: &str,
    is_named: impl Fn(&T) -> bool,
) -> Result<&'v Arc<T>, Denial> {
    if let Some(found) = table.get(text) {
        return Ok(found);
    }
    let mut found: Vec<&Arc<T>> = table.values().filter(|it| is_named(it)).collect();
    if found.is_empty() && !text.is_empty() {
        let begin = table.range(text.to_owned()..).take_while(|(id, _)| id.starts_with(text));
        found = begin.map(|(_, it)| it).collect();
    }
    match found[..] {
        [found] => Ok(found),
        [] => Err(Denial::plain(404, format!("{kind} {text} not found"))),
        _ => Err(Denial::plain(400, format!("{kind} {text} is ambiguous ({} matches found)", found.len()))),
    }
}

#[cfg(test)]
mod tests {
    use herder_model::swarm::{NodeDescription, Object, Secret, SecretSpec, SwarmNode};

    use super::*;

    /// Nodes and secrets as `id:name`.
    fn view() -> View {
        let secret = |text: &str| {
            let (id, name) = text.split_once(':').expect("id and name");
            let spec = SecretSpec { name: name.into(), ..SecretSpec::default() };
            Object::Secret(Arc::new(Secret { id: id.into(), spec, ..Secret::default() }))
        };
        let node = |text: &str| {
            let (id, name) = text.split_once(':').expect("id and name");
            let description = NodeDescription { hostname: name.into(), ..NodeDescription::default() };
            let node = SwarmNode { id: id.into(), description, ..SwarmNode::default() };
            Object::Node(Arc::new(NodeRecord { node, ..NodeRecord::default() }))
        };
        let secrets = ["ab1:tok", "ab2:key", "c3:ab1x", "tok9:d4"].map(secret);
        View::of(1, secrets.into_iter().chain(["n1:a", "n2:b", "n3:b"].map(node)))
    }

    #[test]
    fn an_object_is_found_by_id_then_name_then_the_beginning_of_its_id() {
        let check = |text: &str, expected: &str| {
            let found =
                secret(&view(), text).map_or_else(|error| format!("{} {error}", error.status()), |it| it.id.clone());
            assert_eq!(found, expected, "{text}");
        };
        check("ab1", "ab1");
        check("tok", "ab1");
        check("ab1x", "c3");
        check("c", "c3");
        check("tok9", "tok9");
        check("ab", "400 secret ab is ambiguous (2 matches found)");
        check("TOK", "404 secret TOK not found");
        check("", "404 secret  not found");
    }

    #[test]
    fn two_hosts_may_have_one_name_and_are_then_told_apart_by_id() {
        let check = |text: &str, expected: &str| {
            let found = node(&view(), text).map_or_else(|error| error.to_string(), |it| it.node.id.clone());
            assert_eq!(found, expected, "{text}");
        };
        check("a", "n1");
        check("b", "node b is ambiguous (2 matches found)");
        check("n3", "n3");
    }
}
