//! Plain containers of this node on networks of the swarm.
//!
//! The node says what it wants for a container ([`Attachments::ask`]) until the managers have it written down; they answer with what the
//! node is assigned. A new session begins with whatever was not answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herder_model::swarm::{Attached, Attachment, TaskRecord};
use tokio::sync::watch;
use tokio::time::timeout;

/// Time limit of a container that waits for its places: Docker's own for an attachment.
const ATTACH_TIME_MAX: Duration = Duration::from_secs(20);

/// Requested attachments by id. `None` says that the container is gone.
pub type AttachmentRequests = BTreeMap<String, Option<Attachment>>;

/// Records of the managers, by id.
pub type Records = BTreeMap<String, Arc<TaskRecord>>;

/// Handle on the attachments of a node. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Attachments {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wishes: watch::Sender<AttachmentRequests>,
    /// Attachments of the node; `None` until a leader has sent them.
    records: watch::Sender<Option<Records>>,
}

/// The managers have not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the managers of the swarm have not answered within {seconds} s", seconds = ATTACH_TIME_MAX.as_secs())]
pub struct NotAnswered;

impl Attachments {
    /// Takes over what the leader has for this node.
    pub fn take(&self, records: Records) {
        self.shared.wishes.send_if_modified(|wishes| {
            let count = wishes.len();
            wishes.retain(|id, wanted| !is_answered(records.get(id), wanted.as_ref()));
            wishes.len() != count
        });
        self.shared.records.send_if_modified(|known| known.replace(records.clone()).as_ref() != Some(&records));
    }

    /// Says what is wanted for a container, and does not wait.
    pub fn want(&self, id: &str, wanted: Attachment) {
        let is_known = self.shared.records.borrow().as_ref().is_some_and(|it| is_answered(it.get(id), Some(&wanted)));
        self.shared.wishes.send_if_modified(|wishes| match is_known {
            true => wishes.remove(id).is_some(),
            false => wishes.insert(id.to_owned(), Some(wanted.clone())) != Some(Some(wanted)),
        });
    }

    /// Says what is wanted for a container, and waits for the managers' record of it.
    ///
    /// # Errors
    ///
    /// The managers have not answered in time. What was wanted is forgotten then, if nothing of it was written before.
    pub async fn ask(&self, id: &str, wanted: Attachment) -> Result<Arc<TaskRecord>, NotAnswered> {
        let mut records = self.shared.records.subscribe();
        self.want(id, wanted.clone());
        let is_there = |it: &Option<Records>| it.as_ref().is_some_and(|it| is_answered(it.get(id), Some(&wanted)));
        if let Ok(Ok(known)) = timeout(ATTACH_TIME_MAX, records.wait_for(is_there)).await
            && let Some(record) = known.as_ref().and_then(|it| it.get(id))
        {
            return Ok(record.clone());
        }
        match self.record(id) {
            Some(before) => self.want(id, wanted_of(&before)),
            None => self.release(id),
        }
        Err(NotAnswered)
    }

    /// The container is gone, or was not made.
    pub fn release(&self, id: &str) {
        self.shared.wishes.send_if_modified(|wishes| wishes.insert(id.to_owned(), None) != Some(None));
    }

    /// The attachment of a container, with its id. What the node has said counts before what the managers have written.
    pub fn of(&self, container_id: &str) -> Option<(String, Attachment)> {
        let wishes = self.shared.wishes.borrow().clone();
        let told = wishes.iter().filter_map(|(id, it)| Some((id.clone(), it.clone()?)));
        let records = self.shared.records.borrow().clone().unwrap_or_default();
        let written = records.iter().filter(|(id, _)| !wishes.contains_key(*id));
        let mut all = told.chain(written.map(|(id, it)| (id.clone(), wanted_of(it))));
        all.find(|(_, it)| it.container_id == container_id)
    }

    pub fn record(&self, id: &str) -> Option<Arc<TaskRecord>> {
        self.shared.records.borrow().as_ref()?.get(id).cloned()
    }

    /// Watches the managers' records of this node; `None` before the first message of a leader.
    pub fn records(&self) -> watch::Receiver<Option<Records>> {
        self.shared.records.subscribe()
    }

    /// The wishes that the managers have not answered.
    pub fn wishes(&self) -> watch::Receiver<AttachmentRequests> {
        self.shared.wishes.subscribe()
    }
}

/// The wish of the node for a container, as the managers have recorded it.
pub fn wanted_of(record: &TaskRecord) -> Attachment {
    record.attached.as_ref().map(|it| it.wanted.clone()).unwrap_or_default()
}

fn is_answered(record: Option<&Arc<TaskRecord>>, wanted: Option<&Attachment>) -> bool {
    let known: Option<&Attached> = record.and_then(|it| it.attached.as_deref());
    known.map(|it| &it.wanted) == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str) -> Attachment {
        Attachment { container_name: name.into(), ..Attachment::default() }
    }

    fn records(names: &[&str]) -> Records {
        let record = |name: &&str| {
            let attached = Attached { wanted: wanted(name), ..Attached::default() };
            let record = TaskRecord { attached: Some(Arc::new(attached)), ..TaskRecord::default() };
            (format!("id-{name}"), Arc::new(record))
        };
        names.iter().map(record).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_is_told_until_the_managers_have_written_it() {
        let attachments = Attachments::default();
        attachments.take(Records::new());
        let asking = {
            let attachments = attachments.clone();
            tokio::spawn(async move { attachments.ask("id-web", wanted("web")).await })
        };
        let mut wishes = attachments.wishes();
        wishes.wait_for(|it| it.len() == 1).await.expect("it is told");
        attachments.take(records(&["other"]));
        assert!(!asking.is_finished());
        attachments.take(records(&["other", "web"]));
        assert_eq!(
            asking.await.expect("it ended").expect("it is there").attached,
            records(&["web"])["id-web"].attached
        );
        assert!(wishes.borrow().is_empty());
        // Nothing is told that is known.
        attachments.want("id-web", wanted("web"));
        assert!(wishes.borrow().is_empty());
        attachments.release("id-web");
        assert_eq!(*wishes.borrow(), AttachmentRequests::from([("id-web".into(), None)]));
        attachments.take(records(&["other"]));
        assert!(wishes.borrow().is_empty());
    }

    #[test]
    fn a_container_has_what_was_said_last() {
        let attachments = Attachments::default();
        attachments.take(records(&["web"]));
        assert_eq!(attachments.of("c1"), None);
        let made = Attachment { container_id: "c1".into(), ..wanted("web") };
        attachments.want("id-web", made.clone());
        assert_eq!(attachments.of("c1"), Some(("id-web".into(), made)), "the managers have not written it yet");
        attachments.release("id-web");
        assert_eq!(attachments.of("c1"), None);
        attachments.take(Records::new());
        assert_eq!(attachments.of("c1"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_without_an_answer_is_taken_back() {
        let attachments = Attachments::default();
        assert_eq!(attachments.ask("id-web", wanted("web")).await, Err(NotAnswered));
        assert_eq!(*attachments.wishes().borrow(), AttachmentRequests::from([("id-web".into(), None)]));
    }
}
