//! Meaning of each key of a service on a cluster.

use crate::node::{Node, Value};

use super::{Context, at_key};

/// The class of a key.
enum Class {
    /// Carried out, or settled while loading.
    Honoured,
    /// Without a meaning on a cluster; a note says why.
    Note(&'static str),
    /// Refused, with a message and a way out.
    Refused(&'static str, &'static str),
}

use Class::{Honoured, Note, Refused};

/// The class of each key; keys that are not here are honoured.
fn class(key: &str, value: &Node) -> Class {
    let text = value.as_str().unwrap_or_default();
    match key {
        "expose" => Note("has no effect on a cluster: services of one network reach all ports of one another"),
        "container_name" => Note("becomes an alias on the service's networks: tasks have names of their own"),
        "attach" | "develop" => Honoured,
        "build" => Refused(
            "images are built by `herder stack deploy` for a swarm of herder only",
            "build and push the image first, and give its name as `image:`",
        ),
        "provider" => Refused("is carried out by another program", "run it before the deployment"),
        "external_links" => Refused("links to containers outside of the stack", "put both on an external network"),
        "volumes_from" => Refused("mounts another container's volumes", "name the volumes in both services"),
        "use_api_socket" => Refused(
            "would give the container the whole cluster's API",
            "give it a client certificate and the address of an endpoint",
        ),
        "network_mode" | "ipc" | "pid" if text.starts_with("service:") || text.starts_with("container:") => Refused(
            "needs both containers on one node, which a cluster does not promise",
            "put what belongs together into one image, or use a network or volume",
        ),
        "cpu_count" | "cpu_percent" => Refused("is for Windows containers only", "use cpus"),
        "credential_spec" if value.get("file").is_some() && text.is_empty() => Honoured,
        "models" => Refused(
            "there is no model runner on the cluster",
            "declare a service for the model and set its address as a variable",
        ),
        "label_file" | "env_file" | "extends" | "profiles" | "pull_refresh_after" => Honoured,
        _ => Honoured,
    }
}

/// Reports every key of a service that has no meaning or is not supported.
pub(super) fn check(context: &mut Context<'_>, name: &str, service: &Node) {
    for (key, value) in service.entries().filter(|(_, value)| !value.is_null()) {
        // `privileged: false` asks for nothing.
        if value.as_bool() == Some(false) {
            continue;
        }
        let at = value.named_at();
        match class(key, value) {
            Honoured => {}
            Note(message) => context.report.note("no-meaning", at, at_key(name, key), message),
            Refused(message, help) => context.report.refuse("refused", at, at_key(name, key), message, help),
        }
    }
    ports(context, name, service);
    mounts(context, &at_key(name, "volumes"), service);
    for step in service.get("pre_start").into_iter().flat_map(Node::elements) {
        mounts(context, &at_key(name, "pre_start"), step);
    }
    attachments(context, name, service);
    for label in service.get("labels").into_iter().chain(service.get("deploy").and_then(|it| it.get("labels"))) {
        let reserved = ["com.docker.compose", "com.docker.stack", "com.docker.swarm"];
        for (key, value) in label.entries().filter(|(key, _)| reserved.iter().any(|prefix| key.starts_with(prefix))) {
            let message = format!("the label `{key}` is set by the cluster itself");
            context.report.error("refused", value.named_at(), at_key(name, "labels"), message);
        }
    }
}

fn ports(context: &mut Context<'_>, name: &str, service: &Node) {
    for port in service.get("ports").into_iter().flat_map(Node::elements) {
        let host_ip = port.get("host_ip").and_then(Node::as_str).unwrap_or_default();
        if matches!(host_ip, "" | "0.0.0.0" | "::") {
            continue;
        }
        let is_host = port.get("mode").and_then(Node::as_str) == Some("host");
        let message = if is_host {
            format!("a port of mode host cannot be bound to {host_ip} alone yet")
        } else {
            format!("the mesh answers on every address of every node, not on {host_ip} alone")
        };
        let help = "leave the address out to publish the port everywhere, or remove the port and use a network";
        context.report.refuse("refused", port.at, at_key(name, "ports"), message, help);
    }
}

fn mounts(context: &mut Context<'_>, path: &str, owner: &Node) {
    for mount in owner.get("volumes").into_iter().flat_map(Node::elements) {
        let kind = mount.get("type").and_then(Node::as_str).unwrap_or_default();
        let source = mount.get("source");
        let relative = source.and_then(|source| source.written.as_deref());
        if let (Some(written), "bind") = (relative, kind) {
            let message = format!("{written} is a path of this machine; the task may run on another one");
            let help = "use `configs:` for files, a volume for data, or an absolute path that every node has";
            context.report.refuse("relative-bind", mount.at, path.to_owned(), message, help);
        }
        if matches!(kind, "npipe" | "cluster") {
            let message = format!("mounts of the type {kind} are not offered");
            context.report.error("refused", mount.at, path.to_owned(), message);
        }
    }
}

fn attachments(context: &mut Context<'_>, name: &str, service: &Node) {
    let networks = service.get("networks").into_iter().flat_map(Node::entries);
    for (network, node) in networks {
        for key in ["ipv4_address", "ipv6_address", "mac_address", "link_local_ips", "interface_name"] {
            let Some(value) = node.get(key).filter(|value| !matches!(value.value, Value::Null)) else { continue };
            let path = format!("{}.{network}.{key}", at_key(name, "networks"));
            let message = "addresses are given by the cluster";
            context.report.refuse("refused", value.named_at(), path, message, "reach the service by its name");
        }
    }
}
