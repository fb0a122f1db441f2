//! Records of certificates and authorities, written in the term of the leader.

use std::sync::Arc;

use herder_model::swarm::{CertificateRecord, Kind};
use herder_model::swarm::{
    Change, Clock, Conflict, Resource, ResourceError, View, Word, authority_kind, certificate_kind,
};
use herder_store::{Store, StoreError};
use serde_json::Value;

use crate::Failed;

/// A record is written so often while others write it, too.
const ATTEMPTS_MAX: u32 = 5;

/// The managers' records as this leader writes them.
pub(crate) struct Book {
    pub(crate) store: Arc<Store>,
    pub(crate) term: u64,
    pub(crate) clock: Clock,
    pub(crate) new_id: fn() -> String,
}

impl Book {
    /// Seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        i64::try_from(self.clock.now().0 / 1_000_000_000).unwrap_or(i64::MAX)
    }

    pub(crate) async fn write(&self, name: &str, record: &CertificateRecord) -> Result<(), Failed> {
        let value = serde_json::to_value(record).map_err(|error| Failed::refused(error.to_string()))?;
        self.put(certificate_kind(), name, &value).await
    }

    /// Returns the stored state of an authority.
    pub(crate) fn authority(&self, name: &str) -> Option<Value> {
        let view = self.store.view();
        find(&view, authority_kind()?, name)?.read().ok()
    }

    pub(crate) async fn keep_authority(&self, name: &str, value: &Value) -> Result<(), Failed> {
        self.put(authority_kind(), name, value).await
    }

    /// Writes an object: the one of this name, or a new one.
    async fn put(&self, kind: Option<Word>, name: &str, value: &Value) -> Result<(), Failed> {
        let kind = kind.ok_or_else(|| Failed::refused("the kind has no name"))?;
        for attempt in 1.. {
            let view = self.store.view();
            let changed = match find(&view, kind, name) {
                Some(known) => {
                    let mut changed = Resource::clone(known);
                    changed.set(value).map(|()| changed)
                }
                None => Resource::new(kind, &(self.new_id)(), name, value),
            };
            let changed = changed.map_err(|error: ResourceError| Failed::refused(error.to_string()))?;
            match self.store.commit_in(self.term, vec![Change::from(changed)], self.clock.now()).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict(Conflict::Sequence { .. } | Conflict::Name { .. }))
                    if attempt < ATTEMPTS_MAX => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failed::away("others wrote it all the time"))
    }
}

fn find<'v>(view: &'v View, kind: Word, name: &str) -> Option<&'v Arc<Resource>> {
    view.resources.get(&kind)?.get(view.named(Kind::Resource(kind), name)?)
}
