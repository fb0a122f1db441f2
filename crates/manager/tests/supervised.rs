//! A leader's loop that panics: it is started again, and goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use herder_manager::{LEADER, Manager, Said, Settings};
use herder_model::swarm::{
    Clock, Cluster, ClusterRecord, Hello, LEVEL, ManagerAddr, NodeDescription, Time, ToLeader, ToNode,
};
use herder_parts::{Fault, Parts};
use herder_store::{Store, Transport, TransportError};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Events of a test are awaited for this long.
const LIMIT: Duration = Duration::from_secs(60);

/// A transport for the only manager.
#[derive(Debug)]
struct Nobody;

impl Transport for Nobody {
    fn call<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: Bytes,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + 'a>> {
        Box::pin(async { Err(TransportError("there is nobody".into())) })
    }
}

/// A node's session: what it says goes in, what the leader says comes out.
type Session = (mpsc::Sender<Bytes>, Said);

/// Opens sessions until the leader welcomes one.
async fn welcomed(manager: &Arc<Manager>) -> Session {
    loop {
        let (say, said) = mpsc::channel::<Bytes>(8);
        let heard = stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
        let mut listen = manager.session("a", Box::pin(heard));
        let description = NodeDescription { hostname: "a".into(), ..NodeDescription::default() };
        let hello = Hello { addr: "127.0.0.1:1".into(), description, ..Hello::default() };
        let hello = serde_json::to_vec(&ToLeader::Hello(Box::new(hello))).expect("JSON");
        say.send(hello.into()).await.expect("it listens");
        let first = listen.recv().await.map(|message| serde_json::from_slice::<ToNode>(&message).expect("JSON"));
        if let Some(ToNode::Welcome(_)) = first {
            return (say, listen);
        }
    }
}

#[tokio::test]
async fn a_leader_whose_loop_ended_leads_again_within_five_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = herder_store::Settings::new(folder.path().join("store"), "m");
    let store = Store::open(settings, Arc::new(Nobody)).await.expect("opens");
    store.begin("m:1").await.expect("begins");
    let cluster = Cluster { id: "c".into(), ..Cluster::default() };
    store.commit(vec![ClusterRecord { cluster, ..ClusterRecord::default() }.into()], Time(1)).await.expect("written");
    let stop = CancellationToken::new();
    let parts = Parts::new(stop.clone());
    let me = ManagerAddr { id: "m".into(), addr: "m:1".into() };
    // Its sender lives as long as the manager, as that of a node does.
    let (_gossip, gossip) = watch::channel(Arc::default());
    let plain = watch::channel(Arc::default()).1;
    let settings = Settings { me, gossip, plain, clock: Clock::system(), new_id: || "id".to_owned(), level: LEVEL };
    let manager = Manager::start(store.clone(), settings, &parts);
    let mut session = timeout(LIMIT, welcomed(&manager)).await.expect("it leads");
    for fault in [Fault::Panic, Fault::Return, Fault::Panic] {
        assert!(parts.fault(LEADER, fault));
        // The loop that had this session is gone.
        let ended = async { while session.1.recv().await.is_some() {} };
        timeout(LIMIT, ended).await.expect("the session ends");
        session = timeout(LIMIT, welcomed(&manager)).await.expect("it leads again");
    }
    stop.cancel();
    assert!(parts.all_ended(LIMIT).await);
}
