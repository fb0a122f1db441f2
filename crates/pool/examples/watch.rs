//! Prints the nodes of a pool, their changes and their events: `cargo run -p herder-pool --example watch -- HOST:PORT …`.
#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use herder_model::Node;
use herder_pool::{Pool, Settings};
use tokio::sync::broadcast::error::RecvError;

#[tokio::main]
async fn main() {
    let pool = Pool::new(Settings::default());
    let (mut changes, mut events) = (pool.changes(), pool.events());
    pool.set_members(&std::env::args().skip(1).collect());
    let began = Instant::now();
    let mut shown = BTreeMap::new();
    loop {
        let at = || format!("{:9.3}", began.elapsed().as_secs_f64());
        for node in pool.nodes().iter() {
            let line = line(node);
            if shown.insert(node.addr.clone(), line.clone()).as_ref() != Some(&line) {
                println!("{} node  {line}", at());
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            event = events.recv() => match event {
                Ok(event) => println!(
                    "{} event {} {} {} {} {}",
                    at(),
                    event.node,
                    event.json["Type"].as_str().unwrap_or_default(),
                    event.json["Action"].as_str().unwrap_or_default(),
                    event.json["Actor"]["Attributes"]["name"].as_str().unwrap_or_default(),
                    event.json["from"].as_str().unwrap_or_default(),
                ),
                Err(RecvError::Lagged(missed)) => println!("{} event {missed} missed", at()),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

fn line(node: &Arc<Node>) -> String {
    let containers: Vec<String> =
        node.containers.values().map(|container| format!("{}={}", container.name, container.state)).collect();
    format!(
        "{} {} {} images {} networks {} volumes {} used {:?} [{}] {}",
        node.addr,
        node.name,
        node.state.as_str(),
        node.images.len(),
        node.networks.len(),
        node.volumes.len(),
        node.used,
        containers.join(" "),
        node.error.as_deref().unwrap_or_default(),
    )
}
