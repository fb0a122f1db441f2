//! Networks of the swarm for plain containers: the request to the managers, and the body for the engine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use herder_model::Node;
use herder_model::swarm::{AttachedNetwork, Attachment};
use serde_json::{Value, json};

use crate::names;
use crate::swarm::networks::mac;

/// A place in a network of the swarm, and the engine's side of that network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub network_id: String,
    /// Name of the bridge network on the engine.
    pub engine_name: String,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// Address of the network's DNS server.
    pub dns: Vec<IpAddr>,
}

/// Returns the places that a new container needs. None, if all of its networks are the engines' own.
/// With `moves`, the container had its addresses on another node, and others will do.
pub fn wanted(nodes: &[Arc<Node>], body: &Value, name: &str, moves: bool) -> Option<Attachment> {
    let mode = body["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
    let endpoints = &body["NetworkingConfig"]["EndpointsConfig"];
    let mut targets: Vec<&str> = vec![mode];
    targets.extend(endpoints.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).filter(|it| *it != mode));
    let networks = targets.into_iter().filter(|it| may_be_swarms(nodes, it));
    let networks: Vec<AttachedNetwork> = networks.map(|it| asked(it, &endpoints[it], moves)).collect();
    (!networks.is_empty()).then(|| Attachment {
        container_name: name.trim_start_matches('/').to_owned(),
        hostname: body["Hostname"].as_str().unwrap_or_default().to_owned(),
        networks,
        dns: servers(body).collect(),
        ..Attachment::default()
    })
}

/// True if this may be a network of the swarm. Networks of each engine and networks that the pool knows
/// are not.
pub fn may_be_swarms(nodes: &[Arc<Node>], text: &str) -> bool {
    let is_own = matches!(text, "" | "default" | "bridge" | "host" | "none" | "nat") || text.starts_with("container:");
    !is_own && names::network(nodes, text).is_err()
}

/// Reads the endpoint configuration of a client.
pub fn asked(target: &str, endpoint: &Value, any: bool) -> AttachedNetwork {
    let v4 = endpoint["IPAMConfig"]["IPv4Address"].as_str().and_then(|it| it.parse().ok());
    let aliases = endpoint["Aliases"].as_array().into_iter().flatten();
    AttachedNetwork {
        target: target.to_owned(),
        any: any && v4.is_some(),
        v4,
        aliases: aliases.filter_map(|it| it.as_str().map(str::to_owned)).collect(),
        ..AttachedNetwork::default()
    }
}

/// Returns the wish of a container that exists and is on no network of the swarm yet; from its inspect.
pub fn late(container_id: &str, shown: &Value) -> Attachment {
    let text = |value: &Value| value.as_str().unwrap_or_default().trim_start_matches('/').to_owned();
    Attachment {
        container_id: container_id.to_owned(),
        container_name: text(&shown["Name"]),
        hostname: text(&shown["Config"]["Hostname"]),
        running: shown["State"]["Running"] == json!(true),
        dns: servers(shown).collect(),
        others: other_addresses(shown, &[]),
        late: true,
        ..Attachment::default()
    }
}

/// Returns the container's IPv4 addresses from `inspect`, except those in `overlays`.
pub fn other_addresses(shown: &Value, overlays: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    let networks = shown["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    let addresses = networks.filter_map(|(_, it)| it["IPAddress"].as_str()?.parse::<Ipv4Addr>().ok());
    addresses.filter(|it| !overlays.contains(it)).collect()
}

fn servers(body: &Value) -> impl Iterator<Item = IpAddr> {
    let servers = body["HostConfig"]["Dns"].as_array().into_iter().flatten();
    servers.filter_map(|it| it.as_str()?.parse().ok())
}

/// Adapts a create body for the engine. Networks of the swarm become its bridge networks, with the addresses from the
/// managers.
pub fn fit(body: &mut Value, places: &BTreeMap<String, Place>) {
    if places.is_empty() {
        return;
    }
    let mode = body["HostConfig"]["NetworkMode"].as_str().unwrap_or_default().to_owned();
    let mut endpoints = body["NetworkingConfig"]["EndpointsConfig"].as_object().cloned().unwrap_or_default();
    for (target, place) in places {
        let had = endpoints.remove(target).unwrap_or_default();
        endpoints.insert(place.engine_name.clone(), endpoint(had, place));
        if mode == *target {
            body["HostConfig"]["NetworkMode"] = place.engine_name.as_str().into();
        }
    }
    body["NetworkingConfig"] = json!({"EndpointsConfig": endpoints});
    let dns: Vec<String> = places.values().flat_map(|it| &it.dns).map(ToString::to_string).collect();
    if !dns.is_empty() {
        // The server there asks those of the client for names that are not its own.
        body["HostConfig"]["Dns"] = dns.into();
    }
}

/// An endpoint configuration with the addresses that the managers gave.
pub fn endpoint(had: Value, place: &Place) -> Value {
    let mut endpoint = if had.is_object() { had } else { json!({}) };
    if let Some(members) = endpoint.as_object_mut() {
        // The swarm's, or that of another node.
        members.remove("NetworkID");
    }
    let mut config = json!({});
    if let Some(v4) = place.v4 {
        config["IPv4Address"] = v4.to_string().into();
        endpoint["MacAddress"] = mac(v4).into();
    }
    if let Some(v6) = place.v6 {
        config["IPv6Address"] = v6.to_string().into();
    }
    endpoint["IPAMConfig"] = config;
    endpoint
}

#[cfg(test)]
mod tests {
    use herder_model::Network;

    use super::*;

    fn nodes() -> Vec<Arc<Node>> {
        let plain = Network { name: "plain".into(), scope: "local".into(), ..Network::default() };
        vec![Arc::new(Node { networks: vec![Arc::new(plain)], ..Node::default() })]
    }

    #[test]
    fn networks_that_no_engine_knows_are_asked_for() {
        let check = |mode: &str, endpoints: Value, expected: &str| {
            let body = json!({"HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": endpoints}});
            let found = wanted(&nodes(), &body, "/web", false).map_or(String::new(), |it| {
                let networks = it.networks.iter().map(|it| {
                    let v4 = it.v4.map(|it| format!("={it}")).unwrap_or_default();
                    format!(" {}{v4}:{}", it.target, it.aliases.join(","))
                });
                it.container_name.clone() + &networks.collect::<String>()
            });
            assert_eq!(found, expected, "{mode} {endpoints}");
        };
        check("default", json!({}), "");
        check("bridge", json!(null), "");
        check("plain", json!({"plain": {}}), "");
        check("container:ov", json!({}), "");
        check("ov", json!(null), "web ov:");
        check(
            "ov",
            json!({"ov": {"Aliases": ["a", "b"], "IPAMConfig": {"IPv4Address": "10.0.1.9"}}}),
            "web ov=10.0.1.9:a,b",
        );
        check("plain", json!({"plain": {}, "ov": null}), "web ov:");
        check("ov", json!({"my": {}}), "web ov: my:");
    }

    #[test]
    fn the_engine_is_told_its_own_network_and_the_address() {
        let place = Place {
            network_id: "id1".into(),
            engine_name: "ov.id1".into(),
            v4: Some([10, 0, 1, 9].into()),
            dns: vec![IpAddr::from([10, 0, 1, 1])],
            ..Place::default()
        };
        let mut body = json!({"HostConfig": {"NetworkMode": "ov", "Dns": ["9.9.9.9"]},
            "NetworkingConfig": {"EndpointsConfig": {"ov": {"Aliases": ["a"], "NetworkID": "id1"}}}});
        fit(&mut body, &BTreeMap::from([("ov".into(), place)]));
        assert_eq!(
            body,
            json!({"HostConfig": {"NetworkMode": "ov.id1", "Dns": ["10.0.1.1"]}, "NetworkingConfig": {"EndpointsConfig": {"ov.id1":
                {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.0.1.9"}, "MacAddress": "02:42:0a:00:01:09"}}}})
        );
        let mut plain = json!({"HostConfig": {"NetworkMode": "plain"}});
        fit(&mut plain, &BTreeMap::new());
        assert_eq!(plain, json!({"HostConfig": {"NetworkMode": "plain"}}));
    }
}
