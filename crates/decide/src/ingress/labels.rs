//! Routers, services and middlewares that the labels of one service declare, Traefik's or herder's own.

use std::collections::{BTreeMap, BTreeSet};

use herder_model::swarm::{Carried, HealthCheck, RouteTls, Sticky};
use serde_json::Value;

use super::middleware::{self, Read};
use super::native;
use super::options::Options;

/// The declarations of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Declared {
    pub(super) enable: Option<bool>,
    /// Name of the overlay network that its tasks are reached on.
    pub(super) network: Option<String>,
    pub(super) drain_ms: Option<u64>,
    pub(super) routers: BTreeMap<(Carried, String), Router>,
    pub(super) services: BTreeMap<(Carried, String), Service>,
    pub(super) middlewares: BTreeMap<String, Middleware>,
    /// Label, and what is wrong with it.
    pub(super) faults: Vec<(String, String)>,
}

/// One router of the labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Router {
    pub(super) rule: String,
    pub(super) old_syntax: bool,
    pub(super) entrypoints: BTreeSet<String>,
    pub(super) priority: i64,
    pub(super) service: String,
    pub(super) middlewares: Vec<String>,
    pub(super) tls: Option<RouteTls>,
    /// True for herder's own labels.
    pub(super) native: bool,
    /// One of its labels cannot be read: without it, the route could let in what it should not.
    pub(super) is_broken: bool,
}

/// One service of the labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Service {
    pub(super) port: Option<u16>,
    pub(super) scheme: String,
    pub(super) pass_host: Option<bool>,
    pub(super) weight: Option<u32>,
    pub(super) sticky: Option<Sticky>,
    pub(super) health: Option<HealthCheck>,
    pub(super) strategy: String,
    pub(super) proxy_protocol: u8,
    /// True for herder's own labels.
    pub(super) native: bool,
}

/// One middleware of the labels.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Middleware {
    Is(Value),
    /// Names of others.
    Chain(Vec<String>),
    /// The middleware cannot be used.
    Broken,
}

/// Finds out what labels declare. `secret` gives the text of a secret of the swarm.
pub(super) fn read(name: &str, labels: &BTreeMap<String, String>, secret: &dyn Fn(&str) -> Option<String>) -> Declared {
    let mut declared = Declared::default();
    let mut own = Options::default();
    let mut caddy = Options::default();
    let mut traefik = BTreeMap::new();
    for (label, value) in labels {
        let lower = label.to_ascii_lowercase();
        if let Some(rest) = lower.strip_prefix("herder.http.") {
            own.put(rest, label, value);
        } else if lower.starts_with("herder.tcp.") || lower.starts_with("herder.udp.") {
            let text = "is not supported yet; use traefik.tcp or traefik.udp labels";
            declared.faults.push((label.clone(), text.to_owned()));
        } else if lower == "caddy" || lower.starts_with("caddy.") || lower.starts_with("caddy_") {
            caddy.put(&lower, label, value);
        } else if lower == "traefik" || lower.starts_with("traefik.") {
            traefik.insert(label, value);
        }
    }
    read_traefik(name, traefik, secret, &mut declared);
    if !own.is_empty() {
        native::read(name, own, secret, &mut declared);
    }
    if !caddy.is_empty() {
        native::read_caddy(name, caddy, &mut declared);
    }
    declared
}

/// Options of one thing: `routers`, `services`, `middlewares`; what carries it; its name.
type Things = BTreeMap<(String, Carried, String), (String, Options)>;

fn read_traefik(
    name: &str,
    labels: BTreeMap<&String, &String>,
    secret: &dyn Fn(&str) -> Option<String>,
    declared: &mut Declared,
) {
    let mut things = Things::new();
    let mut top = Options::default();
    for (label, value) in labels {
        let lower = label.to_ascii_lowercase();
        let parts: Vec<&str> = label.splitn(5, '.').collect();
        let carries = match lower.split('.').nth(1).unwrap_or_default() {
            "http" => Carried::Http,
            "tcp" => Carried::Tcp,
            "udp" => Carried::Udp,
            "enable" | "docker" | "swarm" | "constraint-label" | "tags" if !is_version_1(&lower) => {
                top.put(lower.trim_start_matches("traefik."), label, value);
                continue;
            }
            _ if is_version_1(&lower) => {
                declared.faults.push((label.clone(), version_1(name, &lower, value)));
                continue;
            }
            _ => {
                let text = "is not understood; check its spelling, or remove it";
                declared.faults.push((label.clone(), text.to_owned()));
                continue;
            }
        };
        let kind = parts.get(2).map(|it| it.to_ascii_lowercase()).unwrap_or_default();
        let known = matches!(kind.as_str(), "routers" | "services" | "middlewares" | "serverstransports");
        let (Some(thing), Some(option), true) = (parts.get(3), parts.get(4), known) else {
            let text = "is not understood: it must be traefik.http.routers.NAME.OPTION, or services or middlewares";
            declared.faults.push((label.clone(), text.to_owned()));
            continue;
        };
        let prefix = format!("{}.{}.{}.{thing}", parts[0], parts[1], parts[2]);
        let entry = things.entry((kind, carries, (*thing).to_owned()));
        entry.or_insert_with(|| (prefix, Options::default())).1.put(option, label, value);
    }
    declared.enable = top.flag("enable");
    let network = top.text("docker.network");
    declared.network = top.text("swarm.network").or(network).filter(|it| !it.is_empty());
    // The virtual IP leads to all tasks in turn; so do routes, with the tasks that drain known.
    top.flag("docker.lbswarm");
    top.flag("swarm.lbswarm");
    // Constraints choose between several Traefiks; there is one ingress.
    top.text("constraint-label");
    top.text("tags");
    top.end(&mut declared.faults);
    for ((kind, carries, thing), (prefix, options)) in things {
        match kind.as_str() {
            "routers" => {
                let router = router(carries, options, &mut declared.faults);
                declared.routers.insert((carries, thing), router);
            }
            "services" => {
                if let Some(service) = service(&prefix, carries, options, &mut declared.faults) {
                    declared.services.insert((carries, thing), service);
                }
            }
            "middlewares" if carries == Carried::Http => {
                let middleware = match middleware::read(&prefix, options, secret, &mut declared.faults) {
                    Read::Middleware(it) => Middleware::Is(it),
                    Read::Chain(names) => Middleware::Chain(names),
                    Read::Nothing => Middleware::Broken,
                };
                declared.middlewares.insert(thing, middleware);
            }
            _ => {
                let text = "is not supported yet; it is not used";
                declared.faults.push((prefix, text.to_owned()));
                if kind == "middlewares" {
                    declared.middlewares.insert(thing, Middleware::Broken);
                }
            }
        }
    }
}

fn router(carries: Carried, mut options: Options, faults: &mut Vec<(String, String)>) -> Router {
    let entrypoints = options.list("entrypoints").unwrap_or_default();
    let mut router = Router {
        entrypoints: entrypoints.into_iter().collect(),
        service: options.text("service").unwrap_or_default(),
        ..Router::default()
    };
    if carries != Carried::Udp {
        router.rule = options.text("rule").unwrap_or_default();
        let syntax =
            options.read("rulesyntax", "syntax: write v3 or v2", |it| match it.to_ascii_lowercase().as_str() {
                "v2" => Some(true),
                "v3" | "default" => Some(false),
                _ => None,
            });
        router.old_syntax = syntax.unwrap_or_default();
        router.priority = options.number("priority").unwrap_or_default();
        router.middlewares = options.list("middlewares").unwrap_or_default();
        router.tls = tls(carries, &mut options);
    }
    let mut harmless = Options::default();
    if carries == Carried::Http {
        // What Traefik itself reports of a router.
        for (name, value) in options.named("observability.") {
            harmless.put("x", &format!("observability.{name}"), &value);
            harmless.not_yet("x");
        }
    }
    let before = faults.len();
    options.end(faults);
    router.is_broken = faults.len() > before;
    harmless.end(faults);
    router
}

fn tls(carries: Carried, options: &mut Options) -> Option<RouteTls> {
    if !options.has("tls") && !options.has_under("tls.") {
        return None;
    }
    let is_on = options.flag("tls").unwrap_or(true);
    let mut tls = RouteTls { resolver: options.text("tls.certresolver").unwrap_or_default(), ..RouteTls::default() };
    if carries == Carried::Tcp {
        tls.passthrough = options.flag("tls.passthrough").unwrap_or_default();
    }
    for (_, mut domain) in options.indexed("tls.domains") {
        tls.domains.extend(domain.text("main"));
        tls.domains.extend(domain.list("sans").unwrap_or_default());
        domain.not_yet("");
        options.faults.append(&mut domain.faults);
    }
    if options.has("tls.options") {
        options.not_yet("tls.options");
    }
    is_on.then_some(tls)
}

fn service(
    prefix: &str,
    carries: Carried,
    mut options: Options,
    faults: &mut Vec<(String, String)>,
) -> Option<Service> {
    if !options.has_under("loadbalancer") {
        faults.push((prefix.to_owned(), "has no loadbalancer: other kinds of services are not supported".to_owned()));
        return None;
    }
    let mut service = Service { port: port(&mut options, "loadbalancer.server.port"), ..Service::default() };
    match carries {
        Carried::Http => http_service(&mut options, &mut service),
        Carried::Tcp => {
            service.proxy_protocol = options
                .read("loadbalancer.proxyprotocol.version", "version: write 1 or 2", |it| match it {
                    "1" => Some(1),
                    "2" => Some(2),
                    _ => None,
                })
                .unwrap_or_default();
            if options.has("loadbalancer.proxyprotocol") && options.flag("loadbalancer.proxyprotocol") == Some(true) {
                service.proxy_protocol = 2;
            }
            options.not_yet("loadbalancer.terminationdelay");
            options.not_yet("loadbalancer.server.tls");
        }
        Carried::Udp => {}
    }
    options.end(faults);
    Some(service)
}

fn http_service(options: &mut Options, service: &mut Service) {
    let scheme = options.read("loadbalancer.server.scheme", "scheme: write http, https or h2c", |it| {
        ["http", "https", "h2c"].into_iter().find(|known| it.eq_ignore_ascii_case(known))
    });
    service.scheme = scheme.unwrap_or("http").to_owned();
    service.weight = options.number("loadbalancer.server.weight");
    service.pass_host = options.flag("loadbalancer.passhostheader");
    let strategies = ["wrr", "p2c", "hrw", "leasttime"];
    let strategy = options.read("loadbalancer.strategy", "strategy: write wrr, p2c, hrw or leasttime", |it| {
        strategies.into_iter().find(|known| it.eq_ignore_ascii_case(known))
    });
    service.strategy = strategy.filter(|it| *it != "wrr").unwrap_or_default().to_owned();
    // Answers are passed on as they come.
    options.milliseconds("loadbalancer.responseforwarding.flushinterval");
    options.not_yet("loadbalancer.serverstransport");
    options.not_yet("loadbalancer.passivehealthcheck");
    options.not_yet("loadbalancer.server.url");
    options.not_yet("loadbalancer.server.preservepath");
    service.sticky = sticky(options);
    service.health = health(options);
}

fn sticky(options: &mut Options) -> Option<Sticky> {
    let on = options.flag("loadbalancer.sticky");
    let cookie = options.flag("loadbalancer.sticky.cookie");
    let is_there = options.has_under("loadbalancer.sticky.cookie.") || on == Some(true) || cookie == Some(true);
    let prefix = "loadbalancer.sticky.cookie.";
    let sticky = Sticky {
        name: options.text(&format!("{prefix}name")).unwrap_or_default(),
        secure: options.flag(&format!("{prefix}secure")).unwrap_or_default(),
        http_only: options.flag(&format!("{prefix}httponly")).unwrap_or_default(),
        same_site: options
            .read(&format!("{prefix}samesite"), "value: write none, lax or strict", |it| {
                ["none", "lax", "strict"].into_iter().find(|known| it.eq_ignore_ascii_case(known))
            })
            .unwrap_or_default()
            .to_owned(),
        max_age: options.number(&format!("{prefix}maxage")).unwrap_or_default(),
        path: options.text(&format!("{prefix}path")).unwrap_or_default(),
        domain: options.text(&format!("{prefix}domain")).unwrap_or_default(),
    };
    (is_there && on != Some(false) && cookie != Some(false)).then_some(sticky)
}

/// Traefik's defaults.
const INTERVAL_MS: u64 = 30_000;
const TIMEOUT_MS: u64 = 5_000;

fn health(options: &mut Options) -> Option<HealthCheck> {
    let prefix = "loadbalancer.healthcheck.";
    if !options.has_under(prefix) {
        return None;
    }
    let of = |option: &str| format!("{prefix}{option}");
    let path = options.text(&of("path"));
    let check = HealthCheck {
        path: path.clone().unwrap_or_default(),
        port: port(options, &of("port")).unwrap_or_default(),
        interval_ms: options.milliseconds(&of("interval")).filter(|it| *it > 0).unwrap_or(INTERVAL_MS),
        timeout_ms: options.milliseconds(&of("timeout")).filter(|it| *it > 0).unwrap_or(TIMEOUT_MS),
        method: options.text(&of("method")).unwrap_or_default().to_ascii_uppercase(),
        status: options.number(&of("status")).unwrap_or_default(),
        hostname: options.text(&of("hostname")).unwrap_or_default(),
        headers: options.named(&of("headers.")),
    };
    for later in ["scheme", "mode", "followredirects", "unhealthyinterval"] {
        options.not_yet(&of(later));
    }
    if path.as_ref().is_none_or(|it| !it.starts_with('/')) {
        let label = "loadbalancer.healthcheck.path".to_owned();
        options.faults.push((label, "is missing or does not begin with /: tasks are not checked".to_owned()));
        return None;
    }
    Some(check)
}

fn port(options: &mut Options, option: &str) -> Option<u16> {
    options.read(option, "port", |it| it.parse().ok().filter(|it| *it != 0))
}

/// Labels that only version 1 has: `traefik.port`, `traefik.frontend.rule`, `traefik.SEGMENT.frontend.rule`.
fn is_version_1(lower: &str) -> bool {
    let mut parts = lower.split('.').skip(1);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let of_version_1 = |it: &str| matches!(it, "frontend" | "backend" | "port" | "protocol" | "weight" | "domain");
    of_version_1(first)
        || !matches!(first, "docker" | "swarm" | "http" | "tcp" | "udp") && second.is_some_and(of_version_1)
}

/// Names the label of version 3 that replaces one of version 1.
fn version_1(name: &str, lower: &str, value: &str) -> String {
    let now = if lower.ends_with("frontend.rule") {
        format!("traefik.http.routers.{name}.rule={}", rule_of_version_1(value))
    } else if lower.ends_with(".port") {
        format!("traefik.http.services.{name}.loadbalancer.server.port={value}")
    } else if lower.ends_with(".protocol") {
        format!("traefik.http.services.{name}.loadbalancer.server.scheme={value}")
    } else if lower.ends_with(".weight") {
        format!("traefik.http.services.{name}.loadbalancer.server.weight={value}")
    } else if lower.ends_with("frontend.entrypoints") {
        format!("traefik.http.routers.{name}.entrypoints={value}")
    } else if lower.ends_with("frontend.priority") {
        format!("traefik.http.routers.{name}.priority={value}")
    } else if lower.ends_with("frontend.passhostheader") {
        format!("traefik.http.services.{name}.loadbalancer.passhostheader={value}")
    } else if lower.ends_with("frontend.auth.basic") || lower.ends_with("frontend.auth.basic.users") {
        format!("traefik.http.middlewares.{name}-auth.basicauth.users={value}")
    } else if lower.ends_with("stickiness") {
        format!("traefik.http.services.{name}.loadbalancer.sticky.cookie=true")
    } else {
        return "is of Traefik v1, which is not read; docs/ingress.md names what replaces it".to_owned();
    };
    format!("is of Traefik v1, which is not read; write {now}")
}

/// `Host:a,b;PathPrefix:/x` in the language of version 3.
fn rule_of_version_1(rule: &str) -> String {
    let part = |part: &str| {
        let (name, values) = part.split_once(':')?;
        let matcher = match name.trim() {
            "PathPrefixStrip" | "PathPrefix" => "PathPrefix",
            "PathStrip" | "Path" => "Path",
            "Host" => "Host",
            "Method" => "Method",
            _ => return None,
        };
        let values: Vec<String> = values.split(',').map(|it| format!("{matcher}(`{}`)", it.trim())).collect();
        let joined = values.join(" || ");
        Some(if values.len() > 1 { format!("({joined})") } else { joined })
    };
    let parts: Option<Vec<String>> = rule.split(';').map(part).collect();
    parts.map_or_else(|| "…".to_owned(), |it| it.join(" && "))
}
