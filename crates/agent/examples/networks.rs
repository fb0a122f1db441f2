//! Sets up overlay networks on one host from states in a file: `networks NODE ENGINE FOLDER STATES`. The file is a JSON object of
//! states by network id; it is read again when it changes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herder_agent::net::{NetSettings, Networks};
use herder_model::swarm::{NetBody, NetState, NetUpdate};
use herder_parts::Parts;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter("debug,hyper=off").with_writer(std::io::stderr).init();
    let words: Vec<String> = std::env::args().collect();
    if let [_, verb, _, socket, _, folder] = words.as_slice() {
        return match verb.as_str() {
            "net-tunnel" => Ok(herder_tunnel::serve(socket.as_ref(), folder.as_ref()).await?),
            _ => Ok(herder_dns::serve(socket.as_ref(), folder.as_ref(), CancellationToken::new()).await?),
        };
    }
    let [_, node, engine, folder, states] = words.as_slice() else {
        return Err("networks NODE ENGINE FOLDER STATES".into());
    };
    let settings = NetSettings {
        dns_command: vec![std::env::current_exe()?.into(), "net-dns".into()],
        tunnel_command: vec![std::env::current_exe()?.into(), "net-tunnel".into()],
        folder: PathBuf::from(folder),
    };
    let networks = Networks::default();
    networks.start(settings, engine, herder_agent::Way::Plain, node, &Parts::default());
    let mut before: BTreeMap<String, Arc<NetState>> = BTreeMap::new();
    let mut version = 0;
    loop {
        let text = tokio::fs::read(states).await?;
        let now: BTreeMap<String, Arc<NetState>> = serde_json::from_slice(&text).unwrap_or_else(|_| before.clone());
        if now != before {
            version += 1;
            for (id, state) in &now {
                let body = NetBody::Whole(Box::new((**state).clone()));
                let update = NetUpdate {
                    network_id: id.clone(),
                    results_in: version,
                    settled: version,
                    body,
                    ..NetUpdate::default()
                };
                networks.update(&update).map_err(|_| "a gap")?;
            }
            for id in before.keys().filter(|id| !now.contains_key(*id)) {
                networks.remove(id);
            }
            before = now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
