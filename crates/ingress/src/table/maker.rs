//! The maker of tables: each is made from the one before, at a cost in proportion to what changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use herder_decide::ingress::Middleware;
use herder_model::swarm::{self as model, IngressChanges, IngressState};

use super::{Route, Table};
use crate::balance::Services;
use crate::middleware::Compiled;
use crate::tls::Certificates;

/// The last table with what it was made of.
#[derive(Debug, Default)]
pub(crate) struct Maker {
    state: IngressState,
    table: Table,
    /// Keyed by name.
    routes: HashMap<String, Arc<Route>>,
    middlewares: HashMap<String, Arc<Compiled>>,
    /// Routes by the services and middlewares that they name.
    pub(super) of_service: Users,
    pub(super) of_middleware: Users,
}

/// Names of routes by the name of what they use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Users(HashMap<String, BTreeSet<String>>);

impl Maker {
    /// Compiles a state. Routes and middlewares that are the same as before are taken over: what a middleware counts goes on.
    pub(crate) fn take(&mut self, state: &IngressState, services: &Services) -> Table {
        let changes = IngressChanges::between(&self.state, state);
        // Tasks that drain take no new requests before the version is reported.
        let moved = services.update(state, &changes);
        let mut touched: BTreeSet<String> = changes.routes.put.keys().chain(&changes.routes.removed).cloned().collect();
        for name in &touched {
            if let Some(before) = self.state.routes.get(name) {
                self.of_service.remove(&before.service, name);
                before.middlewares.iter().for_each(|it| self.of_middleware.remove(it, name));
            }
        }
        touched.extend(moved.iter().flat_map(|it| self.of_service.of(it)).cloned());
        for (name, value) in &changes.middlewares.put {
            let middleware = serde_json::from_value::<Middleware>(value.clone()).ok();
            match middleware.and_then(Compiled::of) {
                Some(compiled) => drop(self.middlewares.insert(name.clone(), Arc::new(compiled))),
                None => drop(self.middlewares.remove(name)),
            }
            touched.extend(self.of_middleware.of(name).cloned());
        }
        for name in &changes.middlewares.removed {
            self.middlewares.remove(name);
            touched.extend(self.of_middleware.of(name).cloned());
        }
        for (name, route) in &changes.routes.put {
            self.of_service.put(&route.service, name);
            route.middlewares.iter().for_each(|it| self.of_middleware.put(it, name));
        }
        for name in touched {
            let before = self.routes.remove(&name);
            let after = state.routes.get(&name).and_then(|it| self.compiled(&name, it, services, before.as_ref()));
            match (&before, &after) {
                (Some(before), Some(after)) if Arc::ptr_eq(before, after) => {}
                _ => {
                    before.iter().for_each(|it| self.table.remove(it));
                    after.iter().for_each(|it| self.table.put(it));
                }
            }
            self.routes.extend(after.map(|it| (name, it)));
        }
        if let Some(settings) = &changes.settings {
            self.table.settings = Arc::new(settings.clone());
        }
        if !changes.certificates.put.is_empty() || !changes.certificates.removed.is_empty() {
            self.table.certificates = Arc::new(Certificates::of(&state.certificates));
        }
        self.table.challenges = state.challenges.clone();
        self.state = state.clone();
        self.table.clone()
    }

    /// All routes, for tests.
    #[cfg(test)]
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    /// Compiles a route, unless it is the same as before. None, if it cannot be used.
    fn compiled(
        &self,
        name: &str,
        is: &model::Route,
        services: &Services,
        before: Option<&Arc<Route>>,
    ) -> Option<Arc<Route>> {
        let service = services.get(&is.service)?;
        let middlewares: Vec<Arc<Compiled>> =
            is.middlewares.iter().filter_map(|it| self.middlewares.get(it)).cloned().collect();
        if let Some(before) = before.filter(|it| it.is_same(is, &service, &middlewares)) {
            return Some(before.clone());
        }
        let mut route = Route::of(name, is, service, middlewares)?;
        let missing = is.middlewares.iter().find(|it| !self.middlewares.contains_key(*it));
        route.broken = missing.map(|it| format!("the middleware {it} is not known to this release"));
        Some(Arc::new(route))
    }
}

impl Users {
    fn of(&self, used: &str) -> impl Iterator<Item = &String> {
        self.0.get(used).into_iter().flatten()
    }

    fn put(&mut self, used: &str, route: &str) {
        self.0.entry(used.to_owned()).or_default().insert(route.to_owned());
    }

    fn remove(&mut self, used: &str, route: &str) {
        if let Some(routes) = self.0.get_mut(used) {
            routes.remove(route);
            if routes.is_empty() {
                self.0.remove(used);
            }
        }
    }
}
