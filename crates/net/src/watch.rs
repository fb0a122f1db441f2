//! Notices of the kernel that something has changed.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::NetError;
use crate::netlink::{Bus, Socket};

/// Groups of rtnetlink: links, neighbours, IPv4 addresses, routes and rules.
const ROUTE_GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80;
/// Group of nftables (number 7).
const NFT_GROUPS: u32 = 1 << 6;

/// Stream of changes of links, neighbours, routes and nft tables by any program.
#[derive(Debug)]
pub struct Notices {
    route: Socket,
    nft: Socket,
}

impl Notices {
    /// # Errors
    ///
    /// If netlink cannot be used.
    pub fn open() -> Result<Notices, NetError> {
        Ok(Notices {
            route: Socket::listen(Bus::Route, ROUTE_GROUPS)?,
            nft: Socket::listen(Bus::Netfilter, NFT_GROUPS)?,
        })
    }

    /// Blocks until something has changed, at most for `limit`; true if something has.
    pub fn wait(&mut self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        let (route, nft) = (self.route.fd(), self.nft.fd());
        let mut fds = [PollFd::new(&route, PollFlags::IN), PollFd::new(&nft, PollFlags::IN)];
        let count = poll(&mut fds, limit.as_ref()).unwrap_or_default();
        let [is_route, is_nft] = [0, 1].map(|n: usize| !fds[n].revents().is_empty());
        drop((route, nft));
        // A full buffer is an error that says the same: something has changed.
        if is_route {
            let _ = self.route.receive();
        }
        if is_nft {
            let _ = self.nft.receive();
        }
        count > 0
    }
}
