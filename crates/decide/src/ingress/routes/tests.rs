//! Tests that routes kept over changes are those computed anew.

use std::net::Ipv4Addr;

use herder_model::swarm::Entrypoint;
use proptest::prelude::*;

use super::*;
use crate::endpoints::{Health, Port, PortMode, State, TaskEndpoint};

/// Labels that share names, so that services depend on each other and contradict each other.
const LABELS: [&str; 22] = [
    "traefik.http.routers.a.rule=Host(`a`)",
    "traefik.http.routers.a.rule=Host(`b`)",
    "traefik.http.routers.b.rule=Host(`b`)",
    "traefik.http.routers.b.rule=Host(",
    "traefik.http.routers.a.service=s",
    "traefik.http.routers.b.service=s1",
    "traefik.http.routers.a.middlewares=m",
    "traefik.http.routers.a.middlewares=c@swarm",
    "traefik.http.routers.b.middlewares=c,n",
    "traefik.http.routers.b.entrypoints=web,none",
    "traefik.http.services.s.loadbalancer.server.port=80",
    "traefik.http.services.s.loadbalancer.server.port=81",
    "traefik.http.middlewares.m.stripprefix.prefixes=/x",
    "traefik.http.middlewares.m.addprefix.prefix=/y",
    "traefik.http.middlewares.n.forwardauth.address=http://s1:80/",
    "traefik.http.middlewares.n.errors.service=s",
    "traefik.http.middlewares.n.basicauth.users=wrong",
    "traefik.http.middlewares.c.chain.middlewares=m",
    "traefik.http.middlewares.c.chain.middlewares=n,m",
    "traefik.http.middlewares.c.chain.middlewares=c",
    "traefik.tcp.routers.a.rule=HostSNI(`*`)",
    "herder.http.host=h",
];

prop_compose! {
    fn service()(
        name in 0..3u8,
        labels in prop::collection::btree_set(0..LABELS.len(), 0..8),
        ports in prop::collection::vec(80..82u16, 0..2),
        tasks in prop::collection::vec((0..3u8, any::<bool>()), 0..2),
    ) -> ServiceEndpoints {
        let labels = labels.into_iter().filter_map(|it| LABELS[it].split_once('='));
        let labels = labels.chain([("traefik.enable", "true")]).map(|(key, value)| (key.to_owned(), value.to_owned()));
        let port = |target| Port {
            name: String::new(), protocol: "tcp".to_owned(), target, published: 0, mode: PortMode::Ingress,
        };
        let task = |(id, serves): (u8, bool)| TaskEndpoint {
            id: format!("t{id}"),
            name: String::new(),
            node: "n".to_owned(),
            hostname: String::new(),
            node_address: None,
            container: String::new(),
            addresses: [("net".to_owned(), Ipv4Addr::new(10, 0, 0, id))].into(),
            ports: Vec::new(),
            health: Health::Unchecked,
            weight: 1,
            state: if serves { State::Serving } else { State::Draining },
        };
        ServiceEndpoints {
            id: format!("id{name}"),
            name: format!("s{name}"),
            labels: labels.collect(),
            ports: ports.into_iter().map(port).collect(),
            tasks: tasks.into_iter().map(task).collect(),
            ..ServiceEndpoints::default()
        }
    }
}

fn fresh() -> Routes {
    let entrypoints = [("web".to_owned(), Entrypoint::default())].into();
    Routes::new(IngressSettings { entrypoints, ..IngressSettings::default() })
}

fn update(routes: &mut Routes, changed: impl IntoIterator<Item = (String, Option<ServiceEndpoints>)>) {
    routes.update(changed, &|_| None, &|node| format!("{node}:1"));
}

proptest! {
    #[test]
    fn routes_kept_over_changes_are_those_computed_anew(
        steps in prop::collection::vec(
            prop::collection::vec((0..4u8, prop::option::weighted(0.8, service())), 1..3),
            1..8,
        ),
    ) {
        let mut kept = fresh();
        let mut services: BTreeMap<String, ServiceEndpoints> = BTreeMap::new();
        for step in steps {
            let changed: Vec<_> = step.into_iter().map(|(key, it)| (format!("k{key}"), it)).collect();
            for (key, service) in &changed {
                match service {
                    Some(service) => drop(services.insert(key.clone(), service.clone())),
                    None => drop(services.remove(key)),
                }
            }
            update(&mut kept, changed);
            let mut anew = fresh();
            update(&mut anew, services.iter().map(|(key, it)| (key.clone(), Some(it.clone()))));
            prop_assert_eq!(kept.state(), anew.state());
            prop_assert_eq!(kept.problems(), anew.problems());
            prop_assert_eq!(&kept.upstream_uses, &anew.upstream_uses);
            prop_assert_eq!(&kept.middleware_uses, &anew.middleware_uses);
        }
        // Nothing of them is left when they are gone.
        update(&mut kept, services.into_keys().map(|it| (it, None)));
        prop_assert_eq!(format!("{kept:?}"), format!("{:?}", fresh()));
    }
}
