//! Tests that a table made from the one before is the table made from nothing.

use std::fmt::Write as _;

use herder_model::swarm::{Backend, BackendState, IngressApplied, IngressState, Upstream};
use proptest::prelude::*;
use serde_json::Value;
use tokio::sync::watch;

use super::*;
use crate::balance::{Service, Services};

const RULES: [&str; 6] = [
    "Host(`a`)",
    "Host(`a`) && PathPrefix(`/x`)",
    "Host(`a`) || Host(`b`)",
    "PathPrefix(`/x`)",
    "HostRegexp(`^.+$`)",
    "Later(`of a later release`)",
];

fn route() -> impl Strategy<Value = model::Route> {
    let carries = prop_oneof![8 => Just(Carried::Http), 1 => Just(Carried::Tcp), 1 => Just(Carried::Udp)];
    let middlewares = prop::collection::vec((0..3u8).prop_map(|it| format!("m{it}")), 0..2);
    let entrypoints = prop_oneof![Just(None), Just(Some("web")), Just(Some("other"))];
    (carries, 0..RULES.len(), 0..3i64, 0..4u8, middlewares, entrypoints).prop_map(
        |(carries, rule, priority, service, middlewares, entrypoint)| {
            let rule = match carries {
                Carried::Http => RULES[rule].to_owned(),
                Carried::Tcp => "HostSNI(`*`)".to_owned(),
                Carried::Udp => String::new(),
            };
            model::Route {
                carries,
                rule,
                priority,
                service: format!("s{service}"),
                entrypoints: entrypoint.into_iter().map(str::to_owned).collect(),
                middlewares,
                ..model::Route::default()
            }
        },
    )
}

fn upstream() -> impl Strategy<Value = Upstream> {
    let state = prop_oneof![Just(BackendState::Serving), Just(BackendState::Draining), Just(BackendState::Down)];
    let backend = state.prop_map(|state| Backend { state, weight: 1, ..Backend::default() });
    let backends = prop::collection::btree_map((0..4u8).prop_map(|it| format!("t{it}")), backend, 0..3);
    (backends, 80..82u16).prop_map(|(backends, port)| Upstream { backends, port, ..Upstream::default() })
}

fn middleware() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(serde_json::json!({"kind": "stripprefix", "prefixes": ["/x"]})),
        Just(serde_json::json!({"kind": "addprefix", "prefix": "/y"})),
        Just(serde_json::json!({"kind": "of a later release"})),
    ]
}

fn named<T: std::fmt::Debug>(
    letter: &'static str,
    count: u8,
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = BTreeMap<String, T>> {
    prop::collection::btree_map((0..count).prop_map(move |it| format!("{letter}{it}")), value, 0..usize::from(count))
}

prop_compose! {
    fn state()(
        routes in named("r", 6, route()),
        services in named("s", 3, upstream()),
        middlewares in named("m", 3, middleware()),
    ) -> IngressState {
        // A task that is in two services is the same task.
        let mut tasks: BTreeMap<String, Backend> = BTreeMap::new();
        let mut services = services;
        for (id, backend) in services.values_mut().flat_map(|it| it.backends.iter_mut()) {
            backend.clone_from(tasks.entry(id.clone()).or_insert_with(|| backend.clone()));
        }
        IngressState {
            routes: routes.into(),
            services: services.into(),
            middlewares: middlewares.into(),
            ..IngressState::default()
        }
    }
}

/// Everything that requests see of a table, as text.
fn shown(table: &Table) -> String {
    let mut text = String::new();
    let mut list = |name: &str, routes: &Ordered| {
        let _ = writeln!(text, "{name}:");
        for route in routes.0.iter() {
            let Route { name, is, broken, hosts, middlewares, .. } = &**route;
            let _ = write!(text, "{name} {is:?} {broken:?} {hosts:?} {middlewares:?}");
            for task in route.service.tasks().iter() {
                let _ = write!(text, " {} {}", task.id, Service::shown(task));
            }
            text.push('\n');
        }
    };
    let by_host: BTreeMap<&Arc<str>, &Ordered> = table.http.by_host.iter().collect();
    by_host.into_iter().for_each(|(host, routes)| list(host, routes));
    list("others", &table.http.others);
    list("tcp", &table.tcp);
    list("udp", &table.udp);
    let _ = write!(text, "{:?} {:?}", table.http.counts, table.challenges);
    text
}

/// A request for a path of a host.
struct Request {
    host: &'static str,
    path: &'static str,
}

impl Subject for Request {
    fn host(&self) -> &str {
        self.host
    }
    fn path(&self) -> &str {
        self.path
    }
    fn method(&self) -> &'static str {
        "GET"
    }
    fn header(&self, _: &str, _: &dyn Fn(&str) -> bool) -> bool {
        false
    }
    fn query(&self, _: &str, _: &dyn Fn(&str) -> bool) -> bool {
        false
    }
    fn client(&self) -> std::net::IpAddr {
        std::net::Ipv4Addr::LOCALHOST.into()
    }
    fn sni(&self) -> &'static str {
        ""
    }
    fn alpn(&self, _: &str) -> bool {
        false
    }
}

fn made(states: &[IngressState]) -> (Maker, Table) {
    let services = Services::new(watch::Sender::<IngressApplied>::default());
    let (mut maker, mut table) = (Maker::default(), Table::default());
    for state in states {
        table = maker.take(state, &services);
    }
    (maker, table)
}

proptest! {
    #[test]
    fn a_table_made_from_the_one_before_is_the_one_made_from_nothing(states in prop::collection::vec(state(), 1..6)) {
        let services = Services::new(watch::Sender::<IngressApplied>::default());
        let mut maker = Maker::default();
        for state in states {
            let table = maker.take(&state, &services);
            let (fresh, whole) = made(&[state]);
            prop_assert_eq!(shown(&table), shown(&whole));
            prop_assert_eq!(&maker.of_service, &fresh.of_service);
            prop_assert_eq!(&maker.of_middleware, &fresh.of_middleware);
        }
    }

    #[test]
    fn the_first_route_of_a_request_is_the_first_of_all_that_hold(state in state()) {
        let (maker, table) = made(&[state]);
        for (host, path) in [("a", "/"), ("a", "/x"), ("b", "/x"), ("c", "/x")] {
            let request = Request { host, path };
            let holds = |it: &&Arc<Route>| {
                it.is.carries == Carried::Http && it.is_of("web") && it.rule.as_ref().is_some_and(|it| it.holds(&request))
            };
            let first = maker.routes().filter(holds).min_by(|a, b| a.order().cmp(&b.order()));
            let found = table.find("web", false, &request);
            prop_assert_eq!(found.map(|it| &it.name), first.map(|it| &it.name));
        }
    }

    #[test]
    fn what_did_not_change_is_taken_over(states in prop::collection::vec(state(), 2)) {
        let [before, after] = [0, 1].map(|it| states[it].clone());
        let services = Services::new(watch::Sender::<IngressApplied>::default());
        let mut maker = Maker::default();
        maker.take(&before, &services);
        let routes: BTreeMap<String, Arc<Route>> = maker.routes().map(|it| (it.name.clone(), it.clone())).collect();
        maker.take(&after, &services);
        for route in maker.routes() {
            let same = |it: &&String| before.middlewares.get(*it) == after.middlewares.get(*it);
            let is_same = before.routes.get(&route.name) == Some(&route.is)
                && route.is.middlewares.iter().all(|it| same(&it))
                && before.services.contains_key(&route.is.service);
            prop_assert!(!is_same || Arc::ptr_eq(route, &routes[&route.name]), "{}", route.name);
        }
    }
}
