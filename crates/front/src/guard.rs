//! Keeps web pages of strangers away from a door. Pure.
//!
//! A browser lets any page send requests to any address, and cannot be told apart from other clients by its address: it runs
//! on the user's own machine. It does say from where a page came (`Origin`), and under which name it reached the door (`Host`),
//! which DNS rebinding makes a name of the attacker's.

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName};
use http::{StatusCode, Uri, Version, header};

use crate::ApiError;

/// Checks that a request says once for which host it is (RFC 9112, 3.2). HTTP/1.0 need not say it.
pub(crate) fn one_host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let first = match (hosts.next(), hosts.next()) {
        (Some(first), None) => first,
        (Some(_), Some(_)) => return Err(ApiError::bad_request("the request has more than one Host header")),
        (None, _) if version < Version::HTTP_11 => return Ok(()),
        (None, _) => return Err(ApiError::bad_request("missing required Host header")),
    };
    let wrong = || ApiError::bad_request("malformed Host header");
    let host = first.to_str().map_err(|_| wrong())?;
    if !host.bytes().all(is_host_byte) {
        return Err(wrong());
    }
    match uri.authority() {
        Some(authority) if !host.eq_ignore_ascii_case(authority.as_str()) => {
            Err(ApiError::bad_request("the Host header and the request's target name different hosts"))
        }
        _ => Ok(()),
    }
}

/// True for a byte that a `Host` header may hold. Docker's older clients put the percent-encoded path of a socket
/// there.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]/".contains(&byte)
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Checks that a client on the network reached the door under its own name. Such a name is an IP address,
/// `localhost`, or one that `is_ours` knows. Anyone can make a DNS name point here and have browsers use it.
pub(crate) fn own_name(headers: &HeaderMap, is_ours: impl FnOnce(&str) -> bool) -> Result<(), ApiError> {
    let Some(host) = headers.get(header::HOST).and_then(|it| it.to_str().ok()) else { return Ok(()) };
    let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    let is_local = name == "localhost" || name.ends_with(".localhost");
    if is_local || name.parse::<IpAddr>().is_ok() || is_ours(&name) {
        return Ok(());
    }
    let sentence = format!(
        "the request is for the host {name:?}, which is no name of this node; use its IP address, or start herder with \
         --allowed-host {name}"
    );
    Err(ApiError::new(StatusCode::FORBIDDEN, sentence))
}

/// True if `pattern` allows the host `name`: the same name, `*.example.com` for every name below, `*` for all.
pub(crate) fn allows(pattern: &str, name: &str) -> bool {
    let pattern = pattern.trim_end_matches('.');
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) if suffix.starts_with('.') => {
            name.len() > suffix.len()
                && name.get(name.len() - suffix.len()..).is_some_and(|it| it.eq_ignore_ascii_case(suffix))
        }
        _ => pattern.eq_ignore_ascii_case(name),
    }
}

/// True if a page may call: it says no origin, or that of the host itself.
pub(crate) fn same_origin(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return !is_cross_site(headers) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let named = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    origins.next().is_none() && named.is_some_and(|named| !named.is_empty() && named.eq_ignore_ascii_case(host))
}

/// Browsers of this decade say with every request what relation its page has to the host, also without an `Origin`.
fn is_cross_site(headers: &HeaderMap) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
    let says = |name: &HeaderName, value: &str| headers.get(name).is_some_and(|it| it.as_bytes() == value.as_bytes());
    // A link that somebody follows is a navigation; it is a GET, and the page that had it sees nothing of the answer.
    (says(&SITE, "cross-site") || says(&SITE, "same-site")) && !says(&MODE, "navigate")
}

/// Checks the type of a body that will be read as JSON, as Docker's engines do. A page can send other types without asking.
pub(crate) fn is_json(headers: &HeaderMap, is_empty: bool) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).map(|it| it.to_str().unwrap_or("?")).unwrap_or_default();
    if (kind.is_empty() && is_empty) || essence(kind).eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("unsupported Content-Type header ({kind}): must be 'application/json'")))
}

/// Refuses the content types of forms on web pages. Others pass, since tools send JSON without saying so (`curl
/// --data`).
pub(crate) fn is_no_form(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).map(|it| it.to_str().unwrap_or("?")).unwrap_or_default();
    if ["text/plain", "multipart/form-data"].iter().any(|it| essence(kind).eq_ignore_ascii_case(it)) {
        let sentence = format!("unsupported Content-Type header ({kind}): must be 'application/json'");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
    }
    Ok(())
}

fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name: value | name: value` as headers.
    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in text.split(" | ").filter(|it| !it.is_empty()) {
            let (name, value) = line.split_once(": ").expect("a header");
            headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        headers
    }

    fn outcome(result: Result<(), ApiError>) -> String {
        result.map_or_else(|error| format!("{} {error}", error.status().as_u16()), |()| "ok".to_owned())
    }

    #[test]
    fn a_request_names_its_host_once() {
        let check = |version, target: &str, text: &str, expected: &str| {
            let uri: Uri = target.parse().expect(target);
            assert_eq!(outcome(one_host(version, &uri, &headers(text))), expected, "{target} {text}");
        };
        check(Version::HTTP_11, "/", "host: a:1", "ok");
        check(Version::HTTP_11, "/", "host: %2Fvar%2Frun%2Fdocker.sock", "ok");
        check(Version::HTTP_11, "/", "host: /var/run/docker.sock", "ok");
        check(Version::HTTP_11, "/", "", "400 missing required Host header");
        check(Version::HTTP_10, "/", "", "ok");
        check(Version::HTTP_11, "/", "host: a | host: a", "400 the request has more than one Host header");
        check(Version::HTTP_10, "/", "host: a | host: b", "400 the request has more than one Host header");
        check(Version::HTTP_11, "/", "host: a b", "400 malformed Host header");
        check(Version::HTTP_11, "/", "host: user@a", "400 malformed Host header");
        check(Version::HTTP_11, "http://A:1/", "host: a:1", "ok");
        let two = "400 the Host header and the request's target name different hosts";
        check(Version::HTTP_11, "http://b/", "host: a", two);
    }

    #[test]
    fn the_door_is_reached_by_its_own_names() {
        let check = |host: &str, is_allowed: bool| {
            let said = own_name(&headers(&format!("host: {host}")), |name| name == "h1" || allows("*.pool", name));
            assert_eq!(said.is_ok(), is_allowed, "{host}: {}", outcome(said));
        };
        for host in ["10.0.0.1:2375", "[::1]:2375", "[fe80::1]", "localhost", "LOCALHOST:80", "api.moby.localhost"] {
            check(host, true);
        }
        for host in ["h1", "H1:2375", "h1.:2375", "a.pool", "b.a.pool:1"] {
            check(host, true);
        }
        for host in [
            "evil.example",
            "h1.evil.example:2375",
            "localhost.evil.example",
            "pool",
            ".pool",
            "127.0.0.1.evil.example",
        ] {
            check(host, false);
        }
        assert_eq!(
            outcome(own_name(&headers("host: evil.example:80"), |_| false)),
            "403 the request is for the host \"evil.example\", which is no name of this node; use its IP address, or start herder \
             with --allowed-host evil.example"
        );
    }

    #[test]
    fn only_pages_of_the_host_itself_may_call() {
        let check = |text: &str, expected: bool| assert_eq!(same_origin(&headers(text)), expected, "{text}");
        check("host: a:1", true);
        check("host: a:1 | origin: http://a:1", true);
        check("host: a:1 | origin: https://A:1", true);
        check("host: a:1 | origin: http://a:2", false);
        check("host: a:1 | origin: http://a", false);
        check("host: a:1 | origin: http://evil.example", false);
        check("host: a:1 | origin: null", false);
        check("origin: http://", false);
        check("host: a:1 | origin: http://a:1 | origin: http://b", false);
        check("host: a:1 | sec-fetch-site: cross-site | sec-fetch-mode: no-cors", false);
        check("host: a:1 | sec-fetch-site: same-site | sec-fetch-mode: cors", false);
        check("host: a:1 | sec-fetch-site: cross-site | sec-fetch-mode: navigate", true);
        check("host: a:1 | sec-fetch-site: none | sec-fetch-mode: navigate", true);
        check("host: a:1 | sec-fetch-site: same-origin", true);
    }

    #[test]
    fn bodies_are_json_and_say_so() {
        let json = |text: &str, empty: bool| outcome(is_json(&headers(text), empty));
        let refused = |kind: &str| format!("unsupported Content-Type header ({kind}): must be 'application/json'");
        assert_eq!(json("content-type: application/json", false), "ok");
        assert_eq!(json("content-type: Application/JSON; charset=utf-8", false), "ok");
        assert_eq!(json("", true), "ok");
        assert_eq!(json("", false), format!("400 {}", refused("")));
        assert_eq!(json("content-type: text/plain", true), format!("400 {}", refused("text/plain")));
        let form = |text: &str| outcome(is_no_form(&headers(text)));
        assert_eq!(form(""), "ok");
        assert_eq!(form("content-type: application/x-www-form-urlencoded"), "ok");
        assert_eq!(
            form("content-type: Text/Plain;charset=utf-8"),
            format!("415 {}", refused("Text/Plain;charset=utf-8"))
        );
        assert_eq!(form("content-type: multipart/form-data"), format!("415 {}", refused("multipart/form-data")));
    }
}
