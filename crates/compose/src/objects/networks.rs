//! Networks of a stack.

use std::collections::BTreeMap;

use serde_json::{Map as Json, Value, json};

use crate::node::Node;
use crate::project::Project;

use super::{Context, labels, list, put, texts};

/// Names that mean a network of the node itself.
pub(super) const OF_THE_NODE: [&str; 3] = ["host", "none", "bridge"];

/// The networks that the stack makes, as bodies of `POST /networks/create`.
pub(super) fn declared(context: &mut Context<'_>) -> BTreeMap<String, Value> {
    let mut networks = BTreeMap::new();
    let project = context.project;
    for (key, node) in project.section("networks").filter(|(key, _)| is_used(context, key)) {
        if context.is_external("networks", key) {
            continue;
        }
        let name = context.object_name("networks", key);
        let text = |key: &str| node.get(key).and_then(Node::as_str).unwrap_or_default();
        let flag = |key: &str| node.get(key).and_then(Node::as_bool);
        let driver = if text("driver").is_empty() { "overlay" } else { text("driver") };
        let mut body = Json::new();
        body.insert("Name".into(), name.as_str().into());
        // Engines before API 1.44 make two networks of one name without it.
        body.insert("CheckDuplicate".into(), true.into());
        body.insert("Driver".into(), driver.into());
        body.insert("Labels".into(), json!(labels(node.get("labels"), context.stack)));
        put(&mut body, "Options", json!(texts(node.get("driver_opts"))));
        put(&mut body, "Internal", flag("internal").unwrap_or(false));
        put(&mut body, "Attachable", flag("attachable").unwrap_or(false));
        put(&mut body, "EnableIPv6", flag("enable_ipv6").unwrap_or(false));
        if let Some(enable) = flag("enable_ipv4") {
            body.insert("EnableIPv4".into(), enable.into());
        }
        if let Some(ipam) = node.get("ipam").filter(|ipam| ipam.entries().next().is_some()) {
            body.insert("IPAM".into(), addresses(ipam));
        }
        networks.insert(name, body.into());
    }
    networks
}

fn addresses(ipam: &Node) -> Value {
    let config: Vec<Value> = ipam
        .get("config")
        .into_iter()
        .flat_map(Node::elements)
        .map(|config| {
            let mut json = Json::new();
            for (key, name) in [("subnet", "Subnet"), ("ip_range", "IPRange"), ("gateway", "Gateway")] {
                put(&mut json, name, config.get(key).and_then(Node::as_str).unwrap_or_default());
            }
            put(&mut json, "AuxiliaryAddresses", json!(texts(config.get("aux_addresses"))));
            json.into()
        })
        .collect();
    let mut json = Json::new();
    put(&mut json, "Driver", ipam.get("driver").and_then(Node::as_str).unwrap_or_default());
    put(&mut json, "Config", config);
    put(&mut json, "Options", json!(texts(ipam.get("options"))));
    json.into()
}

/// The networks that must exist before the stack is deployed.
pub(super) fn external(context: &mut Context<'_>) -> Vec<String> {
    let keys = context.project.section("networks").map(|(key, _)| key);
    keys.filter(|key| context.is_external("networks", key) && is_used(context, key))
        .map(|key| context.object_name("networks", key))
        .filter(|name| !OF_THE_NODE.contains(&name.as_str()))
        .collect()
}

fn is_used(context: &Context<'_>, key: &str) -> bool {
    context.project.services().any(|(_, service)| service.get("networks").is_some_and(|it| it.get(key).is_some()))
}

/// The networks of a service, in the order of their names in the cluster.
pub(super) fn of_service(context: &Context<'_>, name: &str, service: &Node) -> Vec<Value> {
    if let Some(mode) = service.get("network_mode").and_then(Node::as_str) {
        return vec![json!({"Target": mode})];
    }
    let mut networks: Vec<(String, Value)> = Vec::new();
    for (key, node) in service.get("networks").into_iter().flat_map(Node::entries) {
        let target = context.object_name("networks", key);
        let mut json = Json::new();
        json.insert("Target".into(), target.as_str().into());
        if !OF_THE_NODE.contains(&target.as_str()) {
            let mut aliases = list(node.get("aliases"));
            aliases.push(name.to_owned());
            aliases.extend(service.get("container_name").and_then(Node::as_str).map(str::to_owned));
            aliases.extend(links_to(context, name, key));
            let mut seen = std::collections::BTreeSet::new();
            aliases.retain(|alias| seen.insert(alias.clone()));
            json.insert("Aliases".into(), json!(aliases));
        }
        put(&mut json, "DriverOpts", json!(texts(node.get("driver_opts"))));
        networks.push((target, json.into()));
    }
    networks.sort_by(|one, other| one.0.cmp(&other.0));
    networks.into_iter().map(|(_, network)| network).collect()
}

/// Names that services give others by `links`, by the service that is meant, each with the service that gives it.
pub(super) type Links<'a> = BTreeMap<String, Vec<(String, &'a Node)>>;

pub(super) fn links(project: &Project) -> Links<'_> {
    let mut links = Links::new();
    for (_, service) in project.services() {
        for link in list(service.get("links")) {
            if let Some((to, alias)) = link.split_once(':') {
                links.entry(to.to_owned()).or_default().push((alias.to_owned(), service));
            }
        }
    }
    links
}

/// Names that other services of a network give this one by `links`.
fn links_to(context: &Context<'_>, name: &str, network: &str) -> Vec<String> {
    let on_network = |service: &Node| service.get("networks").is_some_and(|it| it.get(network).is_some());
    let links = context.links.get(name).into_iter().flatten();
    links.filter(|(_, service)| on_network(service)).map(|(alias, _)| alias.clone()).collect()
}
