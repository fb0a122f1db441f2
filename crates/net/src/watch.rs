//! Notices of the kernel that something has changed.

use std::collections::BTreeMap;
use std::time::Duration;

use herder_decide::net::Item;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::NetError;
use crate::links::{DELETE_LINK, Links, NEW_LINK, is_ours, link_name};
use crate::netlink::{Bus, Received, Socket, is_own, u32_at};
use crate::routes::{DELETE_ADDRESS, DELETE_NEIGHBOUR, DELETE_ROUTE, DELETE_RULE, entry_item, is_our_route};

/// Groups of rtnetlink: links, neighbours, IPv4 addresses, routes and rules.
const ROUTE_GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80;
/// Group of nftables (number 7).
const NFT_GROUPS: u32 = 1 << 6;

/// A change in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Another program has changed something that may be herder's: the kernel is to be read.
    Changed,
    /// This entry is gone, by whomever.
    Gone(Item),
    /// Links have changed: ports of bridges come and go with containers.
    Links,
}

/// Stream of changes of links, neighbours, routes and nft tables. What this process changes is left out where the kernel tells.
#[derive(Debug)]
pub struct Notices {
    route: Socket,
    nft: Socket,
    /// Names of links, by index: notices about neighbours have indices alone.
    names: BTreeMap<u32, String>,
}

impl Notices {
    /// # Errors
    ///
    /// If netlink cannot be used.
    pub fn open() -> Result<Notices, NetError> {
        let (route, nft) = (Socket::listen(Bus::Route, ROUTE_GROUPS)?, Socket::listen(Bus::Netfilter, NFT_GROUPS)?);
        let links = Links::read(&mut Socket::open(Bus::Route)?)?;
        let names = links.by_index.into_iter().map(|(index, link)| (index, link.name)).collect();
        Ok(Notices { route, nft, names })
    }

    /// Blocks until something has changed, at most for `limit`.
    pub fn wait(&mut self, limit: Duration) -> Vec<Notice> {
        let limit = Timespec::try_from(limit).ok();
        let (route, nft) = (self.route.fd(), self.nft.fd());
        let mut fds = [PollFd::new(&route, PollFlags::IN), PollFd::new(&nft, PollFlags::IN)];
        // An interrupted wait has seen nothing.
        let _ = poll(&mut fds, limit.as_ref());
        let [is_route, is_nft] = [0, 1].map(|n: usize| !fds[n].revents().is_empty());
        drop((route, nft));
        let mut notices = Vec::new();
        if is_nft {
            // A full buffer is an error that says the same: something has changed.
            let is_foreign = self.nft.receive().map_or(true, |all| all.iter().any(|it| !is_own(it)));
            notices.extend(is_foreign.then_some(Notice::Changed));
        }
        if is_route {
            match self.route.receive() {
                Ok(all) => notices.extend(all.iter().filter_map(|it| self.of(it))),
                Err(_) => notices.push(Notice::Changed),
            }
        }
        notices.dedup();
        notices
    }

    fn of(&mut self, received: &Received) -> Option<Notice> {
        match received.kind {
            NEW_LINK => {
                self.names.insert(u32_at(&received.body, 4)?, link_name(received)?);
                Some(Notice::Links)
            }
            DELETE_LINK => {
                let name = self.names.remove(&u32_at(&received.body, 4)?)?;
                let is_herders = ['v', 'x', 'w'].iter().any(|kind| is_ours(&name, *kind));
                Some(if is_herders { Notice::Changed } else { Notice::Links })
            }
            DELETE_NEIGHBOUR => entry_item(received, |index| self.names.get(&index).cloned()).map(Notice::Gone),
            DELETE_ADDRESS => {
                let name = self.names.get(&u32_at(&received.body, 4)?)?;
                (is_ours(name, 'v') || is_ours(name, 'w')).then_some(Notice::Changed)
            }
            DELETE_ROUTE => (is_our_route(received) && !is_own(received)).then_some(Notice::Changed),
            DELETE_RULE => (!is_own(received)).then_some(Notice::Changed),
            _ => None,
        }
    }
}
