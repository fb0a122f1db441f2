//! Changing the join code: here, or because another node tells that it was changed.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::{Current, Link};
use crate::JoinCode;
use crate::identity::IdentityError;
use crate::rotation::Rotation;

impl Link {
    /// Watches the rotation in force.
    pub fn rotations(&self) -> watch::Receiver<Rotation> {
        self.rotation.subscribe()
    }

    /// Makes a new join code. The old one lets nobody in any more; nodes that are in stay in. If the new one cannot be kept,
    /// the old one stays in force.
    pub fn rotate(&self, now: SystemTime) -> Result<JoinCode, IdentityError> {
        let _changing = self.changing.lock();
        let rotated = self.identity().rotated(self.identity().shared.rotation().next(now));
        rotated.save(&self.folder)?;
        let code = rotated.join_code()?;
        self.put_in_force(Current::new(rotated)?);
        Ok(code)
    }

    /// Adopts a rotation from another node. Returns true if it is newer than the one in force. It is then in force even
    /// if it cannot be saved; after a restart other nodes send it again.
    pub fn adopt(&self, rotation: Rotation) -> Result<bool, IdentityError> {
        let _changing = self.changing.lock();
        let identity = self.identity();
        if rotation <= identity.shared.rotation() {
            return Ok(false);
        }
        let rotated = identity.rotated(rotation);
        self.put_in_force(Current::new(rotated.clone())?);
        rotated.save(&self.folder)?;
        Ok(true)
    }

    pub(super) fn put_in_force(&self, current: Current) {
        let rotation = current.identity.shared.rotation();
        self.identities.send_replace(current.identity.clone());
        self.current.store(Arc::new(current));
        self.rotation.send_if_modified(|known| std::mem::replace(known, rotation) != rotation);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Identity;

    fn links(count: usize) -> (Vec<Arc<Link>>, Vec<tempfile::TempDir>) {
        let now = SystemTime::now();
        let first = Identity::first("first", now).unwrap();
        let one = |_| {
            let folder = tempfile::tempdir().unwrap();
            let identity = Identity::of("n", first.shared.clone(), now).unwrap();
            (Link::new(identity, folder.path().to_owned()).unwrap(), folder)
        };
        (0..count).map(one).unzip()
    }

    fn in_force(link: &Link) -> Rotation {
        let rotation = *link.rotations().borrow();
        assert_eq!(rotation, link.identity().shared.rotation());
        rotation
    }

    #[test]
    fn a_change_is_in_force_at_once_and_kept() {
        let (links, folders) = links(2);
        let old = links[0].identity().join_code().unwrap();
        let mut told = links[0].rotations();
        let code = links[0].rotate(SystemTime::now()).unwrap();
        assert!(code != old && code.of_same_pool(&old));
        assert!(told.has_changed().unwrap());
        let rotation = *told.borrow_and_update();
        assert!(links[1].adopt(rotation).unwrap());
        assert!(!links[1].adopt(rotation).unwrap());
        for (link, folder) in links.iter().zip(&folders) {
            assert_eq!(link.identity().join_code().unwrap(), code);
            let kept = Identity::load(folder.path()).unwrap().unwrap();
            assert_eq!((kept.join_code().unwrap(), &kept.id), (code.clone(), &link.identity().id));
        }
        // Renewing the certificate does not bring the old code back.
        links[0].renew(SystemTime::now()).unwrap();
        assert_eq!(links[0].identity().join_code().unwrap(), code);
    }

    #[test]
    fn a_change_that_cannot_be_kept_is_none_but_one_that_others_made_is() {
        let (links, folders) = links(2);
        let old = links[1].identity().join_code().unwrap();
        let told = links[0].rotate(SystemTime::now()).unwrap();
        // A file where the folder should be.
        std::fs::remove_dir_all(folders[1].path()).unwrap();
        std::fs::write(folders[1].path(), "").unwrap();
        assert!(links[1].rotate(SystemTime::now()).is_err());
        assert_eq!(links[1].identity().join_code().unwrap(), old);
        assert!(links[1].adopt(in_force(&links[0])).is_err());
        assert_eq!(links[1].identity().join_code().unwrap(), told);
        std::fs::remove_file(folders[1].path()).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Applies changes at any nodes, sent in any order, some of them never directly.
        #[test]
        fn all_nodes_agree_on_the_newest_whatever_the_order(
            changes in prop::collection::vec((0..4usize, 0..3u64), 1..5),
            tellings in prop::collection::vec((0..4usize, 0..4usize), 0..10),
        ) {
            let (links, _folders) = links(4);
            let mut tellings = tellings.into_iter();
            let began = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1000);
            let mut newest = in_force(&links[0]);
            for (node, after) in changes {
                links[node].rotate(began + std::time::Duration::from_millis(after)).unwrap();
                newest = newest.max(in_force(&links[node]));
                for (from, to) in tellings.by_ref().take(2) {
                    links[to].adopt(in_force(&links[from])).unwrap();
                }
            }
            // In the end everybody hears of everybody, once around is not enough for a chain of one direction.
            for from in (0..4).chain(0..4) {
                let told = in_force(&links[from]);
                links[(from + 1) % 4].adopt(told).unwrap();
            }
            for link in &links {
                prop_assert_eq!(in_force(link), newest);
            }
        }
    }
}
