//! The container spec of a service.

use serde_json::{Map as Json, Value, json};

use crate::node::Node;
use crate::units;

use super::{Context, host, labels, list, put, texts};

/// The container spec of a service, in the member order of Docker's own types.
pub(super) fn spec(context: &Context<'_>, service: &Node) -> Value {
    let text = |key: &str| service.get(key).and_then(Node::scalar_text).unwrap_or_default();
    let flag = |key: &str| service.get(key).and_then(Node::as_bool);
    let mut spec = Json::new();
    put(&mut spec, "Image", tagged(&text("image")));
    spec.insert("Labels".into(), json!(labels(service.get("labels"), context.stack)));
    put(&mut spec, "Command", list(service.get("entrypoint")));
    put(&mut spec, "Args", list(service.get("command")));
    put(&mut spec, "Hostname", text("hostname"));
    put(&mut spec, "Env", environment(service));
    put(&mut spec, "Dir", text("working_dir"));
    put(&mut spec, "User", text("user"));
    put(&mut spec, "Groups", list(service.get("group_add")));
    put(&mut spec, "StopSignal", text("stop_signal"));
    put(&mut spec, "TTY", flag("tty").unwrap_or(false));
    put(&mut spec, "OpenStdin", flag("stdin_open").unwrap_or(false));
    put(&mut spec, "ReadOnly", flag("read_only").unwrap_or(false));
    put(&mut spec, "Mounts", mounts(context, service));
    // An empty period is one of zero, which is not the same as none.
    if let Some(period) = service.get("stop_grace_period").and_then(nanoseconds) {
        spec.insert("StopGracePeriod".into(), period.into());
    }
    put(&mut spec, "Healthcheck", health(service));
    put(&mut spec, "Hosts", hosts(service));
    put(&mut spec, "DNSConfig", resolver(service));
    put(&mut spec, "Secrets", files(context, service, "secrets"));
    put(&mut spec, "Configs", files(context, service, "configs"));
    put(&mut spec, "Isolation", text("isolation"));
    put(&mut spec, "Privileges", privileges(context, service));
    if let Some(init) = flag("init") {
        spec.insert("Init".into(), init.into());
    }
    put(&mut spec, "Sysctls", json!(texts(service.get("sysctls"))));
    put(&mut spec, "CapabilityAdd", capabilities(service, "cap_add"));
    put(&mut spec, "CapabilityDrop", capabilities(service, "cap_drop"));
    put(&mut spec, "Ulimits", ulimits(service));
    if let Some(score) = service.get("oom_score_adj").and_then(Node::as_int) {
        put(&mut spec, "OomScoreAdj", score);
    }
    put(&mut spec, "Herder", host::extension(context, service));
    spec.into()
}

fn nanoseconds(node: &Node) -> Option<i64> {
    units::duration(node.as_str()?)
}

/// An image as Docker's client sends it. It has `latest` where neither a tag nor a digest is said, and without the
/// default registry.
pub(super) fn tagged(image: &str) -> String {
    let familiar = image.strip_prefix("docker.io/").or(image.strip_prefix("index.docker.io/")).unwrap_or(image);
    let familiar = familiar.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(familiar);
    let last = familiar.rsplit('/').next().unwrap_or_default();
    let is_id = familiar.strip_prefix("sha256:").is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if last.is_empty() || last.contains([':', '@']) || is_id {
        return familiar.to_owned();
    }
    format!("{familiar}:latest")
}

/// `K=V` in the order of names; `K` alone removes what the image has.
pub(super) fn environment(service: &Node) -> Vec<String> {
    let entries = service.get("environment").into_iter().flat_map(Node::entries);
    let mut lines: Vec<String> = entries
        .map(|(key, value)| value.scalar_text().map_or_else(|| key.to_owned(), |value| format!("{key}={value}")))
        .collect();
    lines.sort_unstable();
    lines
}

/// `address host`, as `/etc/hosts` has it.
fn hosts(service: &Node) -> Vec<String> {
    let lines = list(service.get("extra_hosts"));
    lines.iter().filter_map(|line| line.split_once('=')).map(|(host, address)| format!("{address} {host}")).collect()
}

fn resolver(service: &Node) -> Value {
    let mut json = Json::new();
    for (key, name) in [("dns", "Nameservers"), ("dns_search", "Search"), ("dns_opt", "Options")] {
        put(&mut json, name, list(service.get(key)));
    }
    json.into()
}

fn health(service: &Node) -> Value {
    let Some(check) = service.get("healthcheck").filter(|check| !check.is_null()) else { return Value::Null };
    if check.get("disable").and_then(Node::as_bool) == Some(true) {
        return json!({"Test": ["NONE"]});
    }
    let mut json = Json::new();
    put(&mut json, "Test", list(check.get("test")));
    let times = [
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ];
    for (key, name) in times {
        put(&mut json, name, check.get(key).and_then(nanoseconds).unwrap_or(0));
    }
    put(&mut json, "Retries", check.get("retries").and_then(Node::as_int).unwrap_or(0));
    json.into()
}

pub(super) fn mounts(context: &Context<'_>, service: &Node) -> Vec<Value> {
    let declared = service.get("volumes").into_iter().flat_map(Node::elements).map(|mount| self::mount(context, mount));
    let temporary = list(service.get("tmpfs")).into_iter().map(|line| tmpfs(&line));
    declared.chain(temporary).collect()
}

fn mount(context: &Context<'_>, mount: &Node) -> Value {
    let text = |key: &str| mount.get(key).and_then(Node::as_str).unwrap_or_default();
    let kind = text("type");
    let detail = |name: &str, key: &str| mount.get(name).and_then(|it| it.get(key)).cloned();
    let mut json = Json::new();
    json.insert("Type".into(), kind.into());
    let source = match kind {
        "volume" if !text("source").is_empty() => context.object_name("volumes", text("source")),
        _ => text("source").to_owned(),
    };
    put(&mut json, "Source", source);
    put(&mut json, "Target", text("target"));
    put(&mut json, "ReadOnly", mount.get("read_only").and_then(Node::as_bool).unwrap_or(false));
    put(&mut json, "Consistency", text("consistency"));
    match kind {
        "bind" => {
            let mut bind = Json::new();
            if let Some(propagation) = detail("bind", "propagation") {
                put(&mut bind, "Propagation", propagation.as_str().unwrap_or_default());
            }
            put(&mut json, "BindOptions", bind);
        }
        "volume" => {
            let options = volume_options(context, mount, text("source"));
            // Docker's client sends empty options of an external volume; a mount without them would be another one.
            if !text("source").is_empty() || options != json!({}) {
                json.insert("VolumeOptions".into(), options);
            }
        }
        "tmpfs" => {
            let mut options = Json::new();
            if let Some(size) = detail("tmpfs", "size").and_then(|size| size.as_str()?.parse::<i64>().ok()) {
                put(&mut options, "SizeBytes", size);
            }
            if let Some(mode) = detail("tmpfs", "mode").and_then(|mode| mode.as_int()) {
                put(&mut options, "Mode", mode);
            }
            put(&mut json, "TmpfsOptions", options);
        }
        "image" => {
            if let Some(path) = detail("image", "subpath") {
                put(&mut json, "ImageOptions", json!({"Subpath": path.as_str()}));
            }
        }
        _ => {}
    }
    json.into()
}

/// Options of a volume: those of the mount, and those that make the volume where it does not exist.
fn volume_options(context: &Context<'_>, mount: &Node, key: &str) -> Value {
    let detail = |key: &str| mount.get("volume").and_then(|it| it.get(key));
    let declared = context.project.model.get("volumes").and_then(|volumes| volumes.get(key));
    let mut json = Json::new();
    put(&mut json, "NoCopy", detail("nocopy").and_then(Node::as_bool).unwrap_or(false));
    put(&mut json, "Subpath", detail("subpath").and_then(Node::as_str).unwrap_or_default());
    if key.is_empty() || context.is_external("volumes", key) {
        return json.into();
    }
    let mut all = labels(declared.and_then(|it| it.get("labels")), context.stack);
    all.extend(texts(detail("labels")));
    json.insert("Labels".into(), json!(all));
    let mut driver = Json::new();
    put(&mut driver, "Name", declared.and_then(|it| it.get("driver")).and_then(Node::as_str).unwrap_or_default());
    put(&mut driver, "Options", json!(texts(declared.and_then(|it| it.get("driver_opts")))));
    put(&mut json, "DriverConfig", driver);
    json.into()
}

/// The short form `path[:size=64m,mode=1770]`.
fn tmpfs(line: &str) -> Value {
    let (target, options) = line.split_once(':').unwrap_or((line, ""));
    let mut json = Json::new();
    for option in options.split(',') {
        match option.split_once('=') {
            Some(("size", size)) => put(&mut json, "SizeBytes", units::bytes(size).unwrap_or(0)),
            Some(("mode", mode)) => put(&mut json, "Mode", i64::from_str_radix(mode, 8).unwrap_or(0)),
            _ => {}
        }
    }
    let mut mount = Json::new();
    mount.insert("Type".into(), "tmpfs".into());
    put(&mut mount, "Target", target);
    put(&mut mount, "TmpfsOptions", json);
    mount.into()
}

/// References to secrets or configs. Their ids are filled in when the service is sent.
fn files(context: &Context<'_>, service: &Node, section: &str) -> Vec<Value> {
    let (name_key, id_key) = if section == "secrets" { ("SecretName", "SecretID") } else { ("ConfigName", "ConfigID") };
    let reference = |node: &Node| {
        let text = |key: &str| node.get(key).and_then(Node::as_str);
        let source = text("source").unwrap_or_default();
        let file = json!({
            "Name": text("target").unwrap_or(source),
            "UID": text("uid").unwrap_or("0"),
            "GID": text("gid").unwrap_or("0"),
            "Mode": node.get("mode").and_then(Node::as_int).unwrap_or(FILE_MODE),
        });
        let name = context.object_name(section, source);
        (name.clone(), json!({"File": file, id_key: "", name_key: name}))
    };
    let mut files: Vec<(String, Value)> =
        service.get(section).into_iter().flat_map(Node::elements).map(reference).collect();
    // A credential spec of a config needs the config without mounting it.
    if section == "configs"
        && let Some(config) = service.get("credential_spec").and_then(|it| it.get("config")).and_then(Node::as_str)
    {
        let name = context.object_name("configs", config);
        files.push((name.clone(), json!({"Runtime": {}, id_key: "", name_key: name})));
    }
    files.sort_by(|one, other| one.0.cmp(&other.0));
    files.into_iter().map(|(_, file)| file).collect()
}

/// Mode of files whose reference gives none: readable by all.
const FILE_MODE: i64 = 0o444;

fn privileges(context: &Context<'_>, service: &Node) -> Value {
    // Both are there in each service of Docker's client. Without them a change of labels would restart tasks.
    let mut json = Json::new();
    json.insert("CredentialSpec".into(), Value::Null);
    json.insert("SELinuxContext".into(), Value::Null);
    if let Some(spec) = service.get("credential_spec") {
        let text = |key: &str| spec.get(key).and_then(Node::as_str).unwrap_or_default();
        let mut credential = Json::new();
        put(&mut credential, "File", text("file"));
        put(&mut credential, "Registry", text("registry"));
        if !text("config").is_empty() {
            credential.insert("Config".into(), context.object_name("configs", text("config")).into());
        }
        put(&mut json, "CredentialSpec", credential);
    }
    let mut label = Json::new();
    for option in list(service.get("security_opt")) {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((&option, "true"));
        match (key, value) {
            ("no-new-privileges", value) => put(&mut json, "NoNewPrivileges", value == "true"),
            ("seccomp", "unconfined") => put(&mut json, "Seccomp", json!({"Mode": "unconfined"})),
            ("apparmor", "unconfined") => put(&mut json, "AppArmor", json!({"Mode": "disabled"})),
            ("label", "disable") => put(&mut label, "Disable", true),
            ("label", value) => {
                let (kind, value) = value.split_once(':').unwrap_or((value, ""));
                let name = match kind {
                    "user" => "User",
                    "role" => "Role",
                    "type" => "Type",
                    _ => "Level",
                };
                put(&mut label, name, value);
            }
            _ => {}
        }
    }
    put(&mut json, "SELinuxContext", label);
    json.into()
}

/// Capabilities in the engine's form, sorted, each once.
fn capabilities(service: &Node, key: &str) -> Vec<String> {
    let named = list(service.get(key)).into_iter().map(|name| name.to_ascii_uppercase());
    let mut names: Vec<String> = named
        .map(|name| if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn ulimits(service: &Node) -> Vec<Value> {
    let entries = service.get("ulimits").into_iter().flat_map(Node::entries);
    let mut limits: Vec<(&str, Value)> = entries
        .map(|(name, limit)| {
            let number = |key: &str| limit.get(key).and_then(Node::as_int).unwrap_or(0);
            (name, json!({"Name": name, "Hard": number("hard"), "Soft": number("soft")}))
        })
        .collect();
    limits.sort_by_key(|(name, _)| *name);
    limits.into_iter().map(|(_, limit)| limit).collect()
}
