//! Label sets as texts, in `labels.txt`: what is declared, and after `--` the routes and problems that it means.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use base64::Engine as _;
use herder_model::swarm::{Entrypoint, Resolver, Resource, Secret, SecretSpec};
use proptest::prelude::*;

use super::*;
use crate::endpoints::{Health, NetworkPlace, Port, PortMode, State, TaskEndpoint};
use crate::swarm::testing;

fn settings() -> IngressSettings {
    let entrypoint = |(name, address): (&str, &str)| {
        (name.to_owned(), Entrypoint { address: address.to_owned(), ..Entrypoint::default() })
    };
    let entrypoints = [("web", ":80"), ("websecure", ":443"), ("sql", ":5432"), ("dns", ":53/udp")];
    IngressSettings {
        entrypoints: entrypoints.map(entrypoint).into(),
        resolvers: [("le".to_owned(), Resolver::default()), ("default".to_owned(), Resolver::default())].into(),
        ..IngressSettings::default()
    }
}

/// `service web port=80,53/udp network=shop_front,back task`
fn service(line: &str) -> ServiceEndpoints {
    let mut words = line.split_whitespace();
    let name = words.next().expect("a name");
    let mut service =
        ServiceEndpoints { id: format!("id-{name}"), name: name.to_owned(), ..ServiceEndpoints::default() };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("port", ports) => service.ports.extend(ports.split(',').map(|it| {
                let (target, protocol) = it.split_once('/').unwrap_or((it, "tcp"));
                let target = target.parse().expect("a port");
                let protocol = protocol.to_owned();
                Port { name: String::new(), protocol, target, published: 0, mode: PortMode::Ingress }
            })),
            ("network", names) => {
                for name in names.split(',') {
                    let place = NetworkPlace { name: name.to_owned(), ..NetworkPlace::default() };
                    service.networks.insert(format!("n-{name}"), place);
                }
            }
            ("task", "") => {
                let address = |(at, id): (u8, &String)| (id.clone(), Ipv4Addr::new(10, 0, 1 - at, 2));
                // The last network by its name has 10.0.1, the one before 10.0.0.
                let addresses = (0..2).zip(service.networks.keys().rev()).map(address).collect();
                service.tasks.push(task(addresses));
            }
            ("stack", name) => drop(service.labels.insert("com.docker.stack.namespace".to_owned(), name.to_owned())),
            _ => {}
        }
    }
    service
}

fn task(addresses: BTreeMap<String, Ipv4Addr>) -> TaskEndpoint {
    TaskEndpoint {
        id: "t1".to_owned(),
        name: "web.1".to_owned(),
        node: "n1".to_owned(),
        hostname: "h1".to_owned(),
        node_address: None,
        container: "c1".to_owned(),
        addresses,
        ports: Vec::new(),
        health: Health::Unchecked,
        weight: 1,
        state: State::Serving,
    }
}

fn secret(name: &str) -> Option<String> {
    (name == "users").then(|| "# people\nalice:$apr1$x$y\n\nbob:{SHA}z\n".to_owned())
}

/// Prints the meaning of labels, one line for each route, service or problem.
fn meaning(services: Vec<ServiceEndpoints>) -> String {
    let (state, problems) = table_of(&settings(), &services, &secret, &|_| String::new());
    let mut text = String::new();
    for (name, it) in &state.routes {
        let _ = write!(text, "route {name}: {}", it.rule);
        let _ = write!(text, " → {}", it.service);
        let list = |it: &mut dyn Iterator<Item = &String>| it.cloned().collect::<Vec<_>>().join(",");
        let on = list(&mut it.entrypoints.iter());
        let _ = write!(text, " on={}", if on.is_empty() { "all" } else { &on });
        if it.priority != i64::try_from(it.rule.len()).unwrap() {
            let _ = write!(text, " priority={}", it.priority);
        }
        if it.old_syntax {
            text += " v2";
        }
        if !it.middlewares.is_empty() {
            let _ = write!(text, " by={}", it.middlewares.join(","));
        }
        if let Some(tls) = &it.tls {
            let _ = write!(text, " tls={}", if tls.passthrough { "passthrough" } else { &tls.resolver });
            if !tls.domains.is_empty() {
                let _ = write!(text, " for={}", tls.domains.join(","));
            }
        }
        text.push('\n');
    }
    for (name, it) in &state.middlewares {
        let _ = writeln!(text, "middleware {name}: {it}");
    }
    for (name, it) in &state.services {
        let of: Vec<&str> = it.of.iter().map(|it| it.trim_start_matches("id-")).collect();
        let _ = write!(text, "service {name}: {} of {}", it.port, of.join("+"));
        let words = [("scheme", &it.scheme), ("strategy", &it.strategy)];
        for (key, value) in words.iter().filter(|(_, value)| !value.is_empty() && *value != "http") {
            let _ = write!(text, " {key}={value}");
        }
        if !it.pass_host {
            text += " own-host";
        }
        if it.drain_ms != DRAIN_MS {
            let _ = write!(text, " drain={}ms", it.drain_ms);
        }
        if it.proxy_protocol != 0 {
            let _ = write!(text, " proxy={}", it.proxy_protocol);
        }
        let json = |it: serde_json::Result<String>| it.expect("JSON");
        if let Some(it) = &it.sticky {
            let _ = write!(text, " sticky={}", json(serde_json::to_string(it)));
        }
        if let Some(it) = &it.health {
            let _ = write!(text, " health={}", json(serde_json::to_string(it)));
        }
        for backend in it.backends.values() {
            let _ =
                write!(text, " {}", backend.addresses.values().map(ToString::to_string).collect::<Vec<_>>().join(","));
            if backend.weight != 1 {
                let _ = write!(text, "×{}", backend.weight);
            }
        }
        text.push('\n');
    }
    for problem in &problems {
        let _ = writeln!(text, "problem {problem}");
    }
    text
}

#[test]
fn labels_mean_routes_or_named_problems() {
    let cases = include_str!("labels.txt");
    let mut now = String::new();
    let mut count = 0;
    for case in cases.split("== ").skip(1) {
        count += 1;
        let (title, rest) = case.split_once('\n').expect("a title");
        let declared = rest.split("--\n").next().unwrap_or_default().trim_end();
        let mut services = Vec::new();
        for line in declared.lines() {
            if let Some(line) = line.strip_prefix("service ") {
                services.push(service(line));
                continue;
            }
            if services.is_empty() {
                services.push(service("web"));
            }
            let (key, value) = line.split_once('=').expect("a label");
            let last: &mut ServiceEndpoints = services.last_mut().expect("a service");
            last.labels.insert(key.to_owned(), value.to_owned());
        }
        let _ = write!(now, "== {title}\n{declared}\n--\n{}\n", meaning(services));
    }
    let head = cases.split("== ").next().unwrap_or_default();
    let now = format!("{head}{}\n", now.trim_end());
    let differs = cases.lines().zip(now.lines()).find(|(a, b)| a != b);
    assert!(now == cases, "first difference: {differs:?}\n<<<<\n{now}>>>>");
    assert!(count >= 150, "{count} cases");
}

/// Objects of a swarm, some of them in several states: `testing::object`, where other words of services are labels.
const OBJECTS: [&str; 18] = [
    "ingress web=:80",
    "ingress web=:80 other=:81",
    "secret users a:{SHA}x",
    "secret users b:{SHA}x",
    "node n1",
    "node n1 down",
    "node n2",
    "service web herder.http.host=a herder.http.port=80",
    "service web herder.http.host=b herder.http.port=80 herder.http.auth=users",
    "service web",
    "service shop herder.http.host=a herder.http.port=81",
    "service shop traefik.enable=true traefik.http.services.web.loadbalancer.server.port=80",
    "task web.1 on=n1 running",
    "task web.1 on=n1 running want=shutdown",
    "task web.1 on=n2 complete",
    "task web.2 on=n2 running",
    "task shop.1 on=n2 running",
    "task shop.1 pending",
];

/// A plain container. Nodes of tests have no address.
fn container(at: usize) -> ServiceEndpoints {
    let labels = [("herder.http.host".to_owned(), format!("p{at}")), ("herder.http.port".to_owned(), "80".to_owned())];
    let mut container = ServiceEndpoints { id: format!("c{at}"), labels: labels.into(), ..service("plain task") };
    container.tasks.iter_mut().for_each(|it| it.node.clear());
    ServiceEndpoints { is_container: true, ..container }
}

fn object(line: &str) -> Object {
    let words: Vec<&str> = line.split(' ').collect();
    let pairs = || words.iter().filter_map(|it| it.split_once('='));
    match words[0] {
        "ingress" => {
            let entrypoint = |address: &str| Entrypoint { address: address.to_owned(), ..Entrypoint::default() };
            let entrypoints = pairs().map(|(name, it)| (name.to_owned(), entrypoint(it))).collect();
            let settings = IngressSettings { entrypoints, ..IngressSettings::default() };
            let kind = ingress_kind().expect("a word");
            let resource = Resource::new(kind, INGRESS_ID, INGRESS_ID, &settings).expect("a resource");
            Object::Resource(Arc::new(resource))
        }
        "secret" => {
            let data = base64::engine::general_purpose::STANDARD.encode(words[2]);
            let spec = SecretSpec { name: words[1].to_owned(), data, ..SecretSpec::default() };
            Object::Secret(Arc::new(Secret { id: words[1].to_owned(), spec, ..Secret::default() }))
        }
        "service" => {
            let Object::Service(mut service) = testing::object(&words[..2].join(" ")) else { panic!("{line}") };
            let labels = pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            Arc::make_mut(&mut service).service.spec.labels = Some(labels);
            Object::Service(service)
        }
        _ => testing::object(line),
    }
}

proptest! {
    #[test]
    fn routes_kept_from_one_view_to_the_next_are_those_of_the_view(
        steps in prop::collection::vec(prop::collection::vec((0..OBJECTS.len(), prop::bool::weighted(0.8)), 1..4), 1..12),
    ) {
        // The settings of the ingress are one object.
        let key = |line: &str| line.split(' ').take(2).filter(|it| !it.contains('=')).collect::<String>();
        let first = ["ingress web=:80", "node n1", "node n2"].map(|it| (key(it), object(it)));
        let mut objects: BTreeMap<String, Object> = first.into();
        let (mut kept, mut plain) = (LeaderTable::default(), Vec::new());
        for (index, step) in (1..).zip(steps) {
            let mut touched = Touched::default();
            for (at, is_there) in step {
                let line = OBJECTS[at];
                let before = match is_there {
                    true => objects.insert(key(line), object(line)),
                    false => objects.remove(&key(line)),
                };
                before.iter().chain(objects.get(&key(line))).for_each(|it| _ = touched.see(it));
                plain = (0..at % 3).map(container).collect();
            }
            let view = View::of(index, objects.values().cloned());
            let state = kept.update(&view, &plain, &touched);
            prop_assert_eq!(state, table(&view, &plain).map(|(state, _)| state));
        }
    }
}
