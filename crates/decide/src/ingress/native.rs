//! herder's own short labels, and the one pair of caddy-docker-proxy's that is read.

use herder_model::swarm::{Carried, HealthCheck, RouteTls, Sticky};
use serde_json::{Value, json};

use super::labels::{Declared, Middleware, Router, Service};
use super::options::Options;

/// The resolver of `tls=auto`.
pub const DEFAULT_RESOLVER: &str = "default";
const INTERVAL_MS: u64 = 10_000;
const TIMEOUT_MS: u64 = 5_000;
const SECOND_MS: u64 = 1000;

/// Reads `herder.http.*`. The route, its service and its middlewares are named after the service.
pub(super) fn read(name: &str, mut options: Options, secret: &dyn Fn(&str) -> Option<String>, declared: &mut Declared) {
    let hosts = options.list("host").unwrap_or_default();
    let path = options.text("path").unwrap_or_default();
    let rule = rule(&hosts, &path);
    let mut router = Router { rule, service: name.to_owned(), native: true, ..Router::default() };
    let mut usable = true;
    if router.rule.is_empty() {
        options
            .faults
            .push(("herder.http.host".to_owned(), "is missing: nothing is routed to this service".to_owned()));
        usable = false;
    }
    let tls = options.text("tls");
    let (tls, is_explicit) = match tls.as_deref() {
        None => (None, false),
        Some("off" | "") => (None, true),
        Some("auto") => (Some(RouteTls { resolver: DEFAULT_RESOLVER.to_owned(), ..RouteTls::default() }), true),
        // A certificate that was imported: it is found by its names.
        Some(_) => (Some(RouteTls::default()), true),
    };
    let scheme = "http".to_owned();
    let mut service = Service { port: options.number("port"), scheme, native: true, ..Service::default() };
    match options.text("proto").as_deref() {
        None | Some("http" | "") => {}
        Some("h2c" | "grpc") => service.scheme = "h2c".to_owned(),
        Some("https") => service.scheme = "https".to_owned(),
        Some(other) => {
            let text = format!("{other:?} is no protocol: write http, https, h2c or grpc");
            options.faults.push(("herder.http.proto".to_owned(), text));
            usable = false;
        }
    }
    if let Some(sticky) = options.text("sticky").filter(|it| it != "false") {
        let name = if sticky == "true" { String::new() } else { sticky };
        service.sticky = Some(Sticky { name, http_only: true, ..Sticky::default() });
    }
    if let Some(path) =
        options.read("health", "path: it begins with /", |it| it.starts_with('/').then(|| it.to_owned()))
    {
        let check = HealthCheck { path, interval_ms: INTERVAL_MS, timeout_ms: TIMEOUT_MS, ..HealthCheck::default() };
        service.health = Some(check);
    }
    declared.drain_ms = options.milliseconds("drain");
    let middleware = |declared: &mut Declared, kind: &str, value: Option<Value>| {
        let own = format!("{name}-{kind}");
        declared.middlewares.insert(own.clone(), value.map_or(Middleware::Broken, Middleware::Is));
        own
    };
    let mut names = Vec::new();
    if let Some(ranges) = options.list("allow") {
        let nets = ranges.iter().map(|it| {
            it.parse::<ipnet::IpNet>().ok().or_else(|| it.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from))
        });
        let nets: Option<Vec<ipnet::IpNet>> = nets.collect();
        if nets.is_none() {
            options.faults.push(("herder.http.allow".to_owned(), "has what is no address and no CIDR".to_owned()));
        }
        names.push(middleware(declared, "allow", nets.map(|ranges| json!({"kind": "ipallowlist", "ranges": ranges}))));
    }
    if let Some(limit) = options.text("limit") {
        let value = rate(&limit).map(|(average, period_ms)| {
            json!({"kind": "ratelimit", "average": average, "period_ms": period_ms, "burst": average})
        });
        if value.is_none() {
            let text = format!("{limit:?} is no rate: write 100/s, 100/m or 100/h");
            options.faults.push(("herder.http.limit".to_owned(), text));
        }
        names.push(middleware(declared, "limit", value));
    }
    if let Some(auth) = options.text("auth") {
        let users = secret(&auth).map(|text| {
            let lines = text.lines().map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        });
        if users.as_ref().is_none_or(Vec::is_empty) {
            let text = format!("{auth} is no secret of the swarm with lines of htpasswd");
            options.faults.push(("herder.http.auth".to_owned(), text));
        }
        let value = users.filter(|it| !it.is_empty());
        let value = value.map(|users| json!({"kind": "basicauth", "users": users, "realm": name}));
        names.push(middleware(declared, "auth", value));
    }
    let redirects = options.read("redirect", "redirect: write https", |it| (it == "https").then_some(())).is_some();
    options.end(&mut declared.faults);
    declared.services.insert((Carried::Http, name.to_owned()), service);
    if !usable {
        return;
    }
    router.middlewares = names;
    if redirects {
        let value = json!({"kind": "redirectscheme", "scheme": "https", "permanent": true});
        let redirect = middleware(declared, "redirect", Some(value));
        let plain = Router { middlewares: vec![redirect], ..router.clone() };
        declared.routers.insert((Carried::Http, name.to_owned()), plain);
    } else {
        declared.routers.insert((Carried::Http, name.to_owned()), router.clone());
    }
    if tls.is_some() || redirects && !is_explicit {
        let tls = Some(tls.unwrap_or_default());
        declared.routers.insert((Carried::Http, format!("{name}-tls")), Router { tls, ..router });
    }
}

fn rule(hosts: &[String], path: &str) -> String {
    let hosts: Vec<String> = hosts.iter().map(|it| format!("Host(`{}`)", it.replace('`', ""))).collect();
    let path = match path {
        "" | "/" => String::new(),
        path => format!("PathPrefix(`{}`)", path.replace('`', "")),
    };
    match (&hosts[..], path.as_str()) {
        ([], _) => path,
        ([one], "") => one.clone(),
        ([one], path) => format!("{one} && {path}"),
        (several, "") => several.join(" || "),
        (several, path) => format!("({}) && {path}", several.join(" || ")),
    }
}

/// `100/s` as requests and milliseconds.
fn rate(text: &str) -> Option<(u64, u64)> {
    let (average, unit) = text.split_once('/')?;
    let period = match unit.trim() {
        "s" => SECOND_MS,
        "m" => 60 * SECOND_MS,
        "h" => 3600 * SECOND_MS,
        _ => return None,
    };
    Some((average.trim().parse().ok().filter(|it| *it > 0)?, period))
}

/// Reads `caddy: HOST` with `caddy.reverse_proxy: {{upstreams PORT}}`.
pub(super) fn read_caddy(name: &str, mut options: Options, declared: &mut Declared) {
    let hosts = options.text("caddy").unwrap_or_default();
    let hosts: Vec<String> = hosts.split([',', ' ']).filter(|it| !it.is_empty()).map(str::to_owned).collect();
    let port = options.read("caddy.reverse_proxy", "{{upstreams PORT}}: no other upstream is read", |it| {
        let inner = it.strip_prefix("{{")?.strip_suffix("}}")?.trim().strip_prefix("upstreams")?;
        let port = inner.split_whitespace().last();
        port.map_or(Some(None), |it| it.parse::<u16>().ok().map(Some))
    });
    let before = declared.faults.len();
    options.end(&mut declared.faults);
    if declared.faults.len() > before {
        // What is not understood may be what guards the service.
        declared
            .faults
            .push(("caddy".to_owned(), "is not used, since other caddy labels of the service are not read".to_owned()));
        return;
    }
    let is_plain = |it: &String| !it.contains(['/', ':', '*', '{', '(']);
    if let Some(other) = hosts.iter().find(|it| !is_plain(it)) {
        declared.faults.push(("caddy".to_owned(), format!("{other:?}: only plain host names are read")));
        return;
    }
    let (Some(port), false) = (port, hosts.is_empty()) else {
        declared
            .faults
            .push(("caddy".to_owned(), "needs a host and caddy.reverse_proxy={{upstreams PORT}}".to_owned()));
        return;
    };
    let key = (Carried::Http, format!("{name}-caddy"));
    let service = Service { port, scheme: "http".to_owned(), native: true, ..Service::default() };
    declared.services.insert(key.clone(), service);
    let plain = Router { rule: rule(&hosts, ""), service: key.1.clone(), native: true, ..Router::default() };
    let redirect = format!("{name}-caddy-redirect");
    let value = json!({"kind": "redirectscheme", "scheme": "https", "permanent": true});
    declared.middlewares.insert(redirect.clone(), Middleware::Is(value));
    // Caddy serves HTTPS, and sends what comes plain there.
    let tls = Some(RouteTls { resolver: DEFAULT_RESOLVER.to_owned(), ..RouteTls::default() });
    declared.routers.insert((Carried::Http, format!("{}-tls", key.1)), Router { tls, ..plain.clone() });
    declared.routers.insert(key, Router { middlewares: vec![redirect], ..plain });
}
