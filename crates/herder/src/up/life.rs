//! One life of a node: with one identity, in one pool. A node that joins another pool begins anew, in the same program.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use herder_agent::net::NetSettings;
use herder_agent::{Agent, Uptime, Watchdog};
use herder_bus::bridge::Rules;
use herder_cli::UpSettings;
use herder_decide::actions::conf::Conf;
use herder_decide::schedule::{Filter, Scheduler, Strategy};
use herder_front::actions::ActionSettings;
use herder_front::{Front, FrontSettings, server};
use herder_node::bus::PoolBus;
use herder_node::members::{self, Directory};
use herder_node::peers::PoolPeers;
use herder_node::roads::{Gate, NodeDialler};
use herder_node::source::NodeSource;
use herder_node::swarm::{Door, Host, Standing, Surroundings};
use herder_node::{NodeSettings, code, identity, images, store};
use herder_place::peers::Templates;
use herder_pool::discovery::Discovery;
use herder_pool::{Pool, Settings, Source, Way};
use herder_wire::calls::Calls;
use herder_wire::gossip::{self, Gossip, Member};
use herder_wire::identity::Identity;
use herder_wire::link::Link;
use herder_wire::multicast;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::answers;
use crate::listen::ServerTls;
use crate::manage::reschedule_while_primary;

/// How long a node that goes may take to be taken off its store.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(5);

/// What all lives of a node have in common: what it was told when it was started.
pub(super) struct Plan {
    pub(super) settings: UpSettings,
    pub(super) node: NodeSettings,
    pub(super) endpoint: FrontSettings,
    pub(super) conf: Conf,
    pub(super) actions: ActionSettings,
    pub(super) strategy: Strategy,
    pub(super) rules: Rules,
    pub(super) tls: ServerTls,
    pub(super) store: Option<Discovery>,
    /// What the node is in a swarm.
    pub(super) standing: watch::Sender<Standing>,
}

pub(super) struct Life {
    pub(super) front: Arc<Front>,
    gossip: Arc<Gossip>,
    host: Arc<Host>,
    /// Other identities that this node shall have from now on.
    others: mpsc::Receiver<Identity>,
    stop: CancellationToken,
    link: JoinHandle<()>,
    in_store: Option<JoinHandle<()>>,
}

impl Life {
    /// `others`: whether the pool may have other nodes already.
    pub(super) async fn begin(plan: &Plan, identity: Identity, others: bool) -> anyhow::Result<Life> {
        let settings = &plan.settings;
        let code = identity.join_code()?;
        let me = identity.id.clone();
        let key = identity.shared.gossip_key;
        let advertise = identity::advertise(&plan.node)?;
        let here = advertise.to_string();
        let bind = SocketAddr::from(([0, 0, 0, 0], advertise.port()));
        let bind = if advertise.is_ipv6() { SocketAddr::from(([0u16; 8], advertise.port())) } else { bind };
        let listener = TcpListener::bind(bind).await;
        let listener = listener.with_context(|| format!("cannot listen for other nodes on {bind}"))?;
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let link = Link::new(identity, settings.state.clone())?;
        let directory = Arc::new(Directory::new(&me, &here, others));
        let dialler = NodeDialler::new(&settings.engine, link.clone(), directory.clone());
        let calls = Arc::new(Calls::new(link.clone()));
        let source: Arc<dyn Source> = Arc::new(NodeSource::new(directory.clone(), calls.clone()));
        let way = Way::Through(Arc::new(dialler));
        let pool_settings = Settings { way, source: Some(source), ..Settings::default() };
        let pool = Pool::new(crate::actions::paced(&plan.conf, pool_settings));
        let scheduler = Scheduler { strategy: plan.strategy, filters: Filter::ALL.to_vec() };
        let front = Front::new(pool.clone(), scheduler, plan.endpoint.clone());
        front.placer.join_peers(Arc::new(PoolPeers::new(directory.clone(), calls, &front.placer)));
        front.set_actions(plan.actions.clone());
        let bus = Arc::new(PoolBus::new(&me));
        let bridge = bus.bridge(plan.rules.clone());
        front.open_bus(bridge.clone());
        if let Some(addr) = &settings.bus_listen {
            let listener = plan.tls.bind(addr).await.context("--bus-listen")?;
            tokio::spawn(server::serve_bus(bridge, listener, stop.clone()));
        }
        tokio::spawn(link.clone().keep_renewed(stop.clone()));
        let member = Member { id: me.clone(), addr: advertise, generation: generation() };
        let seeds = identity::seeds(&plan.node, &code).await;
        if settings.multicast {
            tokio::spawn(answer_questions(link.clone(), advertise, stop.clone()));
        }
        let gossip = Gossip::start(member, key, bind, seeds, gossip::Settings::default(), stop.clone()).await?;
        let gossip = Arc::new(gossip);
        let (another, others) = mpsc::channel(1);
        let (facts, swarm_fact) = watch::channel(None);
        let images = Arc::new(images::FromOthers::new(&front.placer, &here));
        let agent = herder_agent::Settings {
            engine: settings.engine.trim_start_matches("tcp://").to_owned(),
            way: Way::Plain,
            node_id: me.clone(),
            folder: settings.state.clone(),
            generic_resources: Vec::new(),
            images,
            uptime: Uptime::system(),
            // Also when the file that this program was started from has been replaced meanwhile.
            watchdog: Some(Watchdog { program: "/proc/self/exe".into(), arguments: vec!["fence-watch".into()] }),
            clock: herder_model::swarm::Clock::system(),
        };
        let networks = NetSettings {
            dns_command: vec!["/proc/self/exe".into(), "net-dns".into()],
            folder: settings.state.clone(),
        };
        let (engine, way) = (agent.engine.clone(), agent.way.clone());
        let agent = Arc::new(Agent::start(agent, &stop));
        agent.networks().start(&networks, &engine, way, &me, &stop);
        let host = Host::start(
            Surroundings {
                state: settings.state.clone(),
                link: link.clone(),
                directory: directory.clone(),
                views: gossip.view(),
                agent,
                front: Arc::downgrade(&front.placer),
                another,
                standing: plan.standing.clone(),
                facts,
            },
            stop.clone(),
        )
        .await?;
        let door = Arc::new(Door(host.clone()));
        front.set_swarm(door.clone());
        tokio::spawn(herder_front::swarm::follow(front.clone(), stop.clone()));
        tokio::spawn(herder_front::stacks::follow(front.clone(), stop.clone()));
        let templates: Weak<dyn Templates> = Arc::downgrade(&(front.clone() as Arc<dyn Templates>));
        let gate = Gate::new(&settings.engine, &here, &front.placer, templates, bus.clone(), door);
        let serving = tokio::spawn(link.clone().serve(listener, stop.clone(), gate));
        let in_store = plan.store.clone();
        let in_store = in_store.map(|store| tokio::spawn(store::keep(store, advertise, gossip.clone(), stop.clone())));
        let teller = code::Teller::new(link.clone(), gossip.clone(), members::facts(&plan.node), swarm_fact);
        teller.tell().await.context("--label")?;
        tokio::spawn(teller.keep(stop.clone()));
        tokio::spawn(code::keep_keys(link.clone(), gossip.clone(), stop.clone()));
        info!(node = me, addr = here, "this node is up");
        let cluster = settings.cluster.clone();
        tokio::spawn(answers::answer(
            front.clone(),
            (bus.bus.clone(), link.clone()),
            cluster,
            here.clone(),
            stop.clone(),
        ));
        tokio::spawn(bus.clone().keep_links(link, directory.clone(), gossip.view(), stop.clone()));
        tokio::spawn(bus.clone().tell_events(pool.clone(), directory.clone(), stop.clone()));
        tokio::spawn(bus.tell_membership(pool.clone(), directory.clone(), gossip.view(), stop.clone()));
        tokio::spawn(members::follow(pool, directory.clone(), gossip.view(), stop.clone()));
        let role = members::rescheduler(gossip.view(), &me, stop.clone());
        tokio::spawn(reschedule_while_primary(front.placer.clone(), role, stop.clone()));
        tokio::spawn(herder_place::peers::report_duplicates(front.placer.clone(), stop.clone()));
        guard.disarm();
        Ok(Life { front, gossip, host, others, stop, link: serving, in_store })
    }

    /// Comes when this node is to be another one from now on.
    pub(super) async fn another(&mut self) -> Identity {
        match self.others.recv().await {
            Some(identity) => identity,
            None => std::future::pending().await,
        }
    }

    /// Says goodbye. When this returns, nothing listens for other nodes any more.
    pub(super) async fn end(self) {
        self.host.close_store().await;
        self.gossip.leave().await;
        self.stop.cancel();
        self.front.pool.set_members(&BTreeSet::new());
        let _ = self.link.await;
        // Whom a store still names is asked in vain by those who come.
        if let Some(in_store) = self.in_store
            && timeout(FAREWELL_TIME_MAX, in_store).await.is_err()
        {
            warn!(limit = ?FAREWELL_TIME_MAX, "the store does not answer; it names this node until its entry ends");
        }
    }
}

/// Newcomers know the pool by its root, which may be changed.
async fn answer_questions(link: Arc<Link>, here: SocketAddr, stop: CancellationToken) {
    let mut identities = link.identities();
    loop {
        let Ok(code) = identities.borrow_and_update().join_code() else { return };
        let asked_for_another = |it: &Arc<Identity>| it.join_code().is_ok_and(|it| !it.of_same_pool(&code));
        tokio::select! {
            answered = multicast::answer(&code, here, stop.clone()) => {
                if let Err(error) = answered {
                    warn!(%error, "other nodes cannot find this one by multicast");
                }
                return;
            }
            changed = identities.wait_for(asked_for_another) => if changed.is_err() { return },
        }
    }
}

/// A start is newer than all before it. Milliseconds since 1970; the clock of one host goes forward between two starts.
fn generation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
