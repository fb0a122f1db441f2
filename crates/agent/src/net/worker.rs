//! Brings engine, kernel and DNS server of this node to the states of its networks, and keeps them there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use herder_decide::net::{
    Family, Flows, Host, Item, Op, States as NetStates, Table, Value, bridge_name, ended, lacks_tunnel, plan, table,
    tunnel,
};
use herder_dns::DNS_PORT;
use herder_model::swarm::NetState;
use herder_net::{Kernel, Notice, Notices, Steps, data_path_mtu};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::names::NameServer;
use super::ports::Holders;
use super::tunnels::Tunnels;
use super::{DRAIN_TIME_MAX, EngineNetwork, Networks, Outcome, States, Versions, engine_network, kept};
use crate::call::Engine;

/// The kernel is compared with what is wanted at least so often, in case a change gave no notice.
const AUDIT_TIME: Duration = Duration::from_secs(60);

/// Notices of the kernel that wait.
const NOTICES_MAX: usize = 1024;

/// Pause between a notice of the kernel and the comparison. A burst of notices is answered once.
const NOTICE_PAUSE: Duration = Duration::from_millis(300);

/// Pause before something that failed is tried again.
const RETRY_TIME: Duration = Duration::from_secs(1);

/// Interval of checks of the engine's firewall rules: their removal gives no notice.
const FIREWALL_TIME: Duration = Duration::from_secs(2);

/// Reason why an encrypted network cannot be used here.
const NO_TUNNEL: &str = "the network is encrypted, and this node has no tunnel of its own: it needs WireGuard in its kernel or the device \
                         /dev/net/tun, and managers that know its key; `herder doctor net` tells more";

/// Pause between a change and saving it: a busy swarm changes many times in it. After a reboot without managers, a node goes on with the state
/// before.
const SAVE_PAUSE: Duration = Duration::from_secs(5);

/// Rest after connections were ended, in the time that it took. The kernel goes through its table of all connections for it, however few
/// are meant (5 to 10 ms for a table of 262,144 places), so this is at most 1 % of one core.
const FLOWS_REST: u32 = 100;

/// Maximum of that rest: as long as a task that leaves waits for all nodes.
const FLOWS_REST_MAX: Duration = DRAIN_TIME_MAX;

/// MTU where the data path cannot be read.
const MTU: u32 = 1500;

pub(super) struct Worker {
    networks: Networks,
    engine: Arc<Engine>,
    host: Host,
    folder: PathBuf,
    states: watch::Receiver<States>,
    heard: watch::Receiver<bool>,
    /// States are those that were saved, and may be older than what the kernel has.
    is_saved: bool,
    suspects: watch::Receiver<BTreeSet<String>>,
    ended: watch::Receiver<BTreeSet<String>>,
    notices: mpsc::Receiver<Notice>,
    names: NameServer,
    tunnels: Tunnels,
    holders: Holders,
    /// Engine networks, by network id; nothing until the engine has said.
    there: Option<BTreeMap<String, EngineNetwork>>,
    /// The table that the kernel was brought to.
    table: Table,
    /// States and host that the table is of.
    done: Option<(NetStates, Host)>,
    /// The kernel is to be read before the next comparison.
    audit: bool,
    next_audit: Instant,
    next_firewall: Instant,
    retry: Option<Instant>,
    /// Time to read the kernel because of a notice.
    look: Option<Instant>,
    links_changed: bool,
    /// Last failure, so that it is logged once.
    trouble: String,
    kept: Versions,
    /// Time to save what has changed since.
    save: Option<Instant>,
    steps: Steps,
    /// Connections that are still to be ended.
    flows: Flows,
    /// Connections are left alone until then.
    next_flows: Instant,
}

impl Worker {
    pub(super) fn new(
        networks: Networks,
        engine: Arc<Engine>,
        node_id: &str,
        folder: &Path,
        names: NameServer,
        tunnels: Tunnels,
    ) -> Worker {
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        std::thread::spawn(move || notice(&sender));
        Worker {
            states: networks.shared.states.subscribe(),
            heard: networks.shared.heard.subscribe(),
            is_saved: false,
            suspects: networks.shared.suspects.subscribe(),
            ended: networks.shared.ended.subscribe(),
            networks,
            engine,
            host: Host { node: node_id.to_owned(), underlay_mtu: MTU, dns_port: DNS_PORT, ..Host::default() },
            folder: folder.to_owned(),
            notices,
            names,
            tunnels,
            holders: Holders::default(),
            there: None,
            table: Table::default(),
            done: None,
            audit: true,
            next_audit: Instant::now(),
            next_firewall: Instant::now() + FIREWALL_TIME,
            retry: None,
            look: None,
            links_changed: false,
            trouble: String::new(),
            kept: Versions::new(),
            save: None,
            steps: Steps::default(),
            flows: Flows::default(),
            next_flows: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) {
        if let Some(states) = kept::load(&self.folder).await {
            info!(networks = states.len(), "networks are known from the saved state");
            self.is_saved = true;
            self.networks.shared.states.send_modify(|there| {
                for (id, known) in states {
                    there.entry(id).or_insert(known);
                }
            });
        }
        loop {
            if *self.heard.borrow_and_update() && std::mem::take(&mut self.is_saved) {
                self.audit = true;
            }
            let states = self.states.borrow_and_update().clone();
            self.host.suspects.clone_from(&self.suspects.borrow_and_update());
            self.host.ended.clone_from(&self.ended.borrow_and_update());
            self.step(states).await;
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        let firewall = self.next_firewall;
        let has_networks = !self.table.items.is_empty();
        let flows = (!self.flows.is_empty()).then_some(self.next_flows);
        let wake = [Some(self.next_audit), self.look, self.retry, self.save, flows, has_networks.then_some(firewall)]
            .into_iter()
            .flatten()
            .min();
        tokio::select! {
            // The senders live as long as the networks.
            _ = self.states.changed() => {}
            _ = self.heard.changed() => {}
            _ = self.suspects.changed() => {}
            _ = self.ended.changed() => {}
            Some(notice) = self.notices.recv() => {
                self.notice(notice);
                while let Ok(notice) = self.notices.try_recv() {
                    self.notice(notice);
                }
            }
            () = self.names.gone() => warn!("the DNS server of overlay networks has ended; it is started again"),
            () = self.tunnels.gone() => {
                warn!("the process that encrypts networks has ended; it is started again, and nothing leaves until then");
                self.audit = true;
            }
            () = sleep_until(wake.unwrap_or(self.next_audit)) => {
                let now = Instant::now();
                if self.look.is_some_and(|at| now >= at) {
                    self.look = None;
                    self.audit = true;
                }
                self.audit |= now >= self.next_audit;
                if self.retry.is_some_and(|at| now >= at) {
                    self.retry = None;
                    self.there = None;
                    self.audit = true;
                }
                if now >= firewall {
                    self.next_firewall = now + FIREWALL_TIME;
                    self.audit |= self.lacks_firewall_rules().await;
                }
            }
        }
    }

    /// Notes what has changed in the kernel. Further notices of the same event come soon, and are answered together.
    fn notice(&mut self, notice: Notice) {
        let is_lost = match notice {
            Notice::Changed => true,
            Notice::Gone(item) => self.table.items.contains_key(&item),
            Notice::Links => {
                self.links_changed = true;
                false
            }
        };
        if is_lost {
            self.look.get_or_insert_with(|| Instant::now() + NOTICE_PAUSE);
        }
    }

    /// Looks after ports of bridges, which come and go with containers.
    async fn links(&mut self) {
        if !std::mem::take(&mut self.links_changed) || self.audit {
            return;
        }
        let table = std::mem::take(&mut self.table);
        let looked = tokio::task::spawn_blocking(move || {
            let hairpins = Kernel.set_hairpins();
            let others = Kernel.has_other_links(&table);
            (table, hairpins, others)
        });
        match looked.await {
            Ok((table, hairpins, others)) => {
                self.table = table;
                self.audit |= others.unwrap_or(true);
                if !hairpins.is_empty() {
                    debug!(?hairpins, "bridge ports send frames back");
                }
            }
            Err(_) => (self.audit, self.done) = (true, None),
        }
    }

    async fn step(&mut self, states: States) {
        self.links().await;
        let mut troubles = Vec::new();
        let mut ready: BTreeMap<String, Outcome> = BTreeMap::new();
        self.engine_networks(&states, &mut ready, &mut troubles).await;
        if states.is_empty() && self.table.items.is_empty() {
            // A node without networks leaves the kernel alone.
            (self.audit, self.done) = (false, None);
            self.next_audit = Instant::now() + AUDIT_TIME;
            self.end_flows(&mut troubles).await;
            self.tell(troubles);
            return;
        }
        self.learn_host(&states).await;
        // A bridge that goes gives notice, and all is looked at.
        let known = self.done.as_ref().filter(|_| !self.audit).map(|(states, _)| states);
        let has_bridge = |id: &String, state: &NetState| {
            let is_known = known.and_then(|all| all.get(id)).is_some_and(|it| it.facts.vni == state.facts.vni);
            ready.get(id).is_some_and(Result::is_ok) && (is_known || Kernel.has_link(&bridge_name(state.facts.vni)))
        };
        let usable: NetStates = states
            .iter()
            .filter(|(id, it)| has_bridge(id, &it.state))
            .map(|(id, it)| (id.clone(), it.state.clone()))
            .collect();
        for (id, _) in states.iter().filter(|(id, _)| !usable.contains_key(*id)) {
            if let Some(outcome @ Ok(_)) = ready.get_mut(id) {
                *outcome = Err("the engine has the network, but not its bridge".into());
                troubles.push(format!("network {id} has no bridge"));
            }
        }
        let ports = usable.values().find(|state| state.facts.ingress).map(|state| state.ports.clone());
        self.host.taken = self.holders.hold(ports.unwrap_or_default());
        // After a restart of the program alone, kernel, tunnels and DNS server go on with what they have: it may be newer than what was saved.
        let holds = self.is_saved && kernel_has_tables().await;
        if holds {
            (self.audit, self.done) = (false, None);
            self.next_audit = Instant::now() + AUDIT_TIME;
        } else {
            self.kernel_and_tunnels(&usable, &mut troubles).await;
        }
        self.end_flows(&mut troubles).await;
        if !holds
            && (!usable.is_empty() || self.names.is_running())
            && let Err(error) = self.names.feed(&usable, &self.host).await
        {
            troubles.push(error.to_string());
        }
        let is_done = troubles.is_empty();
        self.tell(troubles);
        if is_done {
            self.retry = None;
            self.publish(&states, &usable, ready).await;
        } else {
            (self.retry, self.save) = (Some(Instant::now() + RETRY_TIME), None);
            let reason = self.trouble.clone();
            for outcome in ready.values_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = Err(reason.clone());
            }
            self.networks.shared.ready.send_replace(ready);
        }
    }

    /// Logs what went wrong, once.
    fn tell(&mut self, troubles: Vec<String>) {
        let trouble = troubles.join("; ");
        if trouble != self.trouble {
            match trouble.as_str() {
                "" => info!("networks are as wanted again"),
                trouble => warn!(trouble, "networks are not as wanted; retrying"),
            }
            self.trouble = trouble;
        }
    }

    async fn publish(&mut self, states: &States, usable: &NetStates, ready: BTreeMap<String, Outcome>) {
        let versions: Versions =
            states.iter().filter(|(id, _)| usable.contains_key(*id)).map(|(id, it)| (id.clone(), it.version)).collect();
        self.networks.shared.ready.send_if_modified(|old| std::mem::replace(old, ready) != *old);
        self.networks.shared.applied.send_if_modified(|old| std::mem::replace(old, versions.clone()) != *old);
        if self.kept == versions {
            self.save = None;
        } else {
            // A first state is saved at once.
            let due = *self
                .save
                .get_or_insert_with(|| Instant::now() + if self.kept.is_empty() { Duration::ZERO } else { SAVE_PAUSE });
            if Instant::now() >= due {
                self.save = None;
                match kept::save(&self.folder, states).await {
                    Ok(()) => self.kept = versions,
                    Err(error) => {
                        warn!(%error, "cannot save the state of networks; after a restart without managers they are missing")
                    }
                }
            }
        }
    }

    /// Makes the engine have a network for each overlay network, and no others of herder's.
    async fn engine_networks(
        &mut self,
        states: &States,
        ready: &mut BTreeMap<String, Outcome>,
        troubles: &mut Vec<String>,
    ) {
        if self.there.is_none() || self.audit {
            match engine_network::list(&self.engine).await {
                Ok(there) => self.there = Some(there),
                Err(error) => troubles.push(format!("the engine does not list its networks: {error}")),
            }
        }
        let Some(there) = &mut self.there else { return };
        for (id, known) in states {
            if lacks_tunnel(&known.state, &self.host) {
                ready.insert(id.clone(), Err(NO_TUNNEL.to_owned()));
                continue;
            }
            if let Some(network) = there.get(id) {
                ready.insert(id.clone(), Ok(network.clone()));
                continue;
            }
            match engine_network::create(&self.engine, id, &known.state, &self.host).await {
                Ok(network) => {
                    debug!(network = id, name = network.name, "the engine has its network");
                    self.audit = true;
                    there.insert(id.clone(), network.clone());
                    ready.insert(id.clone(), Ok(network));
                }
                Err(error) => {
                    troubles.push(format!("network {}: {error}", known.state.facts.name));
                    ready.insert(id.clone(), Err(error.to_string()));
                }
            }
        }
        let stray: Vec<(String, EngineNetwork)> =
            there.iter().filter(|(id, _)| !states.contains_key(*id)).map(|(id, it)| (id.clone(), it.clone())).collect();
        for (id, network) in stray {
            // A container that is made from now on waits for the network, and one that was told that it is there has its state here.
            self.networks.shared.ready.send_if_modified(|ready| ready.remove(&id).is_some());
            if self.networks.shared.states.borrow().contains_key(&id) {
                continue;
            }
            match engine_network::remove(&self.engine, &network).await {
                Ok(true) => _ = there.remove(&id),
                // Containers are still on it; they end some time.
                Ok(false) => self.next_audit = self.next_audit.min(Instant::now() + RETRY_TIME),
                Err(error) => troubles.push(format!("network {}: {error}", network.name)),
            }
        }
    }

    async fn learn_host(&mut self, states: &States) {
        let own = states.values().find_map(|known| known.state.nodes.get(&self.host.node));
        let Some(vtep) = own.map(|node| node.vtep).filter(|_| self.audit) else { return };
        let mtu = tokio::task::spawn_blocking(move || data_path_mtu(vtep)).await;
        if let Ok(Ok(Some(mtu))) = mtu {
            self.host.underlay_mtu = mtu;
        }
    }

    async fn kernel_and_tunnels(&mut self, states: &NetStates, troubles: &mut Vec<String>) {
        let tunnel = tunnel(states, &self.host);
        if let Some(tunnel) = &tunnel
            && let Err(error) = self.tunnels.put(tunnel).await
        {
            troubles.push(format!("encrypted networks: {error}"));
        }
        self.kernel(states, troubles).await;
        if tunnel.is_none() {
            // Last: VXLAN devices that are bound to it would go with it before they shall.
            self.tunnels.remove().await;
        }
    }

    async fn kernel(&mut self, states: &NetStates, troubles: &mut Vec<String>) {
        let before = self.done.replace((states.clone(), self.host.clone()));
        let is_same = |(old, host): &(NetStates, Host)| {
            let same = |(a, b): (&Arc<NetState>, &Arc<NetState>)| Arc::ptr_eq(a, b);
            *host == self.host && old.keys().eq(states.keys()) && old.values().zip(states.values()).all(same)
        };
        if !self.audit && before.as_ref().is_some_and(is_same) {
            return;
        }
        let change = before
            .filter(|_| !self.audit)
            .and_then(|(old_states, old_host)| self.table.advance((&old_states, &old_host), (states, &self.host)));
        let mut steps = std::mem::take(&mut self.steps);
        let worked = match change {
            Some((ops, flows)) => {
                self.flows.extend(flows, &self.table);
                let worked = tokio::task::spawn_blocking(move || (carry_out(&mut steps, &ops), steps));
                worked.await.map(|(failed, steps)| {
                    self.steps = steps;
                    Ok(failed)
                })
            }
            None => {
                let (wanted, audit) = (table(states, &self.host), self.audit);
                let before = std::mem::replace(&mut self.table, wanted);
                self.flows.extend(ended(&before, &self.table), &self.table);
                let table = std::mem::take(&mut self.table);
                let worked = tokio::task::spawn_blocking(move || {
                    let failed = work(&mut steps, &table, &before, audit);
                    (table, failed, steps)
                });
                worked.await.map(|(table, failed, steps)| {
                    self.steps = steps;
                    if failed.is_ok() {
                        self.table = table;
                        self.next_audit = Instant::now() + AUDIT_TIME;
                    }
                    failed
                })
            }
        };
        match worked {
            Ok(Ok(failed)) => {
                self.audit = !failed.is_empty();
                troubles.extend(failed);
            }
            Ok(Err(error)) => self.begin_anew(troubles, error.to_string()),
            Err(error) => self.begin_anew(troubles, error.to_string()),
        }
    }

    /// Ends connections that the changes so far leave behind, unless that was done just before.
    async fn end_flows(&mut self, troubles: &mut Vec<String>) {
        let began = Instant::now();
        if self.flows.is_empty() || began < self.next_flows {
            return;
        }
        let flows = std::mem::take(&mut self.flows);
        match tokio::task::spawn_blocking(move || Kernel.end_flows(&flows)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(deleted)) => debug!(deleted, "connections of backends that left"),
            Ok(Err(error)) => troubles.push(error.to_string()),
            Err(error) => troubles.push(error.to_string()),
        }
        self.next_flows = Instant::now() + (began.elapsed() * FLOWS_REST).min(FLOWS_REST_MAX);
    }

    /// The next step reads the kernel and compares all of it.
    fn begin_anew(&mut self, troubles: &mut Vec<String>, error: String) {
        (self.audit, self.done) = (true, None);
        troubles.push(error);
    }

    /// True if rules in the engine's firewall chain are missing.
    async fn lacks_firewall_rules(&self) -> bool {
        let wanted: Vec<String> = self
            .table
            .items
            .keys()
            .filter_map(|item| if let Item::DockerUser(rule) = item { Some(rule.clone()) } else { None })
            .collect();
        if wanted.is_empty() {
            return false;
        }
        tokio::task::spawn_blocking(move || herder_net::lacks_rules(&wanted)).await.unwrap_or(true)
    }
}

/// True if the kernel has herder's tables: the host has not been rebooted since, and nobody has flushed them.
async fn kernel_has_tables() -> bool {
    let looked = tokio::task::spawn_blocking(|| Kernel.seen(&Table::default()));
    looked.await.is_ok_and(|seen| seen.is_ok_and(|items| items.contains_key(&Item::Base(Family::Ip))))
}

/// Brings the kernel to a table. Returns what could not be done.
fn work(steps: &mut Steps, wanted: &Table, before: &Table, audit: bool) -> Result<Vec<String>, herder_net::NetError> {
    let ops = match audit {
        false => plan(wanted, &before.items),
        true => {
            let seen = Kernel.seen(wanted)?;
            let missing = lost(&before.items, &wanted.items, &seen);
            if !missing.is_empty() {
                let first: Vec<String> = missing.iter().take(5).map(|item| item.to_string()).collect();
                warn!(
                    count = missing.len(),
                    first = first.join("; "),
                    "network state of herder was removed or changed; repairing it"
                );
            }
            plan(wanted, &seen)
        }
    };
    debug!(audit, "kernel tables are compared with what is wanted");
    let failed = carry_out(steps, &ops);
    let hairpins = Kernel.set_hairpins();
    if !hairpins.is_empty() {
        debug!(?hairpins, "bridge ports send frames back");
    }
    Ok(failed)
}

/// Carries out steps. Returns what could not be done.
fn carry_out(steps: &mut Steps, ops: &[Op]) -> Vec<String> {
    debug!(steps = ops.iter().map(count).sum::<usize>(), "kernel tables are updated");
    let failed = steps.carry_out(ops);
    failed.into_iter().map(|failed| format!("{}: {}", failed.step, failed.error)).collect()
}

fn count(op: &Op) -> usize {
    if let Op::Batch(_, ops) = op { ops.len() } else { 1 }
}

/// Returns items that were there, are still wanted, and are missing now.
fn lost<'i>(
    before: &'i BTreeMap<Item, Value>,
    wanted: &BTreeMap<Item, Value>,
    seen: &BTreeMap<Item, Value>,
) -> Vec<&'i Item> {
    let is_lost =
        |(item, value): &(&Item, &Value)| wanted.get(*item) == Some(*value) && seen.get(*item) != Some(*value);
    before.iter().filter(is_lost).map(|(item, _)| item).collect()
}

/// Passes on notices of changes in the kernel until the receiver is dropped.
fn notice(sender: &mpsc::Sender<Notice>) {
    let mut notices = match Notices::open() {
        Ok(notices) => notices,
        Err(error) => return warn!(%error, "changes of the kernel's network tables are seen by audits only"),
    };
    while !sender.is_closed() {
        for notice in notices.wait(Duration::from_secs(1)) {
            // Those that wait for room wait in the kernel, which tells when it had to drop some.
            if sender.blocking_send(notice).is_err() {
                return;
            }
        }
    }
}
