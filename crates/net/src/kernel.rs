//! Reading and changing the kernel of this host.

use std::collections::BTreeMap;
use std::fs;

use herder_decide::net::{Family, Flows, Item, Op, Table, Value};

use crate::links::{Links, is_ours, put_mac, put_vxlan, remove_link, write};
use crate::netlink::{Bus, Message, Socket, is};
use crate::{NetError, conntrack, hairpin, iptables, nft, routes};

/// Number of elements above which `nft` loads a transaction: netlink has no room for more in one message.
const BATCH_MAX: usize = 4000;

/// Messages that are made before they are sent.
const PENDING_MAX: usize = 1000;

const NO_ENTRY: i32 = 2;
const NO_PROCESS: i32 = 3;
const EXISTS: i32 = 17;
const NO_ADDRESS: i32 = 99;

/// A step that was not carried out.
#[derive(Debug)]
pub struct Failed {
    pub step: String,
    pub error: NetError,
}

/// The network tables of the kernel, in the network namespace of the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Kernel {
    /// Reads what is there of herder's, and of the settings that `wanted` names.
    ///
    /// # Errors
    ///
    /// If netlink or `iptables` cannot be used.
    pub fn seen(self, wanted: &Table) -> Result<BTreeMap<Item, Value>, NetError> {
        let mut socket = Socket::open(Bus::Route)?;
        let links = Links::read(&mut socket)?;
        let mut items = nft::items()?;
        items.extend(links.items());
        items.extend(routes::items(&mut socket, &links)?);
        for link in links.by_index.values().filter(|link| is_ours(&link.name, 'v')) {
            if calls_iptables(&link.name) {
                items.insert(Item::BridgeCalls(link.name.clone()), Value::Set);
            }
            let mac = Item::BridgeMac(link.name.clone());
            if let (Some(value), true) = (link.mac, wanted.items.contains_key(&mac)) {
                items.insert(mac, Value::Mac(value));
            }
        }
        let wants_docker = wanted.items.keys().any(|item| matches!(item, Item::DockerUser(_)));
        for item in wanted.items.keys() {
            if let Item::Sysctl(path) = item
                && let Ok(value) = fs::read_to_string(format!("/proc/sys/{path}"))
            {
                items.insert(item.clone(), Value::Text(value.trim().to_owned()));
            }
        }
        let rules = if wants_docker || wanted.items.is_empty() { iptables::rules()? } else { None };
        let ours = rules.unwrap_or_default().into_iter().filter(|rule| is_our_rule(rule));
        items.extend(ours.map(|rule| (Item::DockerUser(rule), Value::Set)));
        Ok(items)
    }

    /// Same as [`Steps::carry_out`], once.
    pub fn carry_out(self, ops: &[Op]) -> Vec<Failed> {
        Steps::default().carry_out(ops)
    }

    /// Deletes tracked connections. Returns how many.
    ///
    /// # Errors
    ///
    /// If netlink cannot be used.
    pub fn end_flows(self, flows: &Flows) -> Result<usize, NetError> {
        if flows.is_empty() { Ok(0) } else { conntrack::delete(flows) }
    }

    /// True if links are other ones than a table wants. Cheaper than a look at everything.
    ///
    /// # Errors
    ///
    /// If netlink cannot be used.
    pub fn has_other_links(self, wanted: &Table) -> Result<bool, NetError> {
        let links = Links::read(&mut Socket::open(Bus::Route)?)?;
        let seen: BTreeMap<Item, Value> = links.items().collect();
        let mut own = wanted.items.iter().filter(|(item, _)| matches!(item, Item::Vxlan(_)));
        let is_other = |(item, value): (&Item, &Value)| seen.get(item) != Some(value);
        let has_mac = |link: &&crate::links::Link| match wanted.items.get(&Item::BridgeMac(link.name.clone())) {
            Some(Value::Mac(mac)) => link.mac != Some(*mac) || !calls_iptables(&link.name),
            _ => false,
        };
        Ok(own.any(is_other) || links.by_index.values().any(|it| has_mac(&it)))
    }

    /// Lets containers reach themselves by a virtual IP. Returns the bridge ports that were changed.
    pub fn set_hairpins(self) -> Vec<String> {
        hairpin::set()
    }

    /// True if a bridge of herder is there.
    pub fn has_link(self, name: &str) -> bool {
        fs::exists(format!("/sys/class/net/{name}")).unwrap_or(false)
    }
}

/// Carries out steps with one socket for all transactions of nft. A kernel waits some milliseconds when such a socket is closed, for all
/// transactions before to be cleaned up.
#[derive(Debug, Default)]
pub struct Steps {
    nft: Option<Socket>,
}

impl Steps {
    /// Carries out the steps of a plan in their order. One that fails does not keep the others from being done.
    pub fn carry_out(&mut self, ops: &[Op]) -> Vec<Failed> {
        // Most changes are of elements alone.
        if ops.iter().all(|op| matches!(op, Op::Batch(..))) {
            let failed = |op: &Op| Some(Failed { step: say(op), error: carry_out_nft(&mut self.nft, op).err()? });
            return ops.iter().filter_map(failed).collect();
        }
        let mut failed = Vec::new();
        let mut pending: Vec<(&Op, Message)> = Vec::new();
        let mut socket = match Socket::open(Bus::Route) {
            Ok(socket) => socket,
            Err(error) => return vec![Failed { step: "netlink".into(), error }],
        };
        let mut indices = BTreeMap::new();
        for op in ops {
            match message(&socket, &mut indices, op) {
                Ok(Some(message)) => {
                    pending.push((op, message));
                    if pending.len() >= PENDING_MAX {
                        flush(&mut socket, &mut pending, &mut failed);
                    }
                }
                Ok(None) => {
                    flush(&mut socket, &mut pending, &mut failed);
                    if let Err(error) = carry_out(&mut socket, &mut self.nft, op) {
                        failed.push(Failed { step: say(op), error });
                    }
                    indices.clear();
                }
                // It went with its device.
                Err(NetError::NoInterface(_)) if matches!(op, Op::Remove(_)) => {}
                Err(error) => failed.push(Failed { step: say(op), error }),
            }
        }
        flush(&mut socket, &mut pending, &mut failed);
        failed
    }
}

/// The netlink message of a step, if it is one that can be sent together with others. `indices`: those of interfaces that are known.
fn message(socket: &Socket, indices: &mut BTreeMap<String, u32>, op: &Op) -> Result<Option<Message>, NetError> {
    let index = |name: &str| match indices.get(name) {
        Some(index) => Ok(*index),
        None => {
            let index = socket.index(name)?;
            indices.insert(name.to_owned(), index);
            Ok(index)
        }
    };
    match op {
        Op::Put(item, value) => routes::put(index, item, value),
        Op::Remove(item) => routes::remove(index, item),
        Op::Load(..) | Op::Batch(..) | Op::Drop(_) => Ok(None),
    }
}

fn flush(socket: &mut Socket, pending: &mut Vec<(&Op, Message)>, failed: &mut Vec<Failed>) {
    let (ops, messages): (Vec<&Op>, Vec<Message>) = pending.drain(..).unzip();
    for (op, outcome) in ops.into_iter().zip(socket.each("kernel table", messages)) {
        // What is there already, or gone already, is as it shall be.
        let is_done = match op {
            Op::Put(..) => is(&outcome, &[EXISTS]),
            _ => is(&outcome, &[NO_ENTRY, NO_PROCESS, NO_ADDRESS]),
        };
        if let (Err(error), false) = (outcome, is_done) {
            failed.push(Failed { step: say(op), error });
        }
    }
}

fn carry_out(socket: &mut Socket, nft: &mut Option<Socket>, op: &Op) -> Result<(), NetError> {
    match op {
        Op::Put(Item::Sysctl(path), Value::Text(value)) => write(&format!("/proc/sys/{path}"), value),
        Op::Put(Item::BridgeCalls(bridge), _) => ["nf_call_iptables", "nf_call_ip6tables"]
            .into_iter()
            .try_for_each(|file| write(&format!("/sys/class/net/{bridge}/bridge/{file}"), "1")),
        Op::Put(Item::BridgeMac(bridge), Value::Mac(mac)) => put_mac(socket, bridge, *mac),
        Op::Put(Item::Vxlan(name), value) => put_vxlan(socket, name, value),
        Op::Remove(Item::Vxlan(name)) => remove_link(socket, name),
        Op::Put(Item::DockerUser(rule), _) => iptables::put(rule),
        Op::Remove(Item::DockerUser(rule)) => iptables::remove(rule),
        _ => carry_out_nft(nft, op),
    }
}

fn carry_out_nft(socket: &mut Option<Socket>, op: &Op) -> Result<(), NetError> {
    match op {
        Op::Put(Item::Chain(family, name), _) => nft::put_chain(socket, *family, name),
        Op::Load(_, script) => nft::load(script),
        Op::Drop(family) => nft::drop(*family),
        Op::Batch(_, ops) if ops.len() <= BATCH_MAX => nft::batch(socket, ops),
        Op::Batch(family, ops) => nft::load(&script(*family, ops)),
        // Bridges go with the engine's network.
        Op::Put(..) | Op::Remove(_) => Ok(()),
    }
}

/// A batch as a script of `nft`.
fn script(family: Family, ops: &[Op]) -> String {
    let line = |op: &Op| {
        let (verb, item, value) = match op {
            Op::Put(item, value) => ("add", item, Some(value)),
            Op::Remove(item) => ("delete", item, None),
            Op::Load(..) | Op::Batch(..) | Op::Drop(_) => return None,
        };
        let text = item.to_string();
        let (set, key) = text.strip_prefix(&format!("element {} ", family.name()))?.split_once(' ')?;
        let data = match value {
            Some(value @ Value::Fields(_)) => format!(" : {value}"),
            _ => String::new(),
        };
        Some(format!("{verb} element {} herder {set} {{ {key}{data} }}\n", family.name()))
    };
    ops.iter().filter_map(line).collect()
}

fn calls_iptables(bridge: &str) -> bool {
    ["nf_call_iptables", "nf_call_ip6tables"].into_iter().all(|file| {
        let text = fs::read_to_string(format!("/sys/class/net/{bridge}/bridge/{file}"));
        text.is_ok_and(|text| text.trim() == "1")
    })
}

/// A rule about one of herder's bridges, as herder writes them.
fn is_our_rule(rule: &str) -> bool {
    let words: Vec<&str> = rule.split(' ').collect();
    match words[..] {
        ["-i", from, "-o", to, "-j", "ACCEPT"] => from == to && is_ours(from, 'v'),
        ["-i" | "-o", name, "-m", "conntrack", "--ctstate", ..] => is_ours(name, 'v'),
        _ => false,
    }
}

fn say(op: &Op) -> String {
    match op {
        Op::Put(item, value) => format!("add {item} {value}"),
        Op::Remove(item) => format!("remove {item}"),
        Op::Load(family, _) => format!("load table {} herder", family.name()),
        Op::Drop(family) => format!("drop table {} herder", family.name()),
        Op::Batch(family, ops) => format!("change {} elements of table {} herder", ops.len(), family.name()),
    }
}
