//! Checks that concern more than one value of a model (Compose Specification; swarm mode's limits are not looked at).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use crate::diagnostic::{Path, Report};
use crate::load::Environment;
use crate::node::Node;
use crate::project::{Implied, implied};

/// Adds every fault of the canonical model to the report.
pub(crate) fn check(model: &Node, disabled: &BTreeSet<String>, environment: &Environment, report: &mut Report) {
    let root = Path::ROOT;
    let services_path = root.key("services");
    let services = model.get("services");
    if services.is_none_or(|services| services.entries().next().is_none()) && disabled.is_empty() {
        report.error("no-service", model.at, root, "the project has no services");
    }
    let mut checker = Checker { model, disabled, report };
    for (name, service) in services.into_iter().flat_map(Node::entries) {
        let path = services_path.key(name);
        checker.name(name, service, path);
        checker.source(service, path);
        checker.references(service, path);
        checker.networking(service, path);
        checker.mounts(service, path);
        checker.scale(service, path);
        checker.words(service, path);
        checker.devices(service, path);
    }
    checker.cycles();
    for section in ["secrets", "configs"] {
        checker.file_objects(section, environment);
    }
    for section in ["networks", "volumes"] {
        checker.external(section);
    }
}

struct Checker<'a> {
    model: &'a Node,
    disabled: &'a BTreeSet<String>,
    report: &'a mut Report,
}

impl Checker<'_> {
    fn error(&mut self, code: &'static str, node: &Node, path: impl Display, message: impl Into<String>) {
        self.report.error(code, node.at, path, message);
    }

    fn name(&mut self, name: &str, service: &Node, path: Path<'_>) {
        if !name.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '.' | '_' | '-')) || name.is_empty() {
            let message = "the name of a service has letters, digits, `.`, `_` and `-` only";
            self.report.error("name", service.named_at(), path, message);
        }
    }

    fn source(&mut self, service: &Node, path: Path<'_>) {
        if ["image", "build", "provider"].iter().all(|key| service.get(key).is_none_or(Node::is_null)) {
            self.report.error("no-image", service.named_at(), path, "has neither an image nor a build");
        }
        if let Some(build) = service.get("build")
            && build.get("dockerfile").is_some()
            && build.get("dockerfile_inline").is_some()
        {
            self.error("conflict", build, path.key("build"), "has both dockerfile and dockerfile_inline");
        }
    }

    fn references(&mut self, service: &Node, path: Path<'_>) {
        let implied = service.as_map().map(implied).unwrap_or_default();
        for Implied { key, name, at } in &implied {
            if !self.has("services", name) {
                let message = format!("refers to `{name}`, which is not a service of the project");
                self.report.error("undefined", *at, path.key(key), message);
            }
        }
        for (name, node) in service.get("depends_on").into_iter().flat_map(Node::entries) {
            let required = node.get("required").and_then(Node::as_bool).unwrap_or(true);
            if self.has("services", name) || !required || implied.iter().any(|it| it.name == name) {
                continue;
            }
            let depends = path.key("depends_on");
            let message = if self.disabled.contains(name) {
                format!("depends on `{name}`, which no active profile includes")
            } else {
                format!("depends on `{name}`, which is not a service of the project")
            };
            self.report.error("undefined", node.named_at(), depends.key(name), message);
        }
        for (key, section, kind) in [("networks", "networks", "network"), ("models", "models", "model")] {
            for (name, node) in service.get(key).into_iter().flat_map(Node::entries) {
                if !self.has(section, name) {
                    let at = node.named_at();
                    let message = format!("refers to the {kind} `{name}`, which is not declared");
                    self.report.error("undefined", at, path.key(key), message);
                }
            }
        }
        for (key, kind) in [("secrets", "secret"), ("configs", "config")] {
            let key_path = path.key(key);
            for (index, node) in service.get(key).into_iter().flat_map(Node::elements).enumerate() {
                let here = key_path.index(index);
                let Some(source) = node.get("source").and_then(Node::as_str) else {
                    self.error("value", node, here, "names no source");
                    continue;
                };
                if !self.has(key, source) {
                    let message = format!("refers to the {kind} `{source}`, which is not declared");
                    self.error("undefined", node, here, message);
                }
            }
        }
        let spec = service.get("credential_spec");
        if let Some(config) = spec.and_then(|spec| spec.get("config"))
            && let Some(name) = config.as_str()
            && !self.has("configs", name)
        {
            let message = format!("refers to the config `{name}`, which is not declared");
            self.error("undefined", config, path.key("credential_spec"), message);
        }
    }

    fn has(&self, section: &str, name: &str) -> bool {
        self.model.get(section).and_then(|section| section.get(name)).is_some()
    }

    fn networking(&mut self, service: &Node, path: Path<'_>) {
        let networks = service.get("networks").filter(|networks| networks.entries().next().is_some());
        if let (Some(mode), Some(_)) = (service.get("network_mode"), networks) {
            self.error("conflict", mode, path.key("network_mode"), "has both network_mode and networks");
        }
        let ports_path = path.key("ports");
        let mut published = BTreeMap::new();
        for (index, port) in service.get("ports").into_iter().flat_map(Node::elements).enumerate() {
            let here = ports_path.index(index);
            let text = |key: &str| port.get(key).and_then(Node::as_str).unwrap_or_default();
            match port.get("target").and_then(Node::as_int) {
                Some(1..=65_535) => {}
                Some(other) => self.error("value", port, here, format!("{other} is not a port")),
                None => self.error("value", port, here, "names no target port"),
            }
            if !text("host_ip").is_empty() && text("host_ip").parse::<IpAddr>().is_err() {
                self.error("value", port, here, format!("`{}` is not an IP address", text("host_ip")));
            }
            if text("published").is_empty() || text("published") == "0" {
                continue;
            }
            let key = (text("host_ip").to_owned(), text("published").to_owned(), text("protocol").to_owned());
            if let Some(other) = published.insert(key, port.at) {
                let message = format!("the port {}/{} is published twice", text("published"), text("protocol"));
                self.error("conflict", port, here, message);
                self.report.related(other, "it is published here, too");
            }
        }
    }

    fn mounts(&mut self, service: &Node, path: Path<'_>) {
        self.mounts_of(service, path);
        let steps_path = path.key("pre_start");
        for (index, step) in service.get("pre_start").into_iter().flat_map(Node::elements).enumerate() {
            self.mounts_of(step, steps_path.index(index));
        }
    }

    fn mounts_of(&mut self, owner: &Node, path: Path<'_>) {
        let volumes_path = path.key("volumes");
        for (index, mount) in owner.get("volumes").into_iter().flat_map(Node::elements).enumerate() {
            let here = volumes_path.index(index);
            let source = mount.get("source").and_then(Node::as_str);
            let kind = mount.get("type").and_then(Node::as_str).unwrap_or_default();
            if mount.get("target").and_then(Node::as_str).is_none_or(str::is_empty) {
                self.error("value", mount, here, "names no target");
            }
            match (kind, source) {
                ("volume", Some(name)) if !self.has("volumes", name) => {
                    let message = format!("refers to the volume `{name}`, which is not declared");
                    let help = format!("declare it under `volumes:`, or write ./{name} for a folder");
                    self.report.refuse("undefined", mount.at, here, message, help);
                }
                ("bind", None) => self.error("value", mount, here, "a bind names no source"),
                ("tmpfs", Some(_)) => self.error("value", mount, here, "a tmpfs has no source"),
                _ => {}
            }
        }
    }

    fn scale(&mut self, service: &Node, path: Path<'_>) {
        let deploy = service.get("deploy");
        let declared = deploy.and_then(|deploy| deploy.get("replicas"));
        let replicas = declared.and_then(Node::as_int);
        let mode = deploy.and_then(|deploy| deploy.get("mode")).and_then(Node::as_str).unwrap_or("replicated");
        if let Some(node) = service.get("scale") {
            if replicas.is_some() && replicas != node.as_int() {
                self.error("conflict", node, path.key("scale"), "differs from deploy.replicas; give only one of them");
            }
            if node.as_int().is_some_and(|scale| scale < 0) {
                self.error("value", node, path.key("scale"), "must not be negative");
            }
        }
        if replicas.is_some_and(|replicas| replicas < 0) {
            let node = declared.unwrap_or(service);
            self.error("value", node, path.key("deploy").key("replicas"), "must not be negative");
        }
        if mode.starts_with("global") && replicas.is_some() {
            let node = declared.unwrap_or(service);
            let message = format!("a {mode} service has no replicas");
            self.error("conflict", node, path.key("deploy").key("replicas"), message);
        }
        let count = service.get("scale").and_then(Node::as_int).or(replicas).unwrap_or(1);
        if let Some(node) = service.get("container_name")
            && count > 1
        {
            let message = format!("one name cannot be given to {count} containers");
            self.error("conflict", node, path.key("container_name"), message);
        }
        let limits = deploy.and_then(|it| it.get("resources")).and_then(|it| it.get("limits"));
        let reservations = deploy.and_then(|it| it.get("resources")).and_then(|it| it.get("reservations"));
        let pairs = [
            ("cpus", limits.and_then(|it| it.get("cpus"))),
            ("mem_limit", limits.and_then(|it| it.get("memory"))),
            ("mem_reservation", reservations.and_then(|it| it.get("memory"))),
            ("pids_limit", limits.and_then(|it| it.get("pids"))),
        ];
        for (key, other) in pairs {
            if let (Some(node), Some(other)) = (service.get(key), other)
                && node.scalar_text() != other.scalar_text()
            {
                self.error("conflict", node, path.key(key), "differs from the value in deploy.resources");
                self.report.related(other.at, "the other value is here");
            }
        }
    }

    fn words(&mut self, service: &Node, path: Path<'_>) {
        if let Some(node) = service.get("restart")
            && let Some(text) = node.as_str()
        {
            let (word, count) = text.split_once(':').unwrap_or((text, ""));
            let counted = word == "on-failure" && (count.is_empty() || count.parse::<u64>().is_ok());
            if !(counted || count.is_empty() && matches!(word, "no" | "always" | "unless-stopped" | "")) {
                let message = format!("`{text}` is not one of no, always, on-failure[:attempts], unless-stopped");
                self.error("value", node, path.key("restart"), message);
            }
        }
        if let Some(node) = service.get("pull_policy")
            && let Some(text) = node.as_str()
        {
            let known = ["always", "never", "missing", "if_not_present", "build", "daily", "weekly"];
            let every = text.strip_prefix("every_").is_some_and(|every| crate::duration(every).is_some());
            if !known.contains(&text) && !every {
                let message = format!("`{text}` is not one of {}, every_<duration>", known.join(", "));
                self.error("value", node, path.key("pull_policy"), message);
            }
        }
        if let Some(check) = service.get("healthcheck") {
            let disabled = check.get("disable").and_then(Node::as_bool) == Some(true);
            let is_none = |test: &Node| test.elements().next().and_then(Node::as_str) == Some("NONE");
            if let Some(test) = check.get("test")
                && disabled
                && !is_none(test)
            {
                self.error("conflict", test, path.key("healthcheck"), "has both disable and a test");
            }
        }
        for key in ["post_start", "pre_stop", "pre_start"] {
            let key_path = path.key(key);
            for (index, hook) in service.get(key).into_iter().flat_map(Node::elements).enumerate() {
                if hook.get("command").is_none_or(|command| command.elements().next().is_none()) {
                    self.error("value", hook, key_path.index(index), "has no command");
                }
            }
        }
    }

    fn devices(&mut self, service: &Node, path: Path<'_>) {
        let deploy = service.get("deploy").and_then(|it| it.get("resources")).and_then(|it| it.get("reservations"));
        let lists = [deploy.and_then(|it| it.get("devices")), service.get("gpus")];
        for device in lists.into_iter().flatten().flat_map(Node::elements) {
            if device.get("count").is_some() && device.get("device_ids").is_some() {
                self.error("conflict", device, path, "a device reservation has both count and device_ids");
            }
        }
    }

    /// Reports dependency cycles among services, each with its path.
    fn cycles(&mut self) {
        let services: BTreeMap<&str, &Node> = self.model.get("services").into_iter().flat_map(Node::entries).collect();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        for start in services.keys() {
            let mut way: Vec<&str> = Vec::new();
            // Depth first, with an explicit stack: a hostile file has thousands of services in a row.
            let mut stack = vec![(*start, false)];
            while let Some((name, left)) = stack.pop() {
                if left {
                    way.pop();
                    done.insert(name);
                    continue;
                }
                if let Some(begin) = way.iter().position(|it| *it == name) {
                    let mut names = way[begin..].to_vec();
                    names.push(name);
                    if let Some(node) = services.get(name).and_then(|service| service.get("depends_on")) {
                        let message = format!("services depend on one another in a circle: {}", names.join(" → "));
                        self.report.error("cycle", node.named_at(), Path::ROOT.key("services"), message);
                    }
                    return;
                }
                if done.contains(name) {
                    continue;
                }
                way.push(name);
                stack.push((name, true));
                let next = services.get(name).and_then(|service| service.get("depends_on"));
                stack.extend(next.into_iter().flat_map(Node::entries).map(|(name, _)| (name, false)));
            }
        }
    }

    fn file_objects(&mut self, section: &'static str, environment: &Environment) {
        let section_path = Path::ROOT.key(section);
        for (name, node) in self.model.get(section).into_iter().flat_map(Node::entries) {
            let path = section_path.key(name);
            let sources: Vec<&str> = ["file", "environment", "content", "driver"]
                .into_iter()
                .filter(|key| node.get(key).is_some())
                .collect();
            let external = node.get("external").and_then(Node::as_bool) == Some(true);
            match (external, sources.as_slice()) {
                (true, []) => {}
                (true, [key, ..]) => {
                    self.error("conflict", node, path, format!("is external and has {key}"));
                }
                (false, []) => {
                    let ways = if section == "configs" { "file, content, environment" } else { "file, environment" };
                    self.error("no-source", node, path, format!("has none of {ways}, external"));
                }
                (false, [one]) => self.file_source(section, one, node, path, environment),
                (false, several) => {
                    self.error("conflict", node, path, format!("has {}; give only one", several.join(" and ")));
                }
            }
        }
    }

    fn file_source(&mut self, section: &str, key: &str, node: &Node, path: Path<'_>, environment: &Environment) {
        if key == "content" && section == "secrets" {
            self.error("value", node, path, "a secret's content cannot stand in the file; use file or environment");
        }
        if key == "driver" && section == "configs" {
            self.error("value", node, path, "a config has no driver; use file, content or environment");
        }
        if key == "environment"
            && let Some(variable) = node.get("environment").and_then(Node::as_str)
            && !environment.contains_key(variable)
        {
            self.error("unset-variable", node, path, format!("the variable {variable} is not set"));
        }
    }

    fn external(&mut self, section: &'static str) {
        let section_path = Path::ROOT.key(section);
        for (name, node) in self.model.get(section).into_iter().flat_map(Node::entries) {
            if node.get("external").and_then(Node::as_bool) != Some(true) {
                continue;
            }
            let other = node.entries().find(|(key, _)| !(matches!(*key, "external" | "name") || key.starts_with("x-")));
            if let Some((key, value)) = other {
                self.error("conflict", value, section_path.key(name), format!("is external and has {key}"));
            }
        }
    }
}
