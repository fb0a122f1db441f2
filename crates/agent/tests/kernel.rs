//! The kernel of this machine is brought to tables of networks, in namespaces of its own. Needs root and the packages that `cargo xtask test`
//! installs.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use herder_decide::net::{BASE_SIZES, Family, Flows, Host, Item, Op, States, Table, Value, plan, table};
use herder_net::{Kernel, Steps};
use libtest_mimic::{Arguments, Trial};
use serde_json::json;

/// Set in the process that is in its own namespaces.
const INSIDE: &str = "NET_TEST_INSIDE";

/// A data path, and what an engine makes.
const MACHINE: &str = "
    ip link set lo up; ip link add u0 type veth peer name u1; ip link set u1 up
    ip addr add 192.0.2.1/24 dev u0; ip link set u0 up
    for v in 4096 4097; do ip link add hv$v type bridge; ip link set hv$v mtu 1450 up; done
    iptables -w -N DOCKER-USER; iptables -w -A DOCKER-USER -j RETURN; iptables -w -A FORWARD -j DOCKER-USER";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one kernel.
    arguments.test_threads = Some(1);
    if arguments.list || std::env::var_os(INSIDE).is_some() {
        return libtest_mimic::run(&arguments, trials()).exit_code();
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec"]);
    command.arg(format!("mount -t sysfs sysfs /sys; {MACHINE}\nexec \"$0\" \"$@\""));
    let error =
        command.arg(std::env::current_exe().expect("a path")).args(std::env::args().skip(1)).env(INSIDE, "1").exec();
    panic!("cannot run unshare: {error}");
}

fn trials() -> Vec<Trial> {
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    vec![
        trial("the_kernel_has_what_a_table_wants", wanted),
        trial("a_change_leads_to_what_all_of_it_leads_to", changes),
        trial("flows_of_a_backend_that_left_are_ended", flows),
        trial("a_chain_that_is_added_leads_to_all_backends", chains),
        trial("a_chain_that_is_added_is_as_nft_makes_it", same_chains),
        trial("nothing_stays_of_networks_that_are_gone", nothing),
    ]
}

/// A user network and ingress on two nodes. These endpoints serve: their numbers are the last bytes of their addresses; odd ones are of this
/// node.
fn states(serving: &[u8]) -> States {
    let state = |id: &str, vni: u32| {
        let endpoint = |n: &u8| {
            let node = if n % 2 == 1 { "n1" } else { "n2" };
            let value = json!({"node": node, "v4": Ipv4Addr::new(10, 98, u8::from(id == "ov"), *n), "service": "s", "serving": true});
            (format!("t{n}"), value)
        };
        let endpoints: serde_json::Map<_, _> = serving.iter().map(endpoint).collect();
        let node = |n: u8| {
            let ingress = (id == "in").then(|| Ipv4Addr::new(10, 98, 0, 200 + n));
            json!({"vtep": Ipv4Addr::new(192, 0, 2, n), "ingress": ingress, "up": true})
        };
        let net = u8::from(id == "ov");
        let mut state = json!({
            "facts": {"name": id, "vni": vni, "ingress": id == "in",
                "subnets": [{"subnet": format!("10.98.{net}.0/24"), "gateway": format!("10.98.{net}.1")}]},
            "nodes": {"n1": node(1), "n2": node(2)},
            "endpoints": endpoints,
            "services": {"s": {"name": "web", "mode": "vip", "vip4": format!("10.98.{net}.2")}},
        });
        if id == "in" {
            let port = |protocol: &str| json!({"protocol": protocol, "published": 9000, "target": 80, "service": "s"});
            state["ports"] = json!({"9000/tcp": port("tcp"), "9000/udp": port("udp")});
        }
        (id.to_owned(), Arc::new(serde_json::from_value(state).expect("a state")))
    };
    [state("in", 4096), state("ov", 4097)].into()
}

fn host() -> Host {
    Host { node: "n1".into(), underlay_mtu: 1500, dns_port: 5399, ..Host::default() }
}

/// Brings the kernel to a table by comparison with what it has.
fn load(wanted: &Table) {
    carry_out(&missing(wanted));
    assert_eq!(missing(wanted), [], "the kernel has all of it now");
}

fn missing(wanted: &Table) -> Vec<Op> {
    plan(wanted, &Kernel.seen(wanted).expect("netlink"))
}

fn carry_out(ops: &[Op]) {
    let failed = Kernel.carry_out(ops);
    assert!(failed.is_empty(), "{failed:?}");
}

fn wanted() {
    load(&table(&states(&[11, 12]), &host()));
}

/// More endpoints than there are chains for, none, and some.
fn changes() {
    let many: Vec<u8> = (10..60).collect();
    let mut before = states(&[11, 12]);
    let mut now = table(&before, &host());
    load(&now);
    let mut steps = Steps::default();
    for serving in [&[11, 12, 14][..], &[12, 14], &[14, 15], &many, &[], &[11, 12]] {
        let after = states(serving);
        let (ops, _) = now.advance((&before, &host()), (&after, &host())).expect("only endpoints differ");
        let failed = steps.carry_out(&ops);
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(missing(&table(&after, &host())), [], "with endpoints {serving:?}");
        before = after;
    }
}

fn flows() {
    load(&table(&states(&[12]), &host()));
    let client = UdpSocket::bind("192.0.2.1:0").expect("a socket");
    client.send_to(b"?", "192.0.2.1:9000").expect("the port leads to a task");
    let of = |backend: [u8; 4]| Flows { backends: BTreeSet::from([backend.into()]), ..Flows::default() };
    let ended = |flows: Flows| Kernel.end_flows(&flows).expect("netlink");
    assert_eq!(ended(of([10, 98, 0, 14])), 0, "that of another backend stays");
    assert_eq!(ended(of([10, 98, 0, 12])), 1);
    assert_eq!(ended(of([10, 98, 0, 12])), 0, "it is gone");
    client.send_to(b"?", "192.0.2.1:9000").expect("the port leads to a task");
    assert_eq!(ended(Flows { ports: [(17, 9001)].into(), ..Flows::default() }), 0, "no flow of this port");
    assert_eq!(ended(Flows { ports: [(17, 9000)].into(), ..Flows::default() }), 1, "nothing has answered");
}

/// More endpoints than the base has chains for, one after the other: each gets one connection.
fn chains() {
    let serving = |count: u8| (0..count).map(|n| 12 + 2 * n).collect::<Vec<u8>>();
    let (few, many) = (states(&serving(2)), states(&serving(40)));
    let mut now = table(&few, &host());
    load(&now);
    let (ops, _) = now.advance((&few, &host()), (&many, &host())).expect("only endpoints differ");
    carry_out(&ops);
    let clients: Vec<UdpSocket> = (0..40).map(|_| UdpSocket::bind("192.0.2.1:0").expect("a socket")).collect();
    for client in &clients {
        client.send_to(b"?", "192.0.2.1:9000").expect("the port leads to a task");
    }
    for last in serving(40) {
        let backends = BTreeSet::from([[10, 98, 0, last].into()]);
        let ended = Kernel.end_flows(&Flows { backends, ..Flows::default() }).expect("netlink");
        assert_eq!(ended, 1, "flows to 10.98.0.{last}");
    }
}

fn same_chains() {
    let mut states = states(&[11, 12]);
    for state in states.values_mut() {
        Arc::make_mut(state).facts.ipv6 = true;
    }
    load(&table(&states, &host()));
    let list = |family: Family, name: &str| {
        let listed = Command::new("nft").args(["list", "chain", family.name(), "herder", name]).output().expect("nft");
        String::from_utf8_lossy(&listed.stdout).into_owned()
    };
    for family in [Family::Ip, Family::Ip6] {
        for kind in ["v", "h", "p", "q"] {
            let (old, new) = (format!("{kind}{BASE_SIZES}"), format!("{kind}40"));
            carry_out(&[Op::Put(Item::Chain(family, new.clone()), Value::Set)]);
            let wanted = list(family, &old).replace(&old, &new).replace(&format!("mod {BASE_SIZES} "), "mod 40 ");
            assert!(wanted.contains("mod 40 map"), "{wanted}");
            assert_eq!(list(family, &new), wanted);
        }
    }
}

fn nothing() {
    load(&table(&states(&[11, 12]), &host()));
    carry_out(&missing(&Table::default()));
    let seen = Kernel.seen(&Table::default()).expect("netlink");
    assert!(
        seen.keys().all(|item| item.to_string().starts_with("bridge hv")),
        "only what the engine has to remove: {seen:?}"
    );
}
