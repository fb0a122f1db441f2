//! `herder up`: a node of a pool without masters, until somebody says stop.

mod answers;
mod faults;
mod life;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use herder_cli::UpSettings;
use herder_decide::actions::conf::Conf;
use herder_front::{FrontSettings, server};
use herder_node::{NodeSettings, bus, identity, store, swarm};
use herder_wire::identity::Identity;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::listen::{self, ServerTls};
use crate::manage::asked_to_stop;
use faults::Faults;
use life::{Changed, Life, Plan, Why};

/// Time for requests to finish after a stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Time limit for the end of a life: leadership is handed over, other nodes are informed, discovery is updated.
const LIFE_END_MAX: Duration = Duration::from_secs(20);

/// Maximum number of restarts because of a failed part …
const FAILURES_MAX: usize = 5;

/// … in this time.
const FAILURES_WITHIN: Duration = Duration::from_secs(60);

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(mut settings: UpSettings, experimental: bool) -> anyhow::Result<()> {
    let (conf, actions) = crate::actions::settings(&settings.actions)?;
    add_conf(&mut settings, &conf);
    let strategy = settings.strategy.parse().map_err(anyhow::Error::msg);
    let strategy = strategy.with_context(|| format!("--strategy {}", settings.strategy))?;
    let node = node_settings(&settings);
    let rules = bus::rules(&node)?;
    let endpoint = FrontSettings { experimental, ..listen::front_settings(&settings.endpoint)? };
    let (plain, tls) = (ServerTls::default(), ServerTls::of(settings.tls.as_ref())?);
    let store = store::of(&node)?;
    let (standing, _) = watch::channel(swarm::JoinStatus::default());
    let plan = Plan { settings, node, endpoint, conf, actions, strategy, rules, tls, store, standing };
    // All but the first node of a new pool.
    let others = plan.settings.token.is_some() || Identity::load(&plan.settings.state)?.is_some();
    let identity = identity::of(&plan.node, plan.store.as_ref()).await?;
    let mut doors = Vec::new();
    for url in &plan.settings.listen {
        let tls = if url.starts_with("unix://") { &plain } else { &plan.tls };
        doors.push(tls.bind(url).await?);
    }
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let mut life = Life::begin(&plan, identity, others).await?;
    let (newest, fronts) = watch::channel(life.front.clone());
    notify_ready();
    let mut door = tokio::spawn(server::serve_newest(fronts, doors, stop.clone()));
    let mut signal = std::pin::pin!(asked_to_stop());
    let mut faults = Faults::new(&plan.settings.state)?;
    let mut failures = Failures::default();
    let outcome = loop {
        let (identity, why) = tokio::select! {
            signal = &mut signal => break signal,
            ended = &mut door => break ended.map_err(Into::into).and_then(|()| bail!("the endpoint closed by itself")),
            change = life.change() => match change {
                Changed::Identity(identity) => {
                    info!(node = identity.id, "this node continues in another pool");
                    (*identity, Why::Leaves)
                }
                Changed::Failed(ended) if failures.are_too_many(Instant::now()) => {
                    break Err(anyhow!("the part `{}` of this node ends again and again: {}", ended.part, ended.end));
                }
                Changed::Failed(ended) => {
                    warn!(part = ended.part, "restarting this node");
                    (life.identity(), Why::Failed)
                }
            },
            (part, fault) = faults.next() => {
                warn!(part, ?fault, done = life.fault(&part, fault), "a test makes a part fail");
                continue;
            }
        };
        if timeout(LIFE_END_MAX, life.end(why)).await.is_err() {
            bail!("the node did not end within {} s, and cannot be restarted", LIFE_END_MAX.as_secs());
        }
        life = Life::begin(&plan, identity, true).await?;
        newest.send_replace(life.front.clone());
    };
    info!("shutting down");
    stop.cancel();
    let requests = async {
        if !door.is_finished() && timeout(SHUTDOWN_GRACE, door).await.is_err() {
            warn!(grace = ?SHUTDOWN_GRACE, "some requests did not finish in time");
        }
    };
    let farewell = async {
        if timeout(LIFE_END_MAX, life.end(Why::Leaves)).await.is_err() {
            warn!(limit = ?LIFE_END_MAX, "the node did not end in time");
        }
    };
    tokio::join!(requests, farewell);
    outcome
}

fn node_settings(settings: &UpSettings) -> NodeSettings {
    NodeSettings {
        name: settings.name.clone(),
        join: settings.join.clone(),
        token: settings.token.clone(),
        discovery: settings.discovery.clone(),
        discovery_options: settings.discovery_options.clone(),
        advertise: settings.advertise.clone(),
        labels: settings.labels.clone(),
        state: settings.state.clone(),
        multicast: settings.multicast,
        cluster: settings.cluster.clone(),
        bus_rules: settings.bus_rules.clone(),
    }
}

/// The times at which parts failed so that the node had to begin anew.
#[derive(Debug, Default)]
struct Failures(VecDeque<Instant>);

impl Failures {
    /// Notes one. Too many in a short time: then the program ends, and what started it starts it again with all that it has.
    fn are_too_many(&mut self, now: Instant) -> bool {
        self.0.push_back(now);
        while self.0.front().is_some_and(|first| now.duration_since(*first) > FAILURES_WITHIN) {
            self.0.pop_front();
        }
        self.0.len() > FAILURES_MAX
    }
}

/// DockerMod's own file. Its name for the node gives way to the command line's; its other keys are meant as they are written.
fn add_conf(settings: &mut UpSettings, conf: &Conf) {
    settings.name = settings.name.take().or(conf.hostname.clone());
    if let Some(cluster) = &conf.cluster {
        settings.cluster.clone_from(cluster);
    }
    if let Some(engine) = &conf.engine {
        settings.engine.clone_from(engine);
    }
    settings.listen.extend(conf.rest_port.map(|port| format!("tcp://0.0.0.0:{port}")));
}

/// Notifies systemd, if it started this program (sd_notify(3)).
fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = || -> std::io::Result<()> {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        let text = path.to_string_lossy();
        if let Some(name) = text.strip_prefix('@') {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(b"READY=1\nSTATUS=serving", &address)?;
        } else {
            socket.send_to(b"READY=1\nSTATUS=serving", &path)?;
        }
        Ok(())
    };
    if let Err(error) = told() {
        warn!(%error, "cannot notify systemd that the node is up");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_begins_anew_five_times_a_minute() {
        let begin = Instant::now();
        let mut failures = Failures::default();
        let mut at = |seconds| failures.are_too_many(begin + Duration::from_secs(seconds));
        assert_eq!([0, 1, 2, 3, 4, 5].map(&mut at), [false, false, false, false, false, true]);
        assert!(!at(70), "the first ones are long ago");
    }
}
