//! The keys of a Compose file and the types of their values, as tables.
//!
//! Source: the Compose Specification of 2026-06. Keys that begin with `x-` are allowed in every mapping.

use crate::forms;
use crate::shape::{Object, Type};

use Type::{
    Any, Bool, Bytes, Choice, Command, Dict, Duration, Elements, Int, KeyedList, List, Map, Mode, Number, Optional,
    Path, Scalar, Short, Text, Texts,
};

/// A whole file.
pub(crate) static FILE: Object = Object {
    name: "a Compose file",
    keys: &[
        ("version", Scalar),
        ("name", Text),
        ("include", List(&Short(forms::include, &Type::Object(&INCLUDE)))),
        ("services", Map(&Type::Object(&SERVICE))),
        ("networks", Map(&Optional(&Type::Object(&NETWORK)))),
        ("volumes", Map(&Optional(&Type::Object(&VOLUME)))),
        ("secrets", Map(&Optional(&Type::Object(&FILE_OBJECT)))),
        ("configs", Map(&Optional(&Type::Object(&FILE_OBJECT)))),
        ("models", Map(&Any)),
    ],
};

static INCLUDE: Object =
    Object { name: "include", keys: &[("path", Texts), ("project_directory", Text), ("env_file", Texts)] };

pub(crate) static SERVICE: Object = Object {
    name: "a service",
    keys: &[
        ("annotations", Dict { nullable: false }),
        ("attach", Bool),
        ("blkio_config", Type::Object(&BLKIO)),
        ("build", Short(forms::build, &Type::Object(&BUILD))),
        ("cap_add", Texts),
        ("cap_drop", Texts),
        ("cgroup", Choice(&["host", "private"])),
        ("cgroup_parent", Text),
        ("command", Command),
        ("configs", Elements(forms::file_reference, &Type::Object(&FILE_REFERENCE))),
        ("container_name", Text),
        ("cpu_count", Int),
        ("cpu_percent", Number),
        ("cpu_period", Int),
        ("cpu_quota", Int),
        ("cpu_rt_period", Int),
        ("cpu_rt_runtime", Int),
        ("cpu_shares", Int),
        ("cpus", Number),
        ("cpuset", Scalar),
        ("credential_spec", Type::Object(&CREDENTIAL_SPEC)),
        ("depends_on", KeyedList(forms::depends_on, &Type::Object(&DEPENDENCY))),
        ("deploy", Optional(&Type::Object(&DEPLOY))),
        ("develop", Any),
        ("device_cgroup_rules", List(&Text)),
        ("devices", Elements(forms::device, &Type::Object(&DEVICE))),
        ("dns", Texts),
        ("dns_opt", Texts),
        ("dns_search", Texts),
        ("domainname", Text),
        ("driver_opts", Dict { nullable: false }),
        ("entrypoint", Command),
        ("env_file", Short(forms::env_files, &List(&Short(forms::env_file, &Type::Object(&ENV_FILE))))),
        ("environment", Dict { nullable: true }),
        ("expose", List(&Scalar)),
        ("extends", Short(forms::extends, &Type::Object(&EXTENDS))),
        ("external_links", List(&Text)),
        ("extra_hosts", Type::Hosts),
        ("gpus", Short(forms::gpus, &List(&Type::Object(&DEVICE_REQUEST)))),
        ("group_add", List(&Scalar)),
        ("healthcheck", Optional(&Type::Object(&HEALTHCHECK))),
        ("hostname", Text),
        ("image", Text),
        ("init", Bool),
        ("ipc", Text),
        ("isolation", Text),
        ("label_file", Short(forms::texts, &List(&Path))),
        ("labels", Dict { nullable: false }),
        ("links", List(&Text)),
        ("logging", Optional(&Type::Object(&LOGGING))),
        ("mac_address", Text),
        ("mem_limit", Bytes),
        ("mem_reservation", Bytes),
        ("mem_swappiness", Int),
        ("memswap_limit", Bytes),
        ("models", KeyedList(forms::nothing, &Optional(&Type::Object(&MODEL_REFERENCE)))),
        ("network_mode", Text),
        ("networks", KeyedList(forms::nothing, &Optional(&Type::Object(&ATTACHMENT)))),
        ("oom_kill_disable", Bool),
        ("oom_score_adj", Int),
        ("pid", Text),
        ("pids_limit", Int),
        ("platform", Text),
        ("ports", Elements(forms::ports, &Type::Object(&PORT))),
        ("post_start", List(&Type::Object(&HOOK))),
        ("pre_start", List(&Type::Object(&PRE_START))),
        ("pre_stop", List(&Type::Object(&HOOK))),
        ("privileged", Bool),
        ("profiles", List(&Text)),
        ("provider", Type::Object(&PROVIDER)),
        ("pull_policy", Text),
        ("pull_refresh_after", Duration),
        ("read_only", Bool),
        ("restart", Text),
        ("runtime", Text),
        ("scale", Int),
        ("secrets", Elements(forms::file_reference, &Type::Object(&FILE_REFERENCE))),
        ("security_opt", List(&Text)),
        ("shm_size", Bytes),
        ("stdin_open", Bool),
        ("stop_grace_period", Duration),
        ("stop_signal", Text),
        ("storage_opt", Dict { nullable: false }),
        ("sysctls", Dict { nullable: false }),
        ("tmpfs", Texts),
        ("tty", Bool),
        ("ulimits", Map(&Short(forms::ulimit, &Type::Object(&ULIMIT)))),
        ("use_api_socket", Bool),
        ("user", Scalar),
        ("userns_mode", Text),
        ("uts", Text),
        ("volumes", Elements(forms::volume, &Type::Object(&MOUNT))),
        ("volumes_from", List(&Text)),
        ("working_dir", Text),
    ],
};

static BLKIO: Object = Object {
    name: "blkio_config",
    keys: &[
        ("device_read_bps", List(&Type::Object(&BLKIO_BYTES))),
        ("device_read_iops", List(&Type::Object(&BLKIO_COUNT))),
        ("device_write_bps", List(&Type::Object(&BLKIO_BYTES))),
        ("device_write_iops", List(&Type::Object(&BLKIO_COUNT))),
        ("weight", Int),
        ("weight_device", List(&Type::Object(&BLKIO_WEIGHT))),
    ],
};

static BLKIO_BYTES: Object = Object { name: "a device's rate", keys: &[("path", Text), ("rate", Bytes)] };
static BLKIO_COUNT: Object = Object { name: "a device's rate", keys: &[("path", Text), ("rate", Int)] };
static BLKIO_WEIGHT: Object = Object { name: "a device's weight", keys: &[("path", Text), ("weight", Int)] };

static BUILD: Object = Object {
    name: "build",
    keys: &[
        ("additional_contexts", Type::Contexts),
        ("args", Dict { nullable: true }),
        ("cache_from", List(&Text)),
        ("cache_to", List(&Text)),
        ("context", Type::Context),
        ("dockerfile", Text),
        ("dockerfile_inline", Text),
        ("entitlements", List(&Text)),
        ("extra_hosts", Type::Hosts),
        ("isolation", Text),
        ("labels", Dict { nullable: false }),
        ("network", Text),
        ("no_cache", Bool),
        ("no_cache_filter", Texts),
        ("platforms", List(&Text)),
        ("privileged", Bool),
        ("provenance", Scalar),
        ("pull", Bool),
        ("sbom", Scalar),
        ("secrets", Elements(forms::file_reference, &Type::Object(&FILE_REFERENCE))),
        ("shm_size", Bytes),
        ("ssh", Dict { nullable: true }),
        ("tags", List(&Text)),
        ("target", Text),
        ("ulimits", Map(&Short(forms::ulimit, &Type::Object(&ULIMIT)))),
    ],
};

static FILE_REFERENCE: Object = Object {
    name: "a reference to a config or secret",
    keys: &[("source", Text), ("target", Text), ("uid", Scalar), ("gid", Scalar), ("mode", Mode)],
};

static CREDENTIAL_SPEC: Object =
    Object { name: "credential_spec", keys: &[("config", Text), ("file", Text), ("registry", Text)] };

static DEPENDENCY: Object = Object {
    name: "a dependency",
    keys: &[
        ("condition", Choice(&["service_started", "service_healthy", "service_completed_successfully"])),
        ("required", Bool),
        ("restart", Bool),
    ],
};

static DEPLOY: Object = Object {
    name: "deploy",
    keys: &[
        ("endpoint_mode", Choice(&["vip", "dnsrr"])),
        ("labels", Dict { nullable: false }),
        ("mode", Choice(&["replicated", "global", "replicated-job", "global-job"])),
        ("placement", Type::Object(&PLACEMENT)),
        ("replicas", Int),
        ("resources", Type::Object(&RESOURCES)),
        ("restart_policy", Type::Object(&RESTART_POLICY)),
        ("rollback_config", Type::Object(&UPDATE_CONFIG)),
        ("update_config", Type::Object(&UPDATE_CONFIG)),
    ],
};

static PLACEMENT: Object = Object {
    name: "placement",
    keys: &[
        ("constraints", List(&Text)),
        ("max_replicas_per_node", Int),
        ("preferences", List(&Type::Object(&PREFERENCE))),
    ],
};

static PREFERENCE: Object = Object { name: "a placement preference", keys: &[("spread", Text)] };

static RESOURCES: Object = Object {
    name: "resources",
    keys: &[("limits", Type::Object(&LIMITS)), ("reservations", Type::Object(&RESERVATIONS))],
};

static LIMITS: Object = Object { name: "limits", keys: &[("cpus", Number), ("memory", Bytes), ("pids", Int)] };

static RESERVATIONS: Object = Object {
    name: "reservations",
    keys: &[
        ("cpus", Number),
        ("devices", List(&Type::Object(&DEVICE_REQUEST))),
        ("generic_resources", List(&Type::Object(&GENERIC_RESOURCE))),
        ("memory", Bytes),
    ],
};

static DEVICE_REQUEST: Object = Object {
    name: "a device reservation",
    keys: &[
        ("capabilities", List(&Text)),
        ("count", Type::Count),
        ("device_ids", List(&Text)),
        ("driver", Text),
        ("options", Dict { nullable: false }),
    ],
};

static GENERIC_RESOURCE: Object =
    Object { name: "a generic resource", keys: &[("discrete_resource_spec", Type::Object(&DISCRETE_RESOURCE))] };

static DISCRETE_RESOURCE: Object = Object { name: "discrete_resource_spec", keys: &[("kind", Text), ("value", Int)] };

static RESTART_POLICY: Object = Object {
    name: "restart_policy",
    keys: &[
        ("condition", Choice(&["none", "on-failure", "any"])),
        ("delay", Duration),
        ("max_attempts", Int),
        ("window", Duration),
    ],
};

static UPDATE_CONFIG: Object = Object {
    name: "update_config",
    keys: &[
        ("delay", Duration),
        ("failure_action", Choice(&["continue", "pause", "rollback"])),
        ("max_failure_ratio", Number),
        ("monitor", Duration),
        ("order", Choice(&["start-first", "stop-first"])),
        ("parallelism", Int),
    ],
};

static DEVICE: Object = Object { name: "a device", keys: &[("source", Text), ("target", Text), ("permissions", Text)] };

static ENV_FILE: Object =
    Object { name: "an environment file", keys: &[("path", Path), ("required", Bool), ("format", Choice(&["raw"]))] };

static EXTENDS: Object = Object { name: "extends", keys: &[("file", Text), ("service", Text)] };

static HEALTHCHECK: Object = Object {
    name: "healthcheck",
    keys: &[
        ("disable", Bool),
        ("interval", Duration),
        ("retries", Int),
        ("start_interval", Duration),
        ("start_period", Duration),
        ("test", Short(forms::health_test, &List(&Text))),
        ("timeout", Duration),
    ],
};

static LOGGING: Object = Object { name: "logging", keys: &[("driver", Text), ("options", Dict { nullable: true })] };

static MODEL_REFERENCE: Object =
    Object { name: "a reference to a model", keys: &[("endpoint_var", Text), ("model_var", Text)] };

static ATTACHMENT: Object = Object {
    name: "a service's network",
    keys: &[
        ("aliases", List(&Text)),
        ("driver_opts", Dict { nullable: false }),
        ("gw_priority", Int),
        ("interface_name", Text),
        ("ipv4_address", Text),
        ("ipv6_address", Text),
        ("link_local_ips", List(&Text)),
        ("mac_address", Text),
        ("priority", Int),
    ],
};

static PORT: Object = Object {
    name: "a port",
    keys: &[
        ("app_protocol", Text),
        ("host_ip", Text),
        ("mode", Choice(&["host", "ingress"])),
        ("name", Text),
        ("protocol", Choice(&["tcp", "udp", "sctp"])),
        ("published", Scalar),
        ("target", Int),
    ],
};

static HOOK: Object = Object {
    name: "a hook",
    keys: &[
        ("command", Command),
        ("environment", Dict { nullable: true }),
        ("privileged", Bool),
        ("user", Scalar),
        ("working_dir", Text),
    ],
};

static PRE_START: Object = Object {
    name: "a pre_start step",
    keys: &[
        ("command", Command),
        ("environment", Dict { nullable: true }),
        ("image", Text),
        ("per_replica", Bool),
        ("privileged", Bool),
        ("user", Scalar),
        ("volumes", Elements(forms::volume, &Type::Object(&MOUNT))),
        ("working_dir", Text),
    ],
};

static PROVIDER: Object = Object { name: "provider", keys: &[("options", Any), ("type", Text)] };

static ULIMIT: Object = Object { name: "a ulimit", keys: &[("soft", Int), ("hard", Int)] };

static MOUNT: Object = Object {
    name: "a mount",
    keys: &[
        ("bind", Type::Object(&BIND)),
        ("consistency", Text),
        ("image", Type::Object(&IMAGE_MOUNT)),
        ("read_only", Bool),
        ("source", Text),
        ("target", Text),
        ("tmpfs", Type::Object(&TMPFS)),
        ("type", Choice(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"])),
        ("volume", Type::Object(&VOLUME_MOUNT)),
    ],
};

static BIND: Object = Object {
    name: "bind",
    keys: &[
        ("create_host_path", Bool),
        ("propagation", Text),
        ("recursive", Choice(&["enabled", "disabled", "writable", "readonly"])),
        ("selinux", Choice(&["z", "Z"])),
    ],
};

static IMAGE_MOUNT: Object = Object { name: "image", keys: &[("subpath", Text)] };

static TMPFS: Object = Object { name: "tmpfs", keys: &[("mode", Mode), ("size", Bytes)] };

static VOLUME_MOUNT: Object =
    Object { name: "volume", keys: &[("labels", Dict { nullable: false }), ("nocopy", Bool), ("subpath", Text)] };

static NETWORK: Object = Object {
    name: "a network",
    keys: &[
        ("attachable", Bool),
        ("driver", Text),
        ("driver_opts", Dict { nullable: false }),
        ("enable_ipv4", Bool),
        ("enable_ipv6", Bool),
        ("external", Type::External),
        ("internal", Bool),
        ("ipam", Optional(&Type::Object(&IPAM))),
        ("labels", Dict { nullable: false }),
        ("name", Text),
    ],
};

static IPAM: Object = Object {
    name: "ipam",
    keys: &[("config", List(&Type::Object(&IPAM_CONFIG))), ("driver", Text), ("options", Dict { nullable: false })],
};

static IPAM_CONFIG: Object = Object {
    name: "an ipam configuration",
    keys: &[("aux_addresses", Dict { nullable: false }), ("gateway", Text), ("ip_range", Text), ("subnet", Text)],
};

static VOLUME: Object = Object {
    name: "a volume",
    keys: &[
        ("driver", Text),
        ("driver_opts", Dict { nullable: false }),
        ("external", Type::External),
        ("labels", Dict { nullable: false }),
        ("name", Text),
    ],
};

static FILE_OBJECT: Object = Object {
    name: "a config or secret",
    keys: &[
        ("content", Text),
        ("driver", Text),
        ("driver_opts", Dict { nullable: false }),
        ("environment", Text),
        ("external", Type::External),
        ("file", Path),
        ("labels", Dict { nullable: false }),
        ("name", Text),
        ("template_driver", Text),
    ],
};

#[cfg(test)]
mod coverage;
