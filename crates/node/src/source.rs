//! News of other nodes' engines.

use std::sync::Arc;

use futures_util::StreamExt as _;
use herder_pool::{Asking, Following, Part, Source};
use herder_wire::calls::{self, Calls, Peer, RereadRequest};

use crate::members::Directory;

/// Inventory of the other nodes, received over the node link.
pub struct NodeSource {
    directory: Arc<Directory>,
    calls: Arc<Calls>,
}

impl std::fmt::Debug for NodeSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeSource").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl NodeSource {
    pub fn new(directory: Arc<Directory>, calls: Arc<Calls>) -> NodeSource {
        NodeSource { directory, calls }
    }

    fn peer(&self, addr: &str) -> Result<Peer, String> {
        self.directory.at(addr).ok_or_else(|| format!("no node is known at {addr}"))
    }
}

impl Source for NodeSource {
    fn reports_on(&self, addr: &str) -> bool {
        addr != self.directory.here
    }

    fn follow<'s>(&'s self, addr: &'s str) -> Asking<'s, Following> {
        Box::pin(async move {
            let told = self.calls.follow(&self.peer(addr)?).await.map_err(|error| sentence(addr, &error))?;
            let news = told.map(|piece| {
                let piece = piece.map_err(|error| error.message().to_owned())?;
                serde_json::from_slice(&piece.news)
                    .map_err(|error| format!("the answer of the node is malformed: {error}"))
            });
            Ok(Box::pin(news) as Following)
        })
    }

    fn reread<'s>(&'s self, addr: &'s str, what: Part) -> Asking<'s, u64> {
        let request = RereadRequest { part: part(&what).into(), container: container(what) };
        Box::pin(async move {
            let reply = self.calls.reread(&self.peer(addr)?, request).await;
            Ok(reply.map_err(|error| sentence(addr, &error))?.number)
        })
    }
}

fn sentence(addr: &str, error: &calls::Status) -> String {
    format!("node {addr} cannot be asked: {}", error.message())
}

fn part(what: &Part) -> calls::Part {
    match what {
        Part::Container(_) => calls::Part::Container,
        Part::Images => calls::Part::Images,
        Part::Networks => calls::Part::Networks,
        Part::Volumes => calls::Part::Volumes,
        Part::All => calls::Part::All,
    }
}

fn container(what: Part) -> String {
    if let Part::Container(id) = what { id } else { String::new() }
}

/// Decodes the part that a peer asks to have read again.
pub fn wanted(request: RereadRequest) -> Part {
    match request.part() {
        calls::Part::Container => Part::Container(request.container),
        calls::Part::Images => Part::Images,
        calls::Part::Networks => Part::Networks,
        calls::Part::Volumes => Part::Volumes,
        calls::Part::All => Part::All,
    }
}
