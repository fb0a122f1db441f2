//! Checks of the overlay networks of this host (`herder doctor net`).

use std::collections::BTreeMap;
use std::path::Path;

use herder_decide::net::{Host, Op, States, Table, Tunnel, TunnelPeer, plan, table, tunnel};
use herder_dns::{DNS_PORT, Feed};
use herder_net::{Kernel, data_path_mtu, has_wireguard, interface_addresses};
use herder_parts::aside::Client;
use herder_tunnel::PEERS_FILE;
use serde::Serialize;

/// Share of the connection tracking table, in percent, above which a warning is due. When it is full, new connections
/// are dropped.
const CONNTRACK_PERCENT_MAX: u64 = 80;

/// Steps that are shown one by one.
const STEPS_SHOWN: usize = 10;

/// Outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// Finding of the check.
    pub detail: String,
    /// Remedy; empty if the check passed.
    pub remedy: &'static str,
}

impl Check {
    fn of(name: &'static str, outcome: Result<String, String>, remedy: &'static str) -> Check {
        match outcome {
            Ok(detail) => Check { name, ok: true, detail, remedy: "" },
            Err(detail) => Check { name, ok: false, detail, remedy },
        }
    }
}

/// Runs all checks on this host. `folder` is the state folder of its herder.
pub async fn check(folder: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    for (program, remedy) in [("nft", "install the package nftables"), ("iptables", "install the package iptables")] {
        let name = if program == "nft" { "program nft" } else { "program iptables" };
        let there = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|it| it.join(program).exists()));
        let outcome = if there { Ok("is there".to_owned()) } else { Err("is not in PATH".to_owned()) };
        checks.push(Check::of(name, outcome, remedy));
    }
    let kept = tokio::fs::read(folder.join(herder_dns::KEPT)).await.map_err(|error| error.to_string());
    let feed = kept.and_then(|bytes| serde_json::from_slice::<Feed>(&bytes).map_err(|error| error.to_string()));
    let feed = match feed {
        Ok(feed) => feed,
        Err(error) => {
            let remedy =
                "nothing, if no task of this node is on an overlay network; else look at the log of `herder up`";
            checks.push(Check::of(
                "networks",
                Err(format!("no state is known in {}: {error}", folder.display())),
                remedy,
            ));
            return checks;
        }
    };
    let names: Vec<&str> = feed.put.values().map(|state| state.facts.name.as_str()).collect();
    checks.push(Check::of("networks", Ok(format!("{}: {}", names.len(), names.join(", "))), ""));
    let socket = folder.join("net-dns.sock");
    let answers = Client::connect(&socket).await.map(|_| format!("answers on port {DNS_PORT}"));
    let remedy = "herder starts it within a second; look at the log of `herder up`";
    checks.push(Check::of("DNS server", answers.map_err(|error| error.to_string()), remedy));
    let folder = folder.to_owned();
    let local = tokio::task::spawn_blocking(move || local(&feed.put, &feed.node, &folder)).await;
    checks.extend(local.unwrap_or_default());
    checks
}

fn local(states: &States, node: &str, folder: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut host = Host { node: node.to_owned(), underlay_mtu: 1500, dns_port: DNS_PORT, ..Host::default() };
    if let Some(own) = states.values().find_map(|state| state.nodes.get(node)) {
        let there = interface_addresses().map_err(|error| error.to_string());
        let there = there.and_then(|all| match all.contains(&own.vtep) {
            true => Ok(format!("{} is an address of this host", own.vtep)),
            false => Err(format!("{} is no address of this host", own.vtep)),
        });
        checks.push(Check::of(
            "data path",
            there,
            "join the swarm again with --data-path-addr, or give the address back to its interface",
        ));
        if let Ok(Some(mtu)) = data_path_mtu(own.vtep) {
            host.underlay_mtu = mtu;
            checks.push(Check::of("MTU", Ok(format!("{mtu} on the data path")), ""));
        }
    }
    let wanted = table(states, &host);
    let remedy =
        "herder mends this within two seconds; if it comes again, something else removes it: look for firewall scripts";
    checks.push(Check::of("kernel tables", kernel(&wanted), remedy));
    if let Some(tunnel) = tunnel(states, &host) {
        let remedy = "start `herder up`; open the UDP port between nodes; look at the log for why there is no tunnel";
        checks.push(Check::of("tunnels", tunnels(folder, &tunnel), remedy));
    }
    let remedy = "raise net.netfilter.nf_conntrack_max";
    checks.extend(conntrack().map(|outcome| Check::of("connection tracking", outcome, remedy)));
    checks
}

fn kernel(wanted: &Table) -> Result<String, String> {
    let seen = Kernel.seen(wanted).map_err(|error| error.to_string())?;
    let steps = plan(wanted, &seen);
    if steps.is_empty() {
        return Ok(format!("{} entries are as wanted", wanted.items.len()));
    }
    let mut lines: Vec<String> = steps.iter().take(STEPS_SHOWN).map(say).collect();
    if steps.len() > STEPS_SHOWN {
        lines.push(format!("and {} more", steps.len() - STEPS_SHOWN));
    }
    Err(lines.join("; "))
}

/// Tells nodes that no tunnel was ever built to. A kernel with WireGuard is asked by `wg show`.
fn tunnels(folder: &Path, wanted: &Tunnel) -> Result<String, String> {
    let text = match std::fs::read(folder.join(PEERS_FILE)) {
        Ok(text) => text,
        Err(_) if has_wireguard() => return Ok("are the kernel's; `wg show hw0` tells their state".to_owned()),
        Err(error) => return Err(format!("the process has told nothing yet: {error}")),
    };
    let told: BTreeMap<String, bool> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let is_built = |peer: &&TunnelPeer| told.get(&peer.endpoint.to_string()) == Some(&true);
    let (built, missing): (Vec<&TunnelPeer>, Vec<&TunnelPeer>) = wanted.peers.values().partition(is_built);
    let missing: Vec<String> = missing.iter().map(|it| it.endpoint.to_string()).collect();
    match &missing[..] {
        [] => Ok(format!("{} are built", built.len())),
        missing => Err(format!("no answer came from {} (UDP)", missing.join(", "))),
    }
}

fn say(op: &Op) -> String {
    match op {
        Op::Put(item, _) => format!("missing or different: {item}"),
        Op::Remove(item) => format!("not wanted: {item}"),
        Op::Load(family, _) => format!("table {} herder is missing or was changed", family.name()),
        Op::Batch(family, ops) => format!("{} elements of table {} herder differ", ops.len(), family.name()),
        Op::Drop(family) => format!("table {} herder is not wanted", family.name()),
    }
}

fn conntrack() -> Option<Result<String, String>> {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?.trim().parse::<u64>().ok()
    };
    let (count, max) = (read("nf_conntrack_count")?, read("nf_conntrack_max")?);
    let text = format!("{count} of {max} entries are in use");
    Some(if count * 100 > max * CONNTRACK_PERCENT_MAX { Err(text) } else { Ok(text) })
}
