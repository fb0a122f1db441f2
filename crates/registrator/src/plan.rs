//! Wanted services against written ones → the writes that are due. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::service::Service;

/// Maximum number of services; further ones are logged and left out.
pub const SERVICES_MAX: usize = 10_000;

/// Rests between attempts at a store that does not take a write.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

/// A write to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Register(Service),
    Deregister(Service),
}

/// Services that shall be in the store, and those that are there as far as is known.
#[derive(Debug, Default)]
pub struct Books {
    /// Keyed by container.
    wanted: BTreeMap<String, Vec<Service>>,
    /// Keyed by id. False: it must be written again.
    written: BTreeMap<String, (Service, bool)>,
    /// Containers that failed: their services stay until their TTL, and are not renewed.
    dead: BTreeMap<String, ()>,
}

impl Books {
    /// A container runs and offers these; none of them means that nothing is to be registered.
    pub fn runs(&mut self, container: &str, services: Vec<Service>) -> bool {
        self.dead.remove(container);
        let others: usize =
            self.wanted.iter().filter(|(id, _)| *id != container).map(|(_, services)| services.len()).sum();
        if others + services.len() > SERVICES_MAX {
            return false;
        }
        if services.is_empty() {
            self.wanted.remove(container);
        } else {
            self.wanted.insert(container.to_owned(), services);
        }
        true
    }

    /// A container ended, and its services go.
    pub fn ended(&mut self, container: &str) {
        self.dead.remove(container);
        self.wanted.remove(container);
    }

    /// A container failed, and its services stay until their time runs out.
    pub fn failed(&mut self, container: &str) {
        if self.wanted.contains_key(container) {
            self.dead.insert(container.to_owned(), ());
        }
    }

    /// Containers that are known, the failed ones included.
    pub fn containers(&self) -> Vec<String> {
        self.wanted.keys().cloned().collect()
    }

    /// Returns the services whose health is sent to Consul, and those that are renewed.
    pub fn live(&self) -> impl Iterator<Item = &Service> {
        self.wanted.iter().filter(|(id, _)| !self.dead.contains_key(*id)).flat_map(|(_, services)| services)
    }

    /// Records an entry that an earlier run left behind. It is removed unless a container wants it.
    pub fn found(&mut self, service: Service) {
        let is_wanted = |wanted: &Service| wanted.id == service.id && wanted.name == service.name;
        if self.wanted.values().flatten().any(is_wanted) {
            return;
        }
        self.written.entry(service.id.clone()).or_insert((service, false));
    }

    /// Schedules all live services to be written again: their time must be renewed, or the store is in doubt.
    pub fn again(&mut self) {
        let live: Vec<String> = self.live().map(|service| service.id.clone()).collect();
        for id in live {
            if let Some((_, is_sure)) = self.written.get_mut(&id) {
                *is_sure = false;
            }
        }
    }

    /// The writes that are due. Services that go are first, so that a name moves from one container to another.
    pub fn due(&self) -> Vec<Write> {
        let wanted: BTreeMap<&str, &Service> =
            self.wanted.values().flatten().map(|service| (service.id.as_str(), service)).collect();
        let gone = self.written.iter().filter(|(id, (there, _))| match wanted.get(id.as_str()) {
            None => true,
            // A name or an address that changed is another key in some stores.
            Some(service) => place(service) != place(there),
        });
        let mut due: Vec<Write> = gone.map(|(_, (service, _))| Write::Deregister(service.clone())).collect();
        let dead = |service: &Service| self.dead.contains_key(&service.container);
        let missing = wanted.values().filter(|service| match self.written.get(&service.id) {
            None => !dead(service),
            Some((there, is_sure)) => there != **service || (!is_sure && !dead(service)),
        });
        due.extend(missing.map(|service| Write::Register((*service).clone())));
        due
    }

    /// A write was carried out.
    pub fn done(&mut self, write: &Write) {
        match write {
            Write::Register(service) => {
                self.written.insert(service.id.clone(), (service.clone(), true));
            }
            Write::Deregister(service) => {
                self.written.remove(&service.id);
            }
        }
    }
}

/// Returns the key of a service in any of the stores.
fn place(service: &Service) -> (&str, &str, u16) {
    (&service.name, &service.ip, service.port)
}

/// Returns the backoff after a number of failures in a row.
pub fn rest(failures: u32) -> Duration {
    REST_MIN.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(REST_MAX)
}

/// Returns whether an exit code counts as a success: 0, or killed by a signal.
pub fn ended_well(exit_code: i64) -> bool {
    exit_code == 0 || exit_code & 128 == 128
}
