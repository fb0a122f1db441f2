//! Changing the root of all certificates, and how long they are valid: as the swarm's leader says.
//!
//! A node that is told of a new root gets its certificate from it at once. Nodes that were not told yet trust it, because the
//! root before has signed the new one; and it trusts them, until it is told that all have changed.

use std::time::{Duration, SystemTime};

use herder_tls::certs::Pair;

use super::Link;
use crate::identity::IdentityError;

impl Link {
    /// Replaces the root of this node's certificate. Returns true if it had another one before. If the new one cannot
    /// be saved, nothing changes.
    pub fn adopt_root(&self, root: Pair, now: SystemTime) -> Result<bool, IdentityError> {
        self.change(|is| match is.shared.ca_certificate() == root.cert {
            true => Ok(None),
            false => is.rerooted(root, now).map(Some),
        })
    }

    /// All nodes have their certificates from this root: no other one is trusted any more. True if another one was.
    pub fn trust_only(&self, root: &str) -> Result<bool, IdentityError> {
        self.change(|is| Ok((is.is_between_roots() && is.shared.ca_certificate() == root).then(|| is.settled())))
    }

    /// Sets the lifetime of this node's certificates. Returns true if it changed.
    pub fn live_for(&self, lifetime: Duration, now: SystemTime) -> Result<bool, IdentityError> {
        self.change(|is| match is.lifetime() == lifetime {
            true => Ok(None),
            false => is.living(lifetime, now).map(Some),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::identity::{Identity, Shared};
    use crate::link::tests::{Host, first, greet, host, join};

    use super::*;

    async fn pair() -> (Host, Host) {
        let one = host(first("one")).await;
        let shared = join(&one.addr, &one.code, "two").await.unwrap();
        let two = host(shared).await;
        (one, two)
    }

    #[track_caller]
    fn adopts(host: &Host, root: &Pair) -> bool {
        host.link.adopt_root(root.clone(), SystemTime::now()).unwrap()
    }

    async fn both_talk(one: &Host, two: &Host) {
        assert_eq!(greet(&one.link, two, &two.id).await, Ok(one.id.clone()));
        assert_eq!(greet(&two.link, one, &one.id).await, Ok(two.id.clone()));
    }

    #[tokio::test]
    async fn nodes_talk_all_the_while_the_root_is_changed_and_then_the_old_one_is_of_no_use() {
        let (one, two) = pair().await;
        let left_behind =
            host(Identity::of("late", one.link.identity().shared.clone(), SystemTime::now()).unwrap()).await;
        let old = one.link.identity().trust_root().to_owned();
        let root = Shared::new_root(SystemTime::now()).unwrap();
        assert!(adopts(&one, &root) && !adopts(&one, &root));
        assert_eq!(one.link.identity().trust_root(), old);
        both_talk(&one, &two).await;
        assert!(adopts(&two, &root));
        both_talk(&one, &two).await;
        both_talk(&one, &left_behind).await;
        assert_eq!(one.link.identity().issuer().unwrap(), two.link.identity().issuer().unwrap());
        // Not what the leader means.
        assert!(!one.link.trust_only(&old).unwrap());
        assert!(one.link.trust_only(&root.cert).unwrap() && !one.link.trust_only(&root.cert).unwrap());
        both_talk(&one, &two).await;
        assert!(two.link.trust_only(&root.cert).unwrap());
        both_talk(&one, &two).await;
        assert_eq!(one.link.identity().trust_root(), root.cert);
        let error = greet(&left_behind.link, &one, &one.id).await.unwrap_err();
        assert!(error.contains("is no node of this pool"), "{error}");
        let error = greet(&one.link, &left_behind, &left_behind.id).await.unwrap_err();
        assert!(error.contains("is no node of this pool"), "{error}");
    }

    #[tokio::test]
    async fn newcomers_are_let_in_with_the_old_code_and_the_new_one_until_the_change_is_done() {
        let (one, two) = pair().await;
        let root = Shared::new_root(SystemTime::now()).unwrap();
        adopts(&one, &root);
        let new = one.link.identity().join_code().unwrap();
        assert!(new != one.code && new == two.link.identity().join_code_of(&root.cert).unwrap());
        for code in [&one.code, &new] {
            let shared = join(&one.addr, code, "three").await.unwrap();
            let three = host(shared).await;
            both_talk(&three, &two).await;
        }
        one.link.trust_only(&root.cert).unwrap();
        let error = join(&one.addr, &one.code, "late").await.unwrap_err().to_string();
        assert!(error.contains("the join code is of another pool"), "{error}");
        assert!(join(&one.addr, &new, "four").await.is_ok());
    }

    #[tokio::test]
    async fn a_second_change_follows_a_first_one_that_not_all_have_ended() {
        let (one, two) = pair().await;
        let roots = [Shared::new_root(SystemTime::now()).unwrap(), Shared::new_root(SystemTime::now()).unwrap()];
        for host in [&one, &two] {
            adopts(host, &roots[0]);
        }
        two.link.trust_only(&roots[0].cert).unwrap();
        adopts(&one, &roots[1]);
        both_talk(&one, &two).await;
        adopts(&two, &roots[1]);
        both_talk(&one, &two).await;
    }

    #[tokio::test]
    async fn a_change_is_kept_and_one_that_cannot_be_kept_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let link = Link::new(first("one"), folder.path().join("state")).unwrap();
        let root = Shared::new_root(SystemTime::now()).unwrap();
        let old = link.identity().join_code().unwrap();
        std::fs::write(folder.path().join("state"), "").unwrap();
        assert!(link.adopt_root(root.clone(), SystemTime::now()).is_err());
        assert!(link.live_for(Duration::from_secs(3600), SystemTime::now()).is_err());
        assert_eq!(link.identity().join_code().unwrap(), old);
        std::fs::remove_file(folder.path().join("state")).unwrap();
        let mut told = link.identities();
        assert!(link.adopt_root(root.clone(), SystemTime::now()).unwrap() && told.has_changed().unwrap());
        assert!(link.live_for(Duration::from_secs(3600), SystemTime::now()).unwrap());
        assert!(!link.live_for(Duration::from_secs(3600), SystemTime::now()).unwrap());
        told.mark_unchanged();
        let kept = Identity::load(&folder.path().join("state")).unwrap().unwrap();
        assert!(kept.is_between_roots() && kept.shared.ca_certificate() == root.cert);
        assert_eq!(kept.renew_at(), link.identity().renew_at());
        // Renewing and changing the code keep it.
        link.renew(SystemTime::now()).unwrap();
        link.rotate(SystemTime::now()).unwrap();
        assert!(link.identity().is_between_roots() && link.identity().lifetime() == Duration::from_secs(3600));
    }
}
