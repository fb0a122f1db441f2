//! Faults of the network: cables pulled, packets dropped in silence, lines made slow. `heal` undoes them all.

use anyhow::Context as _;

use crate::plan::{Plan, per_mille};
use crate::shell;

/// Faults of a host's network.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Slowness {
    /// Maximum rate, such as 1mbit
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// Share of lost packets, such as 5%
    #[arg(long, value_name = "SHARE")]
    pub loss: Option<String>,
    /// Delay of packets, such as 50ms; needs netem in the kernel
    #[arg(long, value_name = "TIME")]
    pub delay: Option<String>,
}

/// Pulls the cable of a host out of the switch; `silent` leaves it in and drops every packet.
pub(crate) fn partition(plan: &Plan, host: u16, silent: bool) -> anyhow::Result<()> {
    let port = plan.port(host);
    if silent {
        drop_at(plan, &format!("cut_{port}"), &port, "")
    } else {
        shell::run(&["ip", "-n", &plan.switch(), "link", "set", &port, "down"]).map(drop)
    }
}

/// Drops every packet between these hosts and the other hosts; this machine still reaches all.
pub(crate) fn split(plan: &Plan, side: &[u16], other: &[u16]) -> anyhow::Result<()> {
    let set = |hosts: &[u16]| {
        let ports: Vec<String> = hosts.iter().map(|host| format!("\"{}\"", plan.port(*host))).collect();
        format!("{{ {} }}", ports.join(", "))
    };
    let (side, other) = (set(side), set(other));
    let rules = format!(
        "add table bridge split\ndelete table bridge split\nadd table bridge split\n\
         add chain bridge split f {{ type filter hook forward priority 0; }}\n\
         add rule bridge split f iifname {side} oifname {other} drop\n\
         add rule bridge split f iifname {other} oifname {side} drop\n"
    );
    shell::feed(&["ip", "netns", "exec", &plan.switch(), "nft", "-f", "-"], &rules)
}

/// Undoes [`split`].
pub(crate) fn join(plan: &Plan) {
    // Most labs are whole.
    let _ = shell::run(&["ip", "netns", "exec", &plan.switch(), "nft", "delete", "table", "bridge", "split"]);
}

/// Makes a host's line slow in both directions.
pub(crate) fn slow(plan: &Plan, host: u16, slowness: &Slowness) -> anyhow::Result<()> {
    let (port, switch, namespace) = (plan.port(host), plan.switch(), plan.namespace(host));
    let ends = [(switch.as_str(), port.as_str()), (namespace.as_str(), "eth0")];
    if let Some(loss) = &slowness.loss {
        let loss = per_mille(loss).map_err(anyhow::Error::msg)?;
        drop_at(plan, &format!("loss_{port}"), &port, &format!("numgen random mod 1000 < {loss}"))?;
    }
    for (namespace, device) in ends {
        let tc = ["ip", "netns", "exec", namespace, "tc", "qdisc", "replace", "dev", device, "root"];
        if let Some(delay) = &slowness.delay {
            shell::run(&[&tc[..], &["netem", "delay", delay]].concat())
                .context("packets cannot be delayed: this kernel has no netem; use --rate or --loss")?;
        } else if let Some(rate) = &slowness.rate {
            shell::run(&[&tc[..], &["tbf", "rate", rate, "burst", "16kb", "latency", "400ms"]].concat())?;
        }
    }
    Ok(())
}

/// Makes a host's line whole again.
pub(crate) fn heal(plan: &Plan, host: u16) -> anyhow::Result<()> {
    let (port, switch) = (plan.port(host), plan.switch());
    for table in [format!("cut_{port}"), format!("loss_{port}")] {
        // Most hosts have none.
        let _ = shell::run(&["ip", "netns", "exec", &switch, "nft", "delete", "table", "bridge", &table]);
    }
    for (namespace, device) in [(switch.as_str(), port.as_str()), (&plan.namespace(host), "eth0")] {
        let _ = shell::run(&["ip", "netns", "exec", namespace, "tc", "qdisc", "del", "dev", device, "root"]);
    }
    shell::run(&["ip", "-n", &switch, "link", "set", &port, "up"]).map(drop)
}

/// Drops packets that match `condition`, to and from one port of the switch.
fn drop_at(plan: &Plan, table: &str, port: &str, condition: &str) -> anyhow::Result<()> {
    let rules = format!(
        "add table bridge {table}\ndelete table bridge {table}\nadd table bridge {table}\n\
         add chain bridge {table} f {{ type filter hook forward priority 0; }}\n\
         add chain bridge {table} i {{ type filter hook input priority 0; }}\n\
         add rule bridge {table} f iifname \"{port}\" {condition} drop\n\
         add rule bridge {table} f oifname \"{port}\" {condition} drop\n"
    );
    shell::feed(&["ip", "netns", "exec", &plan.switch(), "nft", "-f", "-"], &rules)
}
