//! `herder manage`: a pool of engines and a door to it, until somebody says stop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::FutureExt as _;
use herder_cli::ManageSettings;
use herder_decide::actions::conf::Conf;
use herder_decide::actions::members::Changes;
use herder_decide::naming::Naming;
use herder_decide::schedule::{Filter, Scheduler};
use herder_front::replica::Replica;
use herder_front::{Front, FrontSettings, server};
use herder_parts::Parts;
use herder_place::{Placer, reschedule};
use herder_pool::discovery::{Discovery, Election, Options, Role};
use herder_pool::{Pool, Settings, Way};
use herder_tls as tls;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::listen::{self, ServerTls};

/// Time for requests to finish after a stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(mut settings: ManageSettings, experimental: bool) -> anyhow::Result<()> {
    let scheduler = scheduler(&settings)?;
    let (conf, actions) = crate::actions::settings(&settings.actions)?;
    add_conf(&mut settings, &conf)?;
    let discovery = Discovery::parse(&settings.discovery, &Options::parse(&settings.discovery_options)?)?;
    let tls = ServerTls::of(settings.tls.as_ref())?;
    let way = match &settings.tls {
        None => Way::Plain,
        Some(files) => Way::Tls(Arc::new(tls::client(listen::pem(files))?)),
    };
    let mut listeners = Vec::new();
    for host in &settings.hosts {
        listeners.push(tls.bind(host).await?);
    }
    let pool_settings = Settings {
        overcommit: settings.overcommit,
        refresh_min: settings.refresh_min,
        refresh_max: settings.refresh_max,
        failure_retry: settings.failure_retry,
        way: way.clone(),
        naming: if settings.classic_names { Naming::Classic } else { Naming::Docker },
        ..Settings::default()
    };
    let pool = Pool::new(crate::actions::with_conf(&conf, pool_settings));
    let stop = CancellationToken::new();
    let front = Front::new(
        pool.clone(),
        scheduler,
        FrontSettings {
            cors: settings.cors,
            experimental,
            refresh_on_node_filter: settings.refresh_on_node_filter,
            container_name_refresh_filter: settings.container_name_refresh_filter,
            create_retry: settings.create_retry,
            ..listen::front_settings(&settings.endpoint)?
        },
    );
    front.set_actions(actions);
    let members = discovery.watch(settings.heartbeat, stop.clone());
    let parts = Parts::new(stop.clone());
    let changes = front.member_changes();
    let until = stop.clone();
    parts.until_done("pool members", move || {
        let work = follow_members(pool.clone(), members.clone(), changes.clone());
        until.clone().run_until_cancelled_owned(work).map(|_| ())
    });
    let election = match &settings.replication {
        None => None,
        Some((advertise, ttl)) => Some((advertise, Election::start(&discovery, advertise, *ttl, &stop)?)),
    };
    let (placer, until) = (front.placer.clone(), stop.clone());
    match &election {
        None => parts.restarted("rescheduling", move || reschedule::run(placer.clone(), until.clone())),
        Some((advertise, election)) => {
            let role = election.role();
            front.replicate(Replica::new(role.clone(), advertise, way));
            let work = move || reschedule_while_primary(placer.clone(), role.clone(), until.clone());
            parts.until_done("rescheduling", work)
        }
    };
    let mut door = tokio::spawn(server::serve(front, listeners, stop.clone()));
    let outcome = tokio::select! {
        signal = asked_to_stop() => signal,
        ended = &mut door => ended.map_err(Into::into).and_then(|()| bail!("the door closed by itself")),
    };
    info!("shutting down");
    if let Some((_, election)) = election {
        election.resign().await;
    }
    stop.cancel();
    if !door.is_finished() && timeout(SHUTDOWN_GRACE, door).await.is_err() {
        warn!(grace = ?SHUTDOWN_GRACE, "some requests did not finish in time");
    }
    outcome
}

/// DockerMod's own file: its engine, where discovery names none, and its port.
fn add_conf(settings: &mut ManageSettings, conf: &Conf) -> anyhow::Result<()> {
    if settings.discovery.is_empty() {
        let engine = conf.engine.clone();
        settings.discovery =
            engine.context("discovery required: neither the command line nor `dockerHost` names it")?;
    }
    settings.hosts.extend(conf.rest_port.map(|port| format!("tcp://0.0.0.0:{port}")));
    for (key, without) in [("hostname", conf.hostname.is_none()), ("clusterAddress", conf.cluster.is_none())] {
        if !without {
            warn!("{key} has no effect with `herder manage`: it is no node and has no event bus");
        }
    }
    Ok(())
}

/// Makes the members of the pool what discovery says, with what actions have changed about that.
async fn follow_members(
    pool: Arc<Pool>,
    mut members: watch::Receiver<Option<BTreeSet<String>>>,
    mut changes: watch::Receiver<Changes>,
) {
    loop {
        let current = members.borrow_and_update().clone();
        let changed = changes.borrow_and_update().clone();
        if let Some(current) = current {
            pool.set_members(&changed.apply(&current));
        }
        let news = tokio::select! {
            news = members.changed() => news,
            news = changes.changed() => news,
        };
        if news.is_err() {
            return;
        }
    }
}

/// Only one manager may move containers: two would make two of each.
pub(crate) async fn reschedule_while_primary(
    placer: Arc<Placer>,
    mut role: watch::Receiver<Role>,
    stop: CancellationToken,
) {
    while role.wait_for(|role| *role == Role::Primary).await.is_ok() {
        let term = stop.child_token();
        let work = reschedule::run(placer.clone(), term.clone());
        tokio::select! {
            () = work => return,
            lost = role.wait_for(|role| *role != Role::Primary) => {
                term.cancel();
                if lost.is_err() {
                    return;
                }
            }
        }
    }
}

pub(crate) async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ctrl_c = tokio::signal::ctrl_c() => ctrl_c?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn scheduler(settings: &ManageSettings) -> anyhow::Result<Scheduler> {
    let parse =
        |name: &String| name.parse::<Filter>().map_err(anyhow::Error::msg).with_context(|| format!("--filter {name}"));
    let filters: Vec<Filter> = settings.filters.iter().map(parse).collect::<Result<_, _>>()?;
    let strategy = settings.strategy.parse().map_err(anyhow::Error::msg);
    Ok(Scheduler {
        strategy: strategy.with_context(|| format!("--strategy {}", settings.strategy))?,
        filters: if filters.is_empty() { Filter::ALL.to_vec() } else { filters },
    })
}
