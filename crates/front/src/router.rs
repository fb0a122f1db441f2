//! A table of routes, and the search for the one that a request is for. Pure.
//!
//! Rows are tried in their order. `HEAD` finds the row of `GET`; its body is dropped on the way out. What no row fits is
//! unknown (404); what rows with other methods fit may not be done there (405, with the methods that may).

use herder_decide::versions::Version;
use http::{HeaderValue, Method, StatusCode, header};

use crate::ApiError;

/// The name of what a request does: `container.start`. Rights, audit and metrics go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Action(pub &'static str);

impl Action {
    /// True if a request of this method may change something.
    pub(crate) fn is_write(method: &Method) -> bool {
        !method.is_safe()
    }
}

/// Callers that may use a route, whatever their rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callers {
    All,
    /// Only those that the connection proves: see [`crate::Principal::is_known`].
    Known,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Route<H> {
    /// `*` for all.
    method: &'static str,
    /// Segments: a word, `{name}` for one segment, `{name*}` for one or more, as many as possible. At most one of the latter.
    pattern: &'static str,
    pub(crate) action: Action,
    /// The lowest version of Docker's API that has this; nothing if all have it.
    since: Option<Version>,
    /// True if the path exists below `/v1.xx`, too.
    versioned: bool,
    pub(crate) callers: Callers,
    pub(crate) handler: H,
}

impl<H> Route<H> {
    pub(crate) const fn new(method: &'static str, pattern: &'static str, action: &'static str, handler: H) -> Route<H> {
        Route { method, pattern, action: Action(action), since: None, versioned: true, callers: Callers::All, handler }
    }

    /// Exists since API version 1.`minor`.
    pub(crate) const fn since(mut self, minor: u32) -> Route<H> {
        self.since = Some(Version { major: 1, minor });
        self
    }

    /// Removes the versioned form of the route (`/v1.xx/…`).
    pub(crate) const fn unversioned(mut self) -> Route<H> {
        self.versioned = false;
        self
    }

    pub(crate) const fn only_for_known(mut self) -> Route<H> {
        self.callers = Callers::Known;
        self
    }

    /// Returns whether this is the row of a method and a pattern.
    pub(crate) fn is(&self, method: &str, pattern: &str) -> bool {
        self.method == method && self.pattern == pattern
    }

    #[cfg(test)]
    pub(crate) fn named(&self) -> (&'static str, &'static str) {
        (self.method, self.pattern)
    }

    fn takes(&self, method: &Method) -> bool {
        self.method == "*"
            || self.method == method.as_str()
            || (*method == Method::HEAD && self.method == Method::GET.as_str())
    }
}

/// Values of a pattern's holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holes(Vec<(&'static str, String)>);

impl Holes {
    /// Empty for a name that the pattern does not have.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// The routes of a door.
#[derive(Debug)]
pub(crate) struct Table<H: 'static> {
    parts: &'static [&'static [Route<H>]],
}

impl<H> Table<H> {
    pub(crate) const fn new(parts: &'static [&'static [Route<H>]]) -> Table<H> {
        Table { parts }
    }

    /// The route of a request. `path` is decoded and has no version; slashes at its ends do not count.
    pub(crate) fn find(
        &self,
        method: &Method,
        path: &str,
        version: Option<&str>,
    ) -> Result<(&'static Route<H>, Holes), NotRouted> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let mut allowed: Vec<&'static str> = Vec::new();
        for route in self.parts.iter().copied().flatten() {
            if !route.versioned && version.is_some() {
                continue;
            }
            let Some(holes) = fits(route.pattern, &segments) else { continue };
            if !route.takes(method) {
                allowed.push(route.method);
                continue;
            }
            let client = version.and_then(Version::parse);
            return match (route.since, client) {
                (Some(since), Some(client)) if client < since => {
                    Err(NotRouted::TooOld { method: method.clone(), path: path.to_owned(), since })
                }
                _ => Ok((route, holes)),
            };
        }
        if allowed.is_empty() { Err(NotRouted::Unknown) } else { Err(NotRouted::Method(allow(allowed))) }
    }

    #[cfg(test)]
    fn rows(&self) -> impl Iterator<Item = &'static Route<H>> {
        self.parts.iter().copied().flatten()
    }
}

/// Returns the `Allow` header, without doubles.
fn allow(mut methods: Vec<&'static str>) -> String {
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

/// Fills the holes of a pattern, if it fits the segments of a path.
fn fits(pattern: &'static str, segments: &[&str]) -> Option<Holes> {
    let mut holes = Vec::new();
    let mut rest = segments;
    let mut parts = pattern.trim_matches('/').split('/');
    while let Some(part) = parts.next() {
        let hole = part.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
        match hole {
            None if rest.first() == Some(&part) => rest = &rest[1..],
            None => return None,
            Some(name) => {
                let (name, count) = match name.strip_suffix('*') {
                    None => (name, 1),
                    Some(name) => (name, rest.len().checked_sub(parts.clone().count())?),
                };
                if count == 0 || count > rest.len() {
                    return None;
                }
                let (here, after) = rest.split_at(count);
                let value = here.join("/");
                if value.is_empty() {
                    return None;
                }
                holes.push((name, value));
                rest = after;
            }
        }
    }
    rest.is_empty().then_some(Holes(holes))
}

/// Reason why a request has no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRouted {
    #[error("page not found")]
    Unknown,
    #[error("the method is not allowed here; allowed: {0}")]
    Method(String),
    #[error("{method} {path} requires minimum API version {since}")]
    TooOld { method: Method, path: String, since: Version },
}

impl NotRouted {
    pub(crate) fn into_reply(self) -> crate::Reply {
        let status = match &self {
            NotRouted::Unknown => StatusCode::NOT_FOUND,
            NotRouted::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            NotRouted::TooOld { .. } => StatusCode::BAD_REQUEST,
        };
        let mut reply = ApiError::new(status, self.to_string()).into_reply();
        if let NotRouted::Method(allowed) = &self
            && let Ok(allowed) = HeaderValue::from_str(allowed)
        {
            reply.headers_mut().insert(header::ALLOW, allowed);
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    static ROWS: &[Route<()>] = &[
        Route::new("GET", "/things/json", "thing.list", ()),
        Route::new("HEAD", "/things/{name*}/archive", "thing.stat", ()),
        Route::new("GET", "/things/{name*}/archive", "thing.archive", ()),
        Route::new("GET", "/things/{name*}/json", "thing.inspect", ()),
        Route::new("DELETE", "/things/{name*}", "thing.remove", ()),
        Route::new("POST", "/things/prune", "thing.prune", ()).since(25),
        Route::new("*", "/any/{id}/{verb}", "any.other", ()),
        Route::new("POST", "/", "root.post", ()).unversioned(),
    ];

    fn found(line: &str) -> String {
        let (method, target) = line.split_once(' ').expect("a method and a path");
        let (version, path) = match target.strip_prefix("/v").and_then(|it| it.split_once('/')) {
            Some((version, path)) => (Some(version), format!("/{path}")),
            None => (None, target.to_owned()),
        };
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        static TABLE: Table<()> = Table::new(&[ROWS]);
        match TABLE.find(&method, &path, version) {
            Ok((route, Holes(holes))) => {
                let holes = holes.iter().map(|(name, value)| format!(" {name}={value}"));
                format!("{}{}", route.action.0, holes.collect::<String>())
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_first_row_that_fits_is_found() {
        for (line, expected) in [
            ("GET /things/json", "thing.list"),
            ("HEAD /things/json/", "thing.list"),
            ("GET //things/json", "thing.list"),
            ("GET /v1.41/things/a/b/json", "thing.inspect name=a/b"),
            ("GET /things/json/json", "thing.inspect name=json"),
            ("HEAD /things/a/archive", "thing.stat name=a"),
            ("GET /things/a/archive", "thing.archive name=a"),
            ("HEAD /things/a/json", "thing.inspect name=a"),
            ("DELETE /things/json", "thing.remove name=json"),
            ("PATCH /any/1/x", "any.other id=1 verb=x"),
            ("POST /v1.25/things/prune", "thing.prune"),
            ("POST /things/prune", "thing.prune"),
            ("POST /", "root.post"),
        ] {
            assert_eq!(found(line), expected, "{line}");
        }
    }

    #[test]
    fn what_no_row_fits_is_refused_with_the_reason() {
        let allowed = |methods: &str| format!("the method is not allowed here; allowed: {methods}");
        for (line, expected) in [
            ("GET /nothing", "page not found".to_owned()),
            ("POST /any/1", "page not found".to_owned()),
            ("POST /any/1/2/3", "page not found".to_owned()),
            ("POST /v1.41/", "page not found".to_owned()),
            ("POST /things/json", allowed("DELETE, GET, HEAD")),
            ("PUT /things/a/archive", allowed("DELETE, GET, HEAD")),
            ("GET /", allowed("POST")),
            ("POST /v1.24/things/prune", "POST /things/prune requires minimum API version 1.25".to_owned()),
        ] {
            assert_eq!(found(line), expected, "{line}");
        }
    }

    #[test]
    fn every_row_of_the_door_can_be_reached_and_is_named_by_its_object_and_its_verb() {
        let table = &crate::routes::TABLE;
        let mut seen = BTreeSet::new();
        for route in table.rows() {
            let name = route.action.0;
            assert!(
                name.split('.').count() == 2
                    && name.bytes().all(|it| it == b'.' || it.is_ascii_lowercase() || it == b'-'),
                "{name}"
            );
            assert!(seen.insert((route.method, route.pattern)), "twice: {} {}", route.method, route.pattern);
            let path = route.pattern.replace(['{', '}', '*'], "");
            let method = if route.method == "*" { "PATCH" } else { route.method };
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let (found, _) = table.find(&method, &path, None).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!((found.pattern, found.action), (route.pattern, route.action), "{method} {path}");
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }
}
