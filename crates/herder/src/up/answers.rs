//! Actions that come over the event bus: at the cluster's address, at this node's, and at those of its containers.

use std::collections::BTreeSet;
use std::sync::Arc;

use herder_bus::{Bus, Headers, Inbox, Message};
use herder_front::Front;
use herder_wire::link::Link;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use herder_node::peers::denied;

/// Actions from the bus that are carried out at the same time; more are refused.
const ACTIONS_MAX: usize = 64;

/// Code of a refusal, as the bus gives it for a queue that is full.
const BUSY: i32 = -2;

/// Code of a refusal of what a worker of a swarm may not do.
const DENIED: i32 = -4;

/// Answers until `stop`. `here` is the address of this node.
pub(super) async fn answer(
    front: Arc<Front>,
    (bus, link): (Arc<Bus>, Arc<Link>),
    cluster: String,
    here: String,
    stop: CancellationToken,
) {
    let mut inbox = bus.inbox();
    let mut changes = front.pool.changes();
    let mut registered = BTreeSet::new();
    let room = Arc::new(Semaphore::new(ACTIONS_MAX));
    loop {
        let node = front.pool.engine(&here).map(|engine| engine.node());
        let mut wanted = BTreeSet::from([cluster.clone()]);
        if let Some(node) = &node {
            wanted.insert(format!("{cluster}.{}", node.name));
            wanted.extend(node.containers.keys().cloned());
        }
        follow(&mut inbox, &mut registered, wanted);
        let message = tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return } else { continue },
            message = inbox.recv() => message,
        };
        if let Some(peer) = &message.from
            && link.roster().is_some_and(|it| it.managers.iter().all(|manager| manager.id != **peer))
        {
            message.fail(DENIED, &denied("carry out actions on other nodes"));
            continue;
        }
        let Ok(permit) = room.clone().try_acquire_owned() else {
            message.fail(BUSY, "this node has too many actions to carry out; try again");
            continue;
        };
        // What is sent to one node means that node; what is sent to the cluster, any.
        let here = node.filter(|_| *message.address != *cluster).map(|node| node.name.clone());
        let front = front.clone();
        tokio::spawn(async move {
            carry_out(&front, message, here.as_deref()).await;
            drop(permit);
        });
    }
}

/// Registers for what is new and lets go of what is gone.
fn follow(inbox: &mut Inbox, registered: &mut BTreeSet<String>, wanted: BTreeSet<String>) {
    for gone in registered.difference(&wanted) {
        inbox.unregister(gone);
    }
    for new in wanted.difference(registered) {
        if let Err(error) = inbox.register(new) {
            tracing::warn!(address = new, %error, "an address of the bus cannot be served");
        }
    }
    *registered = wanted;
}

async fn carry_out(front: &Arc<Front>, message: Message, here: Option<&str>) {
    let mut request = Value::clone(&message.body);
    let to_container = message.address.len() == 64 && message.address.bytes().all(|byte| byte.is_ascii_hexdigit());
    if to_container && request.is_object() && request["id"].is_null() {
        request["id"] = json!(&*message.address);
    }
    let (_, answer) = front.act(&request, here.filter(|_| !to_container)).await;
    if message.wants_reply() {
        message.reply(Headers::default(), answer);
    }
}
