//! A service → what is written for it, in the form of each store. Pure.

use serde_json::{Map, Value, json};

use crate::service::{Service, address};

/// Consul's interval of checks, where the container names none.
const CHECK_INTERVAL: &str = "10s";

/// Time to live of a check that is fed by the container's health.
pub const HEALTH_TTL: &str = "60s";

/// The key of a service below a prefix, and its value.
pub fn key_value(prefix: &str, service: &Service) -> (String, String) {
    (format!("{prefix}/{}/{}", service.name, service.id), address(service))
}

/// SkyDNS's folder of a domain: `local.example` is `/skydns/example/local`.
pub fn skydns_prefix(domain: &str) -> String {
    let labels: Vec<&str> = domain.split('.').filter(|label| !label.is_empty()).rev().collect();
    format!("/skydns/{}", labels.join("/"))
}

/// SkyDNS's record of a service.
pub fn skydns_value(service: &Service) -> String {
    format!(r#"{{"host":{},"port":{}}}"#, json!(service.ip), service.port)
}

/// ZooKeeper's node of a service.
pub fn zookeeper_value(service: &Service) -> String {
    json!({
        "Name": service.name,
        "IP": service.ip,
        "PublicPort": service.port,
        "PrivatePort": service.exposed_port.parse::<u16>().unwrap_or(0),
        "ContainerID": service.container.chars().take(12).collect::<String>(),
        "Tags": service.tags,
        "Attrs": service.attrs,
    })
    .to_string()
}

/// Returns the registration of a service at Consul's agent.
pub fn consul(service: &Service) -> Value {
    let mut record = json!({
        "ID": service.id,
        "Name": service.name,
        "Port": service.port,
        "Address": service.ip,
        "Tags": service.tags,
        "Meta": service.attrs,
    });
    if let Some(check) = check(service) {
        record["Check"] = check;
    }
    record
}

/// Returns the registration of a service in Consul's catalogue, for one Consul of many hosts.
pub fn consul_catalogue(service: &Service, node: &str, node_address: &str) -> Value {
    json!({
        "Node": node,
        "Address": node_address,
        "NodeMeta": { "external-node": "true", "external-probe": "false" },
        "SkipNodeUpdate": false,
        "Service": {
            "ID": service.id,
            "Service": service.name,
            "Port": service.port,
            "Address": service.ip,
            "Tags": service.tags,
            "Meta": service.attrs,
        },
    })
}

/// Returns whether herder reports the service's health to Consul.
pub fn is_fed_by_health(service: &Service) -> bool {
    service.health && !service.attrs.keys().any(|key| is_check(key))
}

fn is_check(key: &str) -> bool {
    ["check_http", "check_https", "check_cmd", "check_script", "check_ttl", "check_tcp", "check_grpc"].contains(&key)
}

/// Consul's check of a service, after the first attribute that asks for one.
fn check(service: &Service) -> Option<Value> {
    let attr = |key: &str| service.attrs.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let mut check = Map::new();
    let mut set = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            check.insert(key.to_owned(), value.into());
        }
    };
    let at = address(service);
    set("Status", attr("check_initial_status"));
    let mut has_interval = true;
    if let Some(path) = attr("check_http") {
        set("HTTP", Some(&format!("http://{at}{path}")));
        set("Timeout", attr("check_timeout"));
        set("Method", attr("check_http_method"));
    } else if let Some(path) = attr("check_https") {
        set("HTTP", Some(&format!("https://{at}{path}")));
        set("Timeout", attr("check_timeout"));
        set("Method", attr("check_https_method"));
    } else if let Some(command) = attr("check_cmd") {
        let short: String = service.container.chars().take(12).collect();
        check.insert("Args".to_owned(), json!(["check-cmd", short, service.exposed_port, command]));
    } else if let Some(script) = attr("check_script") {
        let script = script.replace("$SERVICE_IP", &service.ip).replace("$SERVICE_PORT", &service.port.to_string());
        check.insert("Args".to_owned(), json!([script]));
    } else if let Some(ttl) = attr("check_ttl") {
        set("TTL", Some(ttl));
        has_interval = false;
    } else if attr("check_tcp").is_some() {
        set("TCP", Some(&at));
        set("Timeout", attr("check_timeout"));
    } else if attr("check_grpc").is_some() {
        set("GRPC", Some(&at));
        set("Timeout", attr("check_timeout"));
        if attr("check_grpc_use_tls").is_some() {
            check.insert("GRPCUseTLS".to_owned(), true.into());
            if attr("check_tls_skip_verify").is_some() {
                check.insert("TLSSkipVerify".to_owned(), true.into());
            }
        }
    } else if is_fed_by_health(service) {
        set("TTL", Some(HEALTH_TTL));
        has_interval = false;
    } else {
        return None;
    }
    if has_interval {
        check.insert("Interval".to_owned(), attr("check_interval").unwrap_or(CHECK_INTERVAL).into());
    }
    if let Some(after) = attr("check_deregister_after") {
        check.insert("DeregisterCriticalServiceAfter".to_owned(), after.into());
    }
    Some(check.into())
}
