//! Tests that a table made from the one before is the table made from nothing.

use std::fmt::Write as _;

use herder_model::swarm::{Backend, BackendState, IngressApplied, Upstream};
use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::balance::Service;

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
    (carries, 0..RULES.len(), 0..3i64, 0..4u8, middlewares).prop_map(
        |(carries, rule, priority, service, middlewares)| {
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
        IngressState { routes, services, middlewares, ..IngressState::default() }
    }
}

/// Everything that requests see of a table, as text.
fn shown(table: &Table) -> String {
    let mut text = String::new();
    for route in table.http.all.iter().chain(&table.tcp).chain(&table.udp) {
        let _ =
            write!(text, "{} {:?} {:?} {:?} {:?}", route.name, route.is, route.broken, route.hosts, route.middlewares);
        for task in route.service.tasks().iter() {
            let _ = write!(text, " {} {}", task.id, Service::shown(task));
        }
        text.push('\n');
    }
    let by_host: BTreeMap<&Arc<str>, &Vec<usize>> = table.http.by_host.iter().collect();
    let _ = write!(text, "{by_host:?} {:?}", table.http.others);
    text
}

proptest! {
    #[test]
    fn a_table_made_from_the_one_before_is_the_one_made_from_nothing(states in prop::collection::vec(state(), 1..6)) {
        let fresh = || Services::new(watch::Sender::<IngressApplied>::default());
        let (services, mut table) = (fresh(), Table::default());
        for state in states {
            services.update(&state);
            table = Table::of(&state, &services, &table);
            let others = fresh();
            others.update(&state);
            prop_assert_eq!(shown(&table), shown(&Table::of(&state, &others, &Table::default())));
        }
    }

    #[test]
    fn what_did_not_change_is_taken_over(state in state()) {
        let services = Services::new(watch::Sender::<IngressApplied>::default());
        services.update(&state);
        let before = Table::of(&state, &services, &Table::default());
        services.update(&state);
        let after = Table::of(&state, &services, &before);
        for (name, route) in &after.routes {
            prop_assert!(Arc::ptr_eq(route, &before.routes[name]), "{}", name);
        }
    }
}
