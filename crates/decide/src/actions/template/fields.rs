//! The fields of Docker's create body: what each must be. Engines refuse what does not fit with a sentence about Go types, and
//! drop what they do not know without a word.

use serde_json::Value;

/// Required kind of a field. `null` is always fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Flag,
    Texts,
    /// One text is a list of one.
    TextOrTexts,
    List,
    Object,
    TextMap,
}

impl Kind {
    pub(super) fn words(self) -> &'static str {
        match self {
            Kind::Text => "a text",
            Kind::Number => "a number",
            Kind::Flag => "true or false",
            Kind::Texts => "a list of texts",
            Kind::TextOrTexts => "a text or a list of texts",
            Kind::List => "a list",
            Kind::Object => "an object",
            Kind::TextMap => "an object of texts",
        }
    }

    /// Makes a variable's value what its field wants, if it can be that.
    pub(super) fn fit(self, value: Value) -> Value {
        match (self, &value) {
            (Kind::Number | Kind::Flag, Value::String(text)) => match serde_json::from_str::<Value>(text.trim()) {
                Ok(read) if read.is_number() || read.is_boolean() => read,
                _ => value,
            },
            (Kind::Text, Value::Number(_) | Value::Bool(_)) => value.to_string().into(),
            _ => value,
        }
    }

    /// The path below the field of what does not fit, and that.
    fn misfit(self, value: &Value) -> Option<(String, Kind, &Value)> {
        let not_text = |value: &Value| !value.is_string() && !value.is_null();
        let fits = match (self, value) {
            (_, Value::Null) => true,
            (Kind::Texts | Kind::TextOrTexts, Value::Array(items)) => {
                let found = items.iter().enumerate().find(|(_, item)| not_text(item));
                return found.map(|(at, item)| (format!("[{at}]"), Kind::Text, item));
            }
            (Kind::TextMap, Value::Object(fields)) => {
                let found = fields.iter().find(|(_, field)| not_text(field));
                return found.map(|(key, field)| (format!(".{key}"), Kind::Text, field));
            }
            (Kind::Text | Kind::TextOrTexts, value) => value.is_string(),
            (Kind::Number, value) => value.is_number(),
            (Kind::Flag, value) => value.is_boolean(),
            (Kind::List, value) => value.is_array(),
            (Kind::Object, value) => value.is_object(),
            (Kind::Texts | Kind::TextMap, _) => false,
        };
        (!fits).then(|| (String::new(), self, value))
    }
}

const TOP: &[(Kind, &[&str])] = &[
    (
        Kind::Text,
        &[
            "Hostname",
            "Domainname",
            "User",
            "Image",
            "WorkingDir",
            "MacAddress",
            "StopSignal",
            "Platform",
            "ArgsEscaped",
            "Cpuset",
            "VolumeDriver",
        ],
    ),
    (Kind::Number, &["StopTimeout", "Memory", "MemorySwap", "CpuShares"]),
    (Kind::Flag, &["AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce", "NetworkDisabled"]),
    (Kind::Texts, &["Env", "OnBuild", "PortSpecs", "Shell"]),
    (Kind::TextOrTexts, &["Cmd", "Entrypoint"]),
    (Kind::Object, &["ExposedPorts", "Volumes", "HostConfig", "NetworkingConfig", "Healthcheck"]),
    (Kind::TextMap, &["Labels"]),
];

const HOST: &[(Kind, &[&str])] = &[
    (
        Kind::Text,
        &[
            "NetworkMode",
            "IpcMode",
            "PidMode",
            "UTSMode",
            "UsernsMode",
            "CgroupnsMode",
            "Cgroup",
            "CgroupParent",
            "ContainerIDFile",
            "CpusetCpus",
            "CpusetMems",
            "Isolation",
            "Runtime",
            "VolumeDriver",
        ],
    ),
    (
        Kind::Number,
        &[
            "Memory",
            "MemorySwap",
            "MemoryReservation",
            "MemorySwappiness",
            "KernelMemory",
            "KernelMemoryTCP",
            "NanoCpus",
            "CpuShares",
            "CpuPeriod",
            "CpuQuota",
            "CpuRealtimePeriod",
            "CpuRealtimeRuntime",
            "CpuCount",
            "CpuPercent",
            "IOMaximumIOps",
            "IOMaximumBandwidth",
            "BlkioWeight",
            "OomScoreAdj",
            "PidsLimit",
            "ShmSize",
        ],
    ),
    (Kind::Flag, &["AutoRemove", "Init", "OomKillDisable", "Privileged", "PublishAllPorts", "ReadonlyRootfs"]),
    (
        Kind::Texts,
        &[
            "Binds",
            "CapAdd",
            "CapDrop",
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "ExtraHosts",
            "GroupAdd",
            "Links",
            "MaskedPaths",
            "ReadonlyPaths",
            "SecurityOpt",
            "VolumesFrom",
            "DeviceCgroupRules",
        ],
    ),
    (
        Kind::List,
        &[
            "BlkioDeviceReadBps",
            "BlkioDeviceReadIOps",
            "BlkioDeviceWriteBps",
            "BlkioDeviceWriteIOps",
            "BlkioWeightDevice",
            "ConsoleSize",
            "DeviceRequests",
            "Devices",
            "Mounts",
            "Ulimits",
        ],
    ),
    (Kind::Object, &["LogConfig", "PortBindings", "RestartPolicy"]),
    (Kind::TextMap, &["Annotations", "StorageOpt", "Sysctls", "Tmpfs"]),
];

fn find(table: &[(Kind, &[&str])], name: &str) -> Option<Kind> {
    table.iter().find(|(_, names)| names.contains(&name)).map(|(kind, _)| *kind)
}

/// Returns the required kind of the field at this path, if known. The path may also name an item of a list (`Cmd[1]`)
/// or a field of a map (`Labels.role`).
pub(super) fn kind(path: &str) -> Option<Kind> {
    let (table, path) = match path.strip_prefix("HostConfig.") {
        Some(rest) => (HOST, rest),
        None => (TOP, path),
    };
    let end = path.find(['[', '.']).unwrap_or(path.len());
    let (name, below) = path.split_at(end);
    match (find(table, name)?, below.chars().next()) {
        (kind, None) => Some(kind),
        (Kind::Texts | Kind::TextOrTexts, Some('[')) | (Kind::TextMap, Some('.')) => Some(Kind::Text),
        _ => None,
    }
}

/// The first field that is not what it must be: its path, what it must be, what it is.
pub(super) fn misfit(body: &Value) -> Option<(String, Kind, String)> {
    let look = |table, prefix: &str, object: &Value| {
        let mut fields = object.as_object().into_iter().flatten();
        fields.find_map(|(name, value)| {
            let (below, kind, value) = find(table, name)?.misfit(value)?;
            Some((format!("{prefix}{name}{below}"), kind, value.to_string()))
        })
    };
    look(TOP, "", body).or_else(|| look(HOST, "HostConfig.", &body["HostConfig"]))
}

/// Paths of the fields that are not known.
pub(super) fn unknown(body: &Value) -> Vec<String> {
    // Words of 2014 that are understood.
    let old = ["AttachedStdin", "AttachedStdout", "AttachedStderr"];
    let names = |object: &Value| object.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let (top, host): (Vec<String>, Vec<String>) = (names(body), names(&body["HostConfig"]));
    let top = top.into_iter().filter(|name| find(TOP, name).is_none() && !old.contains(&name.as_str()));
    let host = host.into_iter().filter(|name| find(HOST, name).is_none());
    top.chain(host.map(|name| format!("HostConfig.{name}"))).collect()
}
