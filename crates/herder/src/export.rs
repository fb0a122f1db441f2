//! `herder export`: stores that the leader of a swarm writes the services of all nodes into.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{anyhow, bail};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use herder_cli::ExportVerb;
use herder_docker::{Dial, Dialling, Duplex, EngineLink, Way, full};
use herder_front::Front;
use herder_front::swarm::export::{DueExports, due};
use herder_model::swarm::Export;
use herder_registrator::service::{Naming, Rules};
use herder_registrator::{Deregister, ForcedTags, Settings, Sink, SinkOptions, withdraw};
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::door::Door;
use crate::ingress::text;

const PATH: &str = "/herder/exports";
/// Interval at which a manager checks whether it leads, and what is to be exported.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Interval at which everything is written again: an earlier leader may have written after this one.
const RESYNC: Duration = Duration::from_secs(60);
/// Time limit for the removal of all entries of an export that is no longer wanted.
const WITHDRAW_TIME_MAX: Duration = Duration::from_secs(30);
const PIPE_BYTES: usize = 64 << 10;

pub(crate) async fn run(verb: ExportVerb) -> anyhow::Result<()> {
    let door = Door::of(verb.door())?;
    match verb {
        ExportVerb::Add(asked) => {
            let export = Export {
                uri: asked.uri,
                tags: asked.tags,
                naming: asked.naming,
                internal: asked.internal,
                explicit: asked.explicit,
            };
            sink(&export)?;
            let request = Request::post(PATH).header(header::CONTENT_TYPE, "application/json");
            let response = door.send(request.body(full(serde_json::to_vec(&export)?))?).await?;
            if !response.status().is_success() {
                return Err(door.refusal(response).await);
            }
            Ok(())
        }
        ExportVerb::Ls(asked) => {
            let all = door.ask(Method::GET, PATH).await?;
            match asked.format.as_str() {
                "json" => anstream::println!("{all}"),
                _ => anstream::println!("{}", table(&all)),
            }
            Ok(())
        }
        ExportVerb::Rm(asked) => {
            let all = door.ask(Method::GET, PATH).await?;
            let known = all.as_array().into_iter().flatten().find(|it| it["uri"] == json!(asked.uri));
            let Some(id) = known.map(|it| text(&it["ID"])) else {
                bail!("nothing is exported to {}; `herder export ls` shows the stores", asked.uri);
            };
            door.ask(Method::DELETE, &format!("{PATH}/{id}")).await.map(drop)
        }
    }
}

fn table(all: &Value) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["URI", "NAMING", "TAGS", "ONLY"]);
    for it in all.as_array().into_iter().flatten() {
        let only = if it["explicit"] == true { "with SERVICE_NAME" } else { "-" };
        table.add_row([text(&it["uri"]), text(&it["naming"]), text(&it["tags"]), only.to_owned()]);
    }
    table
}

/// Exports while this node leads its swarm, until `stop`.
pub(crate) async fn follow(front: Arc<Front>, stop: CancellationToken) {
    let mut ticks = interval(LOOK_PERIOD);
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let due = due(&front).await;
        let leads = due.is_some();
        let DueExports { exports, hosts } = due.unwrap_or(DueExports { exports: BTreeMap::new(), hosts: Vec::new() });
        let ended = running.extract_if(.., |id, it| exports.get(id) != Some(&it.export) || it.task.is_finished());
        for (id, it) in ended.collect::<Vec<_>>() {
            it.task.abort();
            // The next leader goes on with what this one has written.
            if leads && exports.get(&id) != Some(&it.export) {
                remove(&it.export, &hosts).await;
            }
        }
        for (id, export) in exports {
            if running.contains_key(&id) {
                continue;
            }
            info!(uri = export.uri, "services of all nodes are exported");
            let (front, hosts, wanted) = (Arc::downgrade(&front), hosts.clone(), export.clone());
            let task = tokio::spawn(async move {
                if let Err(error) = keep(front, &wanted, hosts).await {
                    warn!(uri = wanted.uri, %error, "services are not exported");
                    // Looked at again when something else is declared.
                    std::future::pending().await
                }
            });
            running.insert(id, Running { export, task });
        }
    }
    running.into_values().for_each(|it| it.task.abort());
}

struct Running {
    export: Export,
    task: JoinHandle<()>,
}

fn sink(export: &Export) -> anyhow::Result<Sink> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let files = ["CONSUL_CACERT", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"].map(variable);
    let consul_files = match files {
        [Some(ca), Some(certificate), Some(key)] => Some([ca, certificate, key].map(PathBuf::from)),
        _ => None,
    };
    let options = SinkOptions { ttl: 0, token: variable("CONSUL_HTTP_TOKEN"), consul_files, catalogue: None };
    Ok(Sink::parse(&export.uri, &options)?)
}

/// Keeps the services of all nodes in a store, until it is dropped.
async fn keep(front: Weak<Front>, export: &Export, hosts: Vec<String>) -> anyhow::Result<()> {
    let sink = sink(export)?;
    let legacy = export.naming == "legacy-2015";
    let settings = Settings {
        rules: Rules {
            internal: export.internal,
            explicit: export.explicit,
            naming: if legacy { Naming::Legacy2015 } else { Naming::V7 },
            ..Rules::default()
        },
        tags: ForcedTags::parse(&export.tags).map_err(|error| anyhow!("tags: {error}"))?,
        ttl_refresh: None,
        resync: Some(RESYNC),
        cleanup: hosts,
        deregister: Deregister::Always,
        many_hosts: true,
        retry_attempts: None,
        retry_interval: LOOK_PERIOD,
    };
    let link = EngineLink::new("herder", Way::Through(Arc::new(Inside(front))));
    Ok(herder_registrator::run(&link, &sink, &settings, &CancellationToken::new()).await?)
}

/// Removes the entries of an export.
async fn remove(export: &Export, hosts: &[String]) {
    let Ok(sink) = sink(export) else { return };
    match timeout(WITHDRAW_TIME_MAX, withdraw(&sink, hosts)).await {
        Ok(Ok(count)) => info!(uri = export.uri, count, "services are no longer exported"),
        Ok(Err(error)) => warn!(uri = export.uri, %error, "entries of services stay in the store"),
        Err(_) => warn!(uri = export.uri, "the store does not answer: entries of services stay in it"),
    }
}

/// The door of this node, reached without a socket.
#[derive(Debug)]
struct Inside(Weak<Front>);

impl Dial for Inside {
    fn dial<'d>(&'d self, _: &'d str) -> Dialling<'d> {
        Box::pin(async {
            let front = self.0.upgrade().ok_or(io::ErrorKind::NotConnected)?;
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            let service = service_fn(move |request: Request<Incoming>| {
                let front = front.clone();
                let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                async move { Ok::<_, std::convert::Infallible>(front.handle(request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
            tokio::spawn(served);
            Ok(Box::new(ours) as Box<dyn Duplex>)
        })
    }
}
