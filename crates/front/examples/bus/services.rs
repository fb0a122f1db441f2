//! An event bus with all its bridges and some services, as clients find it.
//!
//! Two buses are joined: the bridges are at the first one, the services at the second one, so that every answer crosses
//! a link.

use std::sync::Arc;
use std::time::Duration;

use herder_bus::bridge::{Bridge, Limits, Rules};
use herder_bus::memory::Mesh;
use herder_bus::{Bus, Headers, Settings};
use herder_decide::schedule::Scheduler;
use herder_front::{Front, FrontSettings, server};
use herder_pool::Pool;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Rules of clients here.
const RULES: &str = r#"{
    "inbound": [{"addressRegex": "test\\..*"}, {"address": "test-strict", "match": {"ok": true}}],
    "outbound": [{"addressRegex": "test\\..*"}, {"addressRegex": "herder\\.events\\..*"}]}"#;

/// Interval at which frames move between the two buses.
const DELIVER_PAUSE: Duration = Duration::from_millis(1);

/// Interval at which `test.clock` ticks.
const TICK: Duration = Duration::from_millis(200);

/// Serves until `stop`. Where the door and the TCP bridge listen.
pub(crate) async fn start(
    url: &str,
    tcp_address: &str,
    stop: &CancellationToken,
) -> Result<(String, String), Box<dyn std::error::Error>> {
    let mesh = Mesh::new(10_000);
    let (near, far) = (mesh.bus("near", Settings::default()), mesh.bus("far", Settings::default()));
    mesh.join(&near, &far);
    let bridge = Bridge::new(near, Rules::parse(RULES)?, Limits::default());
    let clients = server::bind(tcp_address, None).await?;
    let clients_at = clients.local_addr().map_or_else(|| tcp_address.to_owned(), |addr| addr.to_string());
    let front = Front::new(Pool::new(herder_pool::Settings::default()), Scheduler::default(), FrontSettings::default());
    front.open_bus(bridge.clone());
    let listener = server::bind(url, None).await?;
    let door = listener.local_addr().map_or_else(|| url.to_owned(), |addr| addr.to_string());
    tokio::spawn(server::serve_bus(bridge, clients, stop.clone()));
    tokio::spawn(server::serve(front, vec![listener], stop.clone()));
    tokio::spawn(async move {
        loop {
            mesh.deliver();
            tokio::time::sleep(DELIVER_PAUSE).await;
        }
    });
    tokio::spawn(answer(far.clone()));
    tokio::spawn(tick(far));
    Ok((door, clients_at))
}

/// `test.echo` answers with what it got, `test.fail` with a failure; `test.silent` never does, and `test.ask` asks back.
async fn answer(bus: Arc<Bus>) {
    let mut inbox = bus.inbox();
    for address in ["test.echo", "test.fail", "test.silent", "test.ask"] {
        if let Err(error) = inbox.register(address) {
            tracing::error!(%error, address, "cannot register");
        }
    }
    let mut kept = Vec::new();
    loop {
        let mut message = inbox.recv().await;
        match &*message.address {
            "test.echo" => {
                let (headers, body) = ((*message.headers).clone(), (*message.body).clone());
                message.reply(headers, body);
            }
            "test.fail" => message.fail(7, "will not"),
            "test.ask" => {
                let Some(way) = message.take_reply() else { continue };
                let bus = bus.clone();
                tokio::spawn(async move {
                    let answer = way.request(Headers::default(), json!("really?"), Duration::from_secs(5)).await;
                    let body = answer.map_or(json!("no answer"), |answer| (*answer.body).clone());
                    // Nobody may listen.
                    let _ = bus.publish("test.asked", Headers::default(), body);
                });
            }
            _ => kept.push(message),
        }
    }
}

/// `test.clock` and the events of containers count.
async fn tick(bus: Arc<Bus>) {
    for number in 0_u64.. {
        tokio::time::sleep(TICK).await;
        for address in ["test.clock", "herder.events.container"] {
            let _ = bus.publish(address, Headers::default(), json!({"number": number}));
        }
    }
}
