//! Three hosts as network namespaces, with real packets: what `decide::net` wants works once [`herder_net::Kernel`] has put it there.
//! Needs root; hosts are brought to their tables by this program itself, started inside each namespace.

mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use world::World;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if let [_, verb, rest @ ..] = words.as_slice()
        && world::child(verb, rest)
    {
        return ExitCode::SUCCESS;
    }
    let tests = [Trial::test("hosts_with_tables_of_their_networks_balance_and_mesh", balance_and_mesh)];
    libtest_mimic::run(&Arguments::from_args(), tests.into()).exit_code()
}

const ALL: &str = "c1 c2 c3";

fn balance_and_mesh() -> Result<(), Failed> {
    let world = World::up();
    for host in 1..=3 {
        world.apply(host);
        same(&world.missing(host), "")?;
    }
    let (vip, idle) = ("10.99.200.1:80", "10.99.200.2:80");
    let cases = [
        // (from, to, protocol, who answers, whom they see)
        ("c1", "10.99.2.1:80", "tcp", "c2", "10.99.1.1"),
        ("c1", vip, "tcp", ALL, "10.99.0.1 10.99.1.1"),
        ("c1", vip, "udp", ALL, "10.99.0.1 10.99.1.1"),
        ("cl", "10.231.77.11:8080", "tcp", ALL, "10.231.77.1"),
        ("cl", "10.231.77.12:8080", "tcp", ALL, "10.231.77.1"),
        ("cl", "10.231.77.13:8080", "udp", ALL, "10.98.3.254"),
        ("h2", "127.0.0.1:8080", "tcp", ALL, "10.98.2.254"),
        ("h2", "10.231.77.13:8080", "tcp", ALL, "10.98.3.254"),
        ("c1", "10.231.77.12:8080", "tcp", ALL, "10.98.2.254"),
        ("c1", "10.231.77.11:8080", "tcp", ALL, "10.98.1.254"),
        ("c3", "10.231.77.13:8080", "tcp", ALL, "10.98.0.1 10.98.3.254"),
        ("c3", "10.231.77.11:8080", "tcp", ALL, "10.98.1.254"),
        ("c1", idle, "tcp", "refused", ""),
        ("cl", "10.231.77.11:8081", "tcp", "refused", ""),
        // Published on some addresses only (moby#32299).
        ("h1", "127.0.0.1:8083", "tcp", ALL, "10.98.1.254"),
        ("cl", "10.231.77.12:8083", "tcp", ALL, "10.231.77.1"),
        ("cl", "10.231.77.11:8083", "tcp", "refused", ""),
        ("h1", "10.231.77.11:8083", "tcp", "refused", ""),
        // Between tasks ingress carries only the mesh.
        ("c1", "10.98.2.1:80", "tcp", "timeout", ""),
    ];
    for (from, to, protocol, names, sources) in cases {
        let said = format!("{from} → {to}/{protocol}: ");
        same(&format!("{said}{}", world.ask(from, to, protocol)), &format!("{said}{names} from {sources}"))?;
    }
    // Connections without packets stay for longer than 15 minutes (moby#37822).
    for (from, to) in [("c1", "10.99.200.1:81"), ("cl", "10.231.77.11:8082")] {
        let seconds = world.idle_time(from, to, 1);
        same(&format!("{from} → {to}: {}", seconds > 16 * 60), &format!("{from} → {to}: true"))?;
    }
    // A backend leaves: elements change, and no rule.
    world.stop_serving("c3");
    for host in 1..=3 {
        world.apply(host);
        same(&world.missing(host), "")?;
    }
    same(&world.ask("cl", "10.231.77.13:8080", "tcp"), "c1 c2 from 10.231.77.1")
        .map_err(|error| format!("without c3: {}", error.message().unwrap_or_default()))?;
    same(&world.ask("c1", vip, "udp"), "c1 c2 from 10.99.0.1 10.99.1.1")?;
    // Faults.
    world.run(1, &["nft", "flush", "ruleset"]);
    world.run(2, &["ip", "link", "del", "hx4097"]);
    // Something else has a device with its identifier (moby#42548).
    world.run(
        2,
        &["ip", "link", "add", "stray", "type", "vxlan", "id", "4097", "dstport", "4789", "local", "10.231.77.12"],
    );
    world.run(2, &["ip", "neigh", "flush", "dev", "hv4096", "nud", "permanent"]);
    world.run(2, &["ip", "rule", "del", "pref", "20100"]);
    for host in 1..=2 {
        world.apply(host);
        same(&world.missing(host), "")?;
    }
    same(&world.ask("cl", "10.231.77.11:8080", "tcp"), "c1 c2 from 10.231.77.1")?;
    same(&world.ask("c2", vip, "tcp"), "c1 c2 from 10.99.0.1 10.99.2.1")?;
    // A firewall script empties all chains, those of the engine as well; what it was to drop is dropped.
    for host in 1..=3 {
        world.run(host, &["iptables", "-w", "-F"]);
    }
    same(&world.ask("c2", vip, "tcp"), "timeout from")?;
    for host in 1..=3 {
        world.apply(host);
        same(&world.missing(host), "")?;
    }
    same(&world.ask("c2", vip, "tcp"), "c1 c2 from 10.99.0.1 10.99.2.1")?;
    same(&world.ask("cl", "10.231.77.13:8080", "tcp"), "c1 c2 from 10.231.77.1")?;
    // Rules of people come first.
    let own = [
        "iptables",
        "-w",
        "-I",
        "DOCKER-USER",
        "-p",
        "tcp",
        "-m",
        "conntrack",
        "--ctorigdstport",
        "8080",
        "-j",
        "REJECT",
    ];
    world.run(3, &own);
    world.apply(3);
    same(&world.ask("cl", "10.231.77.13:8080", "tcp"), "refused from")?;
    // The networks go.
    world.clear(1);
    same(&world.run(1, &["sh", "-c", "nft list tables | grep herder; iptables -w -S | grep hv4"]), "")?;
    Ok(())
}

fn same(seen: &str, wanted: &str) -> Result<(), Failed> {
    if seen.trim() == wanted.trim() { Ok(()) } else { Err(format!("wanted: {wanted}\n  seen: {seen}").into()) }
}
