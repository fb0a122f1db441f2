//! A request as rules see it, and its headers on the way to a service.

use std::net::{IpAddr, SocketAddr};

use herder_decide::ingress::Subject;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};

/// The entrypoint and connection of a request.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) entrypoint: String,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) sni: String,
}

/// A request that rules are held against.
pub(crate) struct Seen<'r> {
    pub(crate) host: &'r str,
    pub(crate) path: &'r str,
    pub(crate) method: &'r Method,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) query: &'r str,
    pub(crate) client: IpAddr,
    pub(crate) sni: &'r str,
}

impl Subject for Seen<'_> {
    fn host(&self) -> &str {
        self.host
    }

    fn path(&self) -> &str {
        self.path
    }

    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn header(&self, name: &str, fits: &dyn Fn(&str) -> bool) -> bool {
        self.headers.get_all(name).iter().any(|it| it.to_str().is_ok_and(fits))
    }

    fn query(&self, name: &str, fits: &dyn Fn(&str) -> bool) -> bool {
        self.query.split('&').filter(|it| !it.is_empty()).any(|it| {
            let (key, value) = it.split_once('=').unwrap_or((it, ""));
            unescaped(key) == name && fits(&unescaped(value))
        })
    }

    fn client(&self) -> IpAddr {
        self.client
    }

    fn sni(&self) -> &str {
        self.sni
    }

    fn alpn(&self, _: &str) -> bool {
        false
    }
}

fn unescaped(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

/// The host that a request names, in lower case and without port. None: it names none, or two different ones.
pub(crate) fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let mut named = headers.get_all(header::HOST).iter();
    let of_header = named.next().map(|it| it.to_str().map(str::to_owned));
    if named.next().is_some() {
        return None;
    }
    let text = match (uri.authority(), of_header) {
        // What stands in the request line of an absolute form, or in `:authority`, counts; another `Host` beside it is an attack.
        (Some(authority), Some(Ok(host))) if !host.eq_ignore_ascii_case(authority.as_str()) => return None,
        (Some(authority), _) if !authority.as_str().contains('@') => authority.as_str().to_owned(),
        (Some(_), _) => return None,
        (None, Some(Ok(host))) => host,
        (None, _) => return None,
    };
    let host = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host),
    };
    let is_host = !host.is_empty() && host.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._:".contains(&it));
    is_host.then(|| host.trim_end_matches('.').to_ascii_lowercase())
}

/// The client: the peer, or whom a trusted peer names.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusts: &dyn Fn(IpAddr) -> bool) -> IpAddr {
    if !trusts(peer) {
        return peer;
    }
    let told = forwarded_for(headers);
    told.iter().rev().copied().find(|it| !trusts(*it)).or(told.first().copied()).unwrap_or(peer)
}

/// The addresses of `X-Forwarded-For`, from left to right.
pub(crate) fn forwarded_for(headers: &HeaderMap) -> Vec<IpAddr> {
    let values = headers.get_all("x-forwarded-for").iter().filter_map(|it| it.to_str().ok());
    values.flat_map(|it| it.split(',')).filter_map(|it| it.trim().parse().ok()).collect()
}

/// Headers that are for one connection only. `TE: trailers` is passed on: gRPC asks for it.
const HOP_HEADERS: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
];

/// Removes what is for this connection only, and what the client named as such.
pub(crate) fn remove_hop_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .filter_map(|it| it.trim().parse().ok())
        // A client must not take away what this proxy says of it.
        .filter(|it: &HeaderName| !it.as_str().starts_with("x-forwarded-") && it.as_str() != "x-real-ip")
        .collect();
    for name in named.iter().chain(&HOP_HEADERS) {
        headers.remove(name);
    }
    let trailers = headers.get(header::TE).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if !trailers {
        headers.remove(header::TE);
    }
}

/// Names of headers that say who the client is.
const FORWARDING: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    "forwarded",
];

/// Says who the client is. What it says of itself is dropped, unless the peer is trusted.
pub(crate) fn forward(headers: &mut HeaderMap, arrival: &Arrival, host: &str, client: IpAddr, trusted: bool) {
    let peer = arrival.peer.ip();
    let before: Vec<String> =
        if trusted { forwarded_for(headers).iter().map(ToString::to_string).collect() } else { vec![] };
    let told = |name: &str| headers.get(name).filter(|_| trusted).cloned();
    let (proto, of_host, port) = (told("x-forwarded-proto"), told("x-forwarded-host"), told("x-forwarded-port"));
    for name in FORWARDING {
        headers.remove(name);
    }
    let scheme = if arrival.tls { "https" } else { "http" };
    let chain = before.into_iter().chain([peer.to_string()]).collect::<Vec<_>>().join(", ");
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    set("x-forwarded-for", chain);
    set("x-real-ip", client.to_string());
    set("x-forwarded-proto", scheme.to_owned());
    set("x-forwarded-host", host.to_owned());
    set("x-forwarded-port", arrival.local.port().to_string());
    let quoted = if client.is_ipv6() { format!("\"[{client}]\"") } else { client.to_string() };
    set("forwarded", format!("for={quoted};host=\"{host}\";proto={scheme}"));
    for (name, value) in [("x-forwarded-proto", proto), ("x-forwarded-host", of_host), ("x-forwarded-port", port)] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let pairs = text.split('|').filter_map(|it| it.split_once(": "));
        pairs.map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap())).collect()
    }

    #[test]
    fn a_request_names_one_host_or_is_refused() {
        let check = |uri: &str, text: &str, expected: Option<&str>| {
            assert_eq!(host(&uri.parse().unwrap(), &headers(text)).as_deref(), expected, "{uri} {text}");
        };
        check("/", "host: A.example", Some("a.example"));
        check("/", "host: a.example:8080", Some("a.example"));
        check("/", "host: a.example.", Some("a.example"));
        check("/", "host: [::1]:80", Some("::1"));
        check("/", "", None);
        check("/", "host: a|host: b", None);
        check("/", "host: ", None);
        check("/", "host: a b", None);
        check("/", "host: a/b", None);
        check("http://a/", "host: a", Some("a"));
        check("http://a/", "", Some("a"));
        check("http://a/", "host: b", None);
        check("http://u@a/", "", None);
    }

    #[test]
    fn forwarding_headers_of_strangers_are_dropped() {
        let arrival = Arrival {
            entrypoint: "web".into(),
            peer: "10.0.0.9:1".parse().unwrap(),
            local: "10.0.0.1:80".parse().unwrap(),
            tls: true,
            sni: String::new(),
        };
        let check = |text: &str, trusted: bool, expected: &str| {
            let mut it = headers(text);
            let client = client(arrival.peer.ip(), &it, &|ip| trusted && ip == arrival.peer.ip());
            forward(&mut it, &arrival, "a", client, trusted);
            let shown = |name: &str| it.get(name).map_or("", |it| it.to_str().unwrap()).to_owned();
            let names = ["x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-port", "forwarded"];
            assert_eq!(names.map(shown).join(" | "), expected);
        };
        check(
            "x-forwarded-for: 1.2.3.4|x-forwarded-proto: http|forwarded: for=x",
            false,
            "10.0.0.9 | 10.0.0.9 | https | 80 | for=10.0.0.9;host=\"a\";proto=https",
        );
        check(
            "x-forwarded-for: 1.2.3.4|x-forwarded-proto: http",
            true,
            "1.2.3.4, 10.0.0.9 | 1.2.3.4 | http | 80 | for=1.2.3.4;host=\"a\";proto=https",
        );
    }

    #[test]
    fn headers_of_one_connection_are_removed() {
        let mut it =
            headers("connection: close, x-a, x-forwarded-for|x-a: 1|x-forwarded-for: 2|keep-alive: 5|te: gzip|x-b: 3");
        remove_hop_headers(&mut it);
        let names: Vec<&str> = it.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-forwarded-for", "x-b"]);
        let mut it = headers("te: trailers");
        remove_hop_headers(&mut it);
        assert_eq!(it.len(), 1);
    }
}
