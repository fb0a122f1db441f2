//! `herder manage`: a pool of engines and a door to it, until somebody says stop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use herder_cli::{ManageSettings, TlsFiles};
use herder_decide::schedule::{Filter, Scheduler};
use herder_drivers::tls;
use herder_front::{Front, FrontSettings, reschedule, server};
use herder_pool::{Pool, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long requests may take to finish after a stop was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(settings: ManageSettings, experimental: bool) -> anyhow::Result<()> {
    let scheduler = scheduler(&settings)?;
    let members = static_members(&settings.discovery)?;
    let (server_tls, client_tls) = match &settings.tls {
        None => (None, None),
        Some(files) => {
            let (server, client) = tls_configs(files)?;
            (Some(Arc::new(server)), Some(Arc::new(client)))
        }
    };
    let mut listeners = Vec::new();
    for host in &settings.hosts {
        listeners.push(server::bind(host, server_tls.clone()).await?);
    }
    let pool = Pool::new(Settings {
        overcommit: settings.overcommit,
        refresh_min: settings.refresh_min,
        refresh_max: settings.refresh_max,
        failure_retry: settings.failure_retry,
        tls: client_tls,
        ..Settings::default()
    });
    pool.set_members(&members);
    let front = Front::new(
        pool,
        scheduler,
        FrontSettings {
            cors: settings.cors,
            experimental,
            refresh_on_node_filter: settings.refresh_on_node_filter,
            container_name_refresh_filter: settings.container_name_refresh_filter,
            create_retry: settings.create_retry,
        },
    );
    for listener in &listeners {
        info!(url = listener.url(), "listening");
    }
    let stop = CancellationToken::new();
    let rescheduler = tokio::spawn(reschedule::run(front.clone(), stop.clone()));
    let mut door = tokio::spawn(server::serve(front, listeners, stop.clone()));
    let outcome = tokio::select! {
        signal = asked_to_stop() => signal,
        ended = &mut door => ended.map_err(Into::into).and_then(|()| bail!("the door closed by itself")),
    };
    info!("shutting down");
    stop.cancel();
    if !door.is_finished() && timeout(SHUTDOWN_GRACE, door).await.is_err() {
        warn!(grace = ?SHUTDOWN_GRACE, "some requests did not finish in time");
    }
    rescheduler.abort();
    outcome
}

async fn asked_to_stop() -> anyhow::Result<()> {
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

fn tls_configs(files: &TlsFiles) -> Result<(rustls::ServerConfig, rustls::ClientConfig), tls::TlsError> {
    let ca = files.ca.as_deref().filter(|_| files.verify);
    let files = tls::Files { cert: &files.cert, key: &files.key, ca };
    Ok((tls::server(files)?, tls::client(files)?))
}

/// The members that a list names.
pub(crate) fn static_members(discovery: &str) -> anyhow::Result<BTreeSet<String>> {
    let list = discovery.strip_prefix("nodes://").unwrap_or(discovery);
    if let Some((scheme, _)) = list.split_once("://") {
        bail!("the discovery back end `{scheme}` is not built yet; use nodes://HOST:PORT,HOST:PORT");
    }
    let members: BTreeSet<String> =
        list.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect();
    if let Some(member) = members.iter().find(|member| !member.contains(':')) {
        bail!("address {member}: missing port in address, please check you are using the correct discovery");
    }
    Ok(members)
}
