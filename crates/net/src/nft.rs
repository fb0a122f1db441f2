//! Loading (`nft`) and reading (netlink) of the nftables tables named `herder`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use herder_decide::net::{Family, Item, Op, STAMP_PREFIX, Set, Value};

use crate::element::{elements, head, message, number, query};
use crate::netlink::{Attrs, Bus, DUMP, Message, Received, Socket, failed};
use crate::{NetError, chain};

const NFTABLES: u16 = 10 << 8;
const GET_CHAIN: u16 = NFTABLES | 4;
const GET_RULE: u16 = NFTABLES | 7;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// Number of the subsystem, in the head of batch messages.
const SUBSYSTEM: [u8; 4] = [0, 0, 0, 10];
const NO_ENTRY: i32 = 2;

/// Runs `nft` with a script: one transaction.
pub(crate) fn load(script: &str) -> Result<(), NetError> {
    let run = || -> std::io::Result<std::process::Output> {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(script.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|source| NetError::Program { program: "nft", source })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
    Err(NetError::Refused { program: "nft", message })
}

/// Carries out a batch of element changes as one transaction. `socket`: the one of the transaction before.
pub(crate) fn batch(socket: &mut Option<Socket>, ops: &[Op]) -> Result<(), NetError> {
    transaction(socket, "change of nft elements", ops.iter().filter_map(message).collect())
}

fn transaction(socket: &mut Option<Socket>, what: &'static str, mut messages: Vec<Message>) -> Result<(), NetError> {
    if let Some(last) = messages.pop() {
        messages.push(last.acknowledged());
    }
    let frame = |kind| Message::new(kind, 0).head(&SUBSYSTEM);
    let open = match socket {
        Some(open) => open,
        None => socket.insert(Socket::open(Bus::Netfilter)?),
    };
    let outcome = open.transaction(frame(BATCH_BEGIN), messages, frame(BATCH_END));
    if outcome.is_err() {
        *socket = None;
    }
    outcome.map_err(|error| failed(what, error))
}

/// Returns the kernel's items of these tables.
pub(crate) fn items() -> Result<BTreeMap<Item, Value>, NetError> {
    let mut socket = Socket::open(Bus::Netfilter)?;
    let mut items = BTreeMap::new();
    for family in [Family::Ip, Family::Ip6, Family::Bridge] {
        let about = |kind| Message::new(kind, DUMP).head(&head(number(family)));
        let mut stamp = None;
        for received in socket.dump("list of nft chains", about(GET_CHAIN))? {
            let attrs = Attrs::new(received.body.get(4..).unwrap_or_default());
            if attrs.text(TABLE).as_deref() != Some("herder") {
                continue;
            }
            let name = attrs.text(CHAIN_NAME).unwrap_or_default();
            match name.strip_prefix(STAMP_PREFIX) {
                Some(hash) => stamp = Some(hash.to_owned()),
                None => _ = extra_chain(family, &name).map(|(item, value)| items.insert(item, value)),
            }
        }
        let Some(hash) = stamp else {
            items.retain(|item: &Item, _| item.family() != Some(family));
            continue;
        };
        let mut rules = 0;
        for received in socket.dump("list of nft rules", about(GET_RULE).text(TABLE, "herder"))? {
            let attrs = Attrs::new(received.body.get(4..).unwrap_or_default());
            let is_extra = attrs.text(2).is_some_and(|chain| extra_chain(family, &chain).is_some());
            rules += usize::from(attrs.text(TABLE).as_deref() == Some("herder") && !is_extra);
        }
        items.insert(Item::Base(family), Value::Stamp(hash, rules));
        for set in Set::of(family) {
            let see = |received: Received| items.extend(elements(family, *set, &received.body));
            match socket.dump_each("list of nft elements", query(family, *set), see) {
                Ok(()) => {}
                // Somebody removed the set: as if the base were another one.
                Err(NetError::Netlink { source, .. }) if source.raw_os_error() == Some(NO_ENTRY) => {
                    items.insert(Item::Base(family), Value::Set);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(items)
}

/// A chain for a number of backends that no base has.
fn extra_chain(family: Family, name: &str) -> Option<(Item, Value)> {
    let count: u32 = name.strip_prefix(['v', 'h', 'p', 'q'])?.parse().ok()?;
    let rule = herder_decide::net::chain_rule(family, name);
    (count > herder_decide::net::BASE_SIZES).then(|| (Item::Chain(family, name.into()), Value::Text(rule)))
}

/// Adds a chain for one number of backends.
pub(crate) fn put_chain(socket: &mut Option<Socket>, family: Family, name: &str) -> Result<(), NetError> {
    transaction(socket, "new nft chain", chain::messages(family, name).into_iter().flatten().collect())
}

pub(crate) fn drop(family: Family) -> Result<(), NetError> {
    let name = family.name();
    load(&format!("add table {name} herder\ndelete table {name} herder\n"))
}
