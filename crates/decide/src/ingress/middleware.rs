//! Middlewares: what is done to requests before and after a service.

use std::collections::BTreeMap;

use ipnet::IpNet;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::breaker::Condition;
use super::options::Options;

/// A middleware. Sent to ingress nodes as JSON with the member `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Middleware {
    RedirectScheme {
        scheme: String,
        #[serde(default)]
        port: String,
        #[serde(default)]
        permanent: bool,
    },
    RedirectRegex {
        regex: String,
        /// Replacement in the form of crate `regex`: `${1}`.
        replacement: String,
        #[serde(default)]
        permanent: bool,
    },
    StripPrefix {
        prefixes: Vec<String>,
    },
    StripPrefixRegex {
        regexes: Vec<String>,
    },
    AddPrefix {
        prefix: String,
    },
    ReplacePath {
        path: String,
    },
    ReplacePathRegex {
        regex: String,
        replacement: String,
    },
    BasicAuth {
        /// `name:hash`, as htpasswd writes them.
        users: Vec<String>,
        #[serde(default)]
        realm: String,
        /// The header in which the service gets the user's name.
        #[serde(default)]
        header: String,
        /// The service does not get `Authorization`.
        #[serde(default)]
        remove: bool,
    },
    Headers(Box<Headers>),
    IpAllowList {
        ranges: Vec<IpNet>,
        #[serde(default)]
        from: ClientAddress,
        /// 0: 403.
        #[serde(default)]
        status: u16,
    },
    RateLimit {
        /// Requests in a period; 0: no limit.
        average: u64,
        period_ms: u64,
        burst: u64,
        #[serde(default)]
        by: Criterion,
    },
    InFlightReq {
        amount: u64,
        #[serde(default)]
        by: Criterion,
    },
    Compress {
        #[serde(default)]
        excluded: Vec<String>,
        #[serde(default)]
        included: Vec<String>,
        min_bytes: u64,
    },
    Retry {
        attempts: u32,
        #[serde(default)]
        interval_ms: u64,
    },
    ForwardAuth(Box<ForwardAuth>),
    Errors {
        /// Statuses whose answers are replaced, as first and last of ranges.
        status: Vec<(u16, u16)>,
        /// The service that has the pages, as it is named in the table.
        service: String,
        /// Path and query there; `{status}` and `{url}` are filled in.
        query: String,
    },
    /// Lets no requests pass for a while when a condition on the last ones holds.
    CircuitBreaker {
        /// In Traefik's language; see [`Condition`].
        expression: String,
        check_period_ms: u64,
        fallback_ms: u64,
        recovery_ms: u64,
        /// Status of the answers meanwhile.
        status: u16,
    },
    /// A limit of the bodies of requests.
    Buffering {
        max_request_bytes: u64,
    },
}

/// Another service that says whether a request may pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForwardAuth {
    /// `http://HOST:PORT/PATH`.
    pub address: String,
    /// The service that HOST means, as it is named in the table. Empty: a host outside of the swarm.
    pub service: String,
    pub trust_forwarded: bool,
    /// Headers of its answer that the request gets. What the client said in them is removed.
    pub response_headers: Vec<String>,
    pub response_regex: String,
    /// Headers that it is told; empty: all.
    pub request_headers: Vec<String>,
    pub keep_method: bool,
    /// A `Location` without a host is passed on as it is, instead of being completed with HOST.
    pub keep_location: bool,
    /// The header of its answer with the name of the user, for the access log.
    pub user_header: String,
}

impl ForwardAuth {
    /// The authority of the address (`HOST:PORT`), the host, and the port.
    pub fn host(&self) -> Option<(&str, &str, u16)> {
        let rest = self.address.strip_prefix("http://")?;
        let authority = rest.split(['/', '?']).next()?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => (host, port.parse().ok()?),
            _ => (authority, 80),
        };
        (!host.is_empty() && !host.contains('@')).then_some((authority, host, port))
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        let rest = self.address.strip_prefix("http://").unwrap_or_default();
        rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
    }
}

/// Headers that are set, and those for browsers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Headers {
    /// An empty value removes the header.
    pub request: BTreeMap<String, String>,
    pub response: BTreeMap<String, String>,
    /// Sent over TLS only, unless `force_sts`.
    pub sts: String,
    pub force_sts: bool,
    pub cors: Option<Cors>,
}

/// Answers to cross-origin requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cors {
    pub origins: Vec<String>,
    pub origin_regexes: Vec<String>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose: Vec<String>,
    pub credentials: bool,
    pub max_age: i64,
    pub vary: bool,
}

/// The key by which requests are counted together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// Those of one client address.
    #[default]
    Client,
    /// Those of an address that a proxy before tells.
    Forwarded(ClientAddress),
    Header(String),
    Host,
}

/// Source of the client's address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientAddress {
    /// The so-manieth of `X-Forwarded-For` from the right; 0: the peer's.
    pub depth: usize,
    /// The first of `X-Forwarded-For` from the right that is none of these.
    pub excluded: Vec<IpNet>,
}

/// Kinds that are understood and not carried out yet. A route that names one is not used: leaving it out could open what it guards.
const NOT_YET: [&str; 5] = ["contenttype", "encodedcharacters", "grpcweb", "passtlsclientcert", "retryafter"];
/// Without a size in the label, as Traefik.
const COMPRESS_BYTES_MIN: u64 = 1024;
const SECOND_MS: u64 = 1000;
/// The circuit breaker of Traefik, where the label says nothing else.
const CHECK_PERIOD_MS: u64 = 100;
const FALLBACK_MS: u64 = 10_000;
const RECOVERY_MS: u64 = 10_000;
const FALLBACK_STATUS: u16 = 503;

/// The result of reading the labels of one middleware.
pub(super) enum Read {
    Middleware(Value),
    /// Names of others, in order.
    Chain(Vec<String>),
    /// No usable middleware; the reason is among the faults.
    Nothing,
}

/// Reads the options of the middleware `name`. `secret` gives the lines of a secret of the swarm.
pub(super) fn read(
    label: &str,
    mut options: Options,
    secret: &dyn Fn(&str) -> Option<String>,
    faults: &mut Vec<(String, String)>,
) -> Read {
    let kinds = kinds(&options);
    let [kind] = &kinds[..] else {
        let text = match kinds.len() {
            0 => "says no kind of middleware".to_owned(),
            _ => format!("has several kinds ({}): a middleware has one; give each its own name", kinds.join(", ")),
        };
        faults.push((label.to_owned(), text));
        return Read::Nothing;
    };
    let mut of_kind = Options::default();
    for (name, value) in options.named(kind) {
        of_kind.put(name.trim_start_matches('.'), &format!("{label}.{kind}{name}"), &value);
    }
    options.end(faults);
    let before = faults.len();
    let read = one(label, kind, of_kind, secret, faults);
    match read {
        // One that is half understood must not let through what the other half would refuse.
        Ok(Some(_)) if faults.len() > before => Read::Nothing,
        Ok(Some(read)) => read,
        Ok(None) => Read::Nothing,
        Err(text) => {
            faults.push((label.to_owned(), text));
            Read::Nothing
        }
    }
}

fn kinds(options: &Options) -> Vec<String> {
    let mut kinds: Vec<String> =
        options.names().map(|it| it.split(['.', '[']).next().unwrap_or(it).to_owned()).collect();
    kinds.dedup();
    kinds
}

fn one(
    label: &str,
    kind: &str,
    mut options: Options,
    secret: &dyn Fn(&str) -> Option<String>,
    faults: &mut Vec<(String, String)>,
) -> Result<Option<Read>, String> {
    let need = |it: Option<String>, option: &str| {
        it.filter(|it| !it.is_empty()).ok_or_else(|| format!("{kind} needs {option}"))
    };
    let middleware = match kind {
        "chain" => {
            let names = options.list("middlewares").unwrap_or_default();
            options.end(faults);
            return if names.is_empty() {
                Err("chain needs middlewares".to_owned())
            } else {
                Ok(Some(Read::Chain(names)))
            };
        }
        "redirectscheme" => Middleware::RedirectScheme {
            scheme: need(options.text("scheme"), "scheme")?,
            port: options.text("port").unwrap_or_default(),
            permanent: options.flag("permanent").unwrap_or_default(),
        },
        "redirectregex" => Middleware::RedirectRegex {
            regex: regex(&need(options.text("regex"), "regex")?)?,
            replacement: replacement(&need(options.text("replacement"), "replacement")?),
            permanent: options.flag("permanent").unwrap_or_default(),
        },
        "stripprefix" => {
            options.flag("forceslash");
            Middleware::StripPrefix { prefixes: some(options.list("prefixes"), "stripprefix needs prefixes")? }
        }
        "stripprefixregex" => {
            let regexes = some(options.list("regex"), "stripprefixregex needs regex")?;
            Middleware::StripPrefixRegex { regexes: regexes.iter().map(|it| regex(it)).collect::<Result<_, _>>()? }
        }
        "addprefix" => {
            let prefix = need(options.text("prefix"), "prefix")?;
            let prefix = if prefix.starts_with('/') { prefix } else { format!("/{prefix}") };
            Middleware::AddPrefix { prefix }
        }
        "replacepath" => Middleware::ReplacePath { path: need(options.text("path"), "path")? },
        "replacepathregex" => Middleware::ReplacePathRegex {
            regex: regex(&need(options.text("regex"), "regex")?)?,
            replacement: replacement(&options.text("replacement").unwrap_or_default()),
        },
        "basicauth" => basic_auth(&mut options, secret)?,
        "headers" => Middleware::Headers(Box::new(headers(&mut options, faults)?)),
        "ipallowlist" | "ipwhitelist" => {
            let ranges = some(options.list("sourcerange"), &format!("{kind} needs sourcerange"))?;
            Middleware::IpAllowList {
                ranges: ranges.iter().map(|it| net(it)).collect::<Result<_, _>>()?,
                from: client_address(&mut options, "ipstrategy")?,
                status: options.number("rejectstatuscode").unwrap_or_default(),
            }
        }
        "ratelimit" => {
            let average = options.number("average").unwrap_or_default();
            let period_ms = options.milliseconds("period").unwrap_or(SECOND_MS);
            if period_ms == 0 {
                return Err("ratelimit: a period cannot be 0".to_owned());
            }
            let burst = options.number::<u64>("burst").unwrap_or(1).max(1);
            Middleware::RateLimit { average, period_ms, burst, by: criterion(&mut options)? }
        }
        "inflightreq" => {
            let amount =
                options.number::<u64>("amount").filter(|it| *it > 0).ok_or("inflightreq needs amount, at least 1")?;
            Middleware::InFlightReq { amount, by: criterion(&mut options)? }
        }
        "compress" => {
            if options.flag("") == Some(false) {
                return Err("compress=false: remove the middleware instead".to_owned());
            }
            options.not_yet("encodings");
            options.not_yet("defaultencoding");
            Middleware::Compress {
                excluded: options.list("excludedcontenttypes").unwrap_or_default(),
                included: options.list("includedcontenttypes").unwrap_or_default(),
                min_bytes: options.number("minresponsebodybytes").unwrap_or(COMPRESS_BYTES_MIN),
            }
        }
        "retry" => Middleware::Retry {
            attempts: options
                .number::<u32>("attempts")
                .filter(|it| *it > 0)
                .ok_or("retry needs attempts, at least 1")?,
            interval_ms: options.milliseconds("initialinterval").unwrap_or_default(),
        },
        "forwardauth" => Middleware::ForwardAuth(Box::new(forward_auth(&mut options)?)),
        "errors" => {
            let status = some(options.list("status"), "errors needs status")?;
            options.not_yet("statusrewrites");
            Middleware::Errors {
                status: status.iter().map(|it| range(it)).collect::<Result<_, _>>()?,
                service: need(options.text("service"), "service")?,
                query: options
                    .text("query")
                    .map_or_else(|| "/".to_owned(), |it| format!("/{}", it.trim_start_matches('/'))),
            }
        }
        "buffering" => {
            // Bodies are passed on as they come: what is for their place in memory and on disks has nothing to change.
            options.text("memrequestbodybytes");
            options.text("memresponsebodybytes");
            options.not_yet("maxresponsebodybytes");
            options.not_yet("retryexpression");
            Middleware::Buffering { max_request_bytes: options.number("maxrequestbodybytes").unwrap_or_default() }
        }
        "circuitbreaker" => circuit_breaker(&mut options)?,
        "digestauth" => {
            return Err("digestauth is refused: it needs passwords that are as good as plain; use basicauth".to_owned());
        }
        "plugin" => {
            return Err(
                "plugin is refused: the ingress runs no code of others; put a service in front instead".to_owned()
            );
        }
        _ if NOT_YET.contains(&kind) => {
            return Err(format!("{kind} is not supported yet: routes that name this middleware are not used"));
        }
        _ => return Err(format!("{kind} is no kind of middleware; check its spelling")),
    };
    options.end(faults);
    match serde_json::to_value(&middleware) {
        Ok(value) => Ok(Some(Read::Middleware(value))),
        Err(error) => Err(format!("{label}: {error}")),
    }
}

fn circuit_breaker(options: &mut Options) -> Result<Middleware, String> {
    let expression = options.text("expression").unwrap_or_default();
    Condition::parse(&expression).map_err(|why| format!("circuitbreaker: expression {expression:?}: {why}"))?;
    let status = options.number("responsecode").unwrap_or(FALLBACK_STATUS);
    let mut time = |option, or| options.milliseconds(option).unwrap_or(or);
    let (check_period_ms, fallback_ms) = (time("checkperiod", CHECK_PERIOD_MS), time("fallbackduration", FALLBACK_MS));
    let recovery_ms = time("recoveryduration", RECOVERY_MS);
    if fallback_ms == 0 || recovery_ms == 0 || !(100..600).contains(&status) {
        return Err("circuitbreaker: durations cannot be 0, and responsecode must be a status".to_owned());
    }
    Ok(Middleware::CircuitBreaker { expression, check_period_ms, fallback_ms, recovery_ms, status })
}

fn forward_auth(options: &mut Options) -> Result<ForwardAuth, String> {
    for later in ["tls", "addauthcookiestoresponse", "forwardbody", "maxbodysize"] {
        options.not_yet(later);
    }
    let list = |it: Option<Vec<String>>| {
        let all = it.unwrap_or_default();
        all.into_iter().map(|it| it.to_ascii_lowercase()).collect::<Vec<String>>()
    };
    let auth = ForwardAuth {
        address: options.text("address").unwrap_or_default(),
        service: String::new(),
        trust_forwarded: options.flag("trustforwardheader").unwrap_or_default(),
        response_headers: list(options.list("authresponseheaders")),
        response_regex: options.text("authresponseheadersregex").map_or_else(|| Ok(String::new()), |it| regex(&it))?,
        request_headers: list(options.list("authrequestheaders")),
        keep_method: options.flag("preserverequestmethod").unwrap_or_default(),
        keep_location: options.flag("preservelocationheader").unwrap_or_default(),
        user_header: options.text("headerfield").unwrap_or_default(),
    };
    match auth.host() {
        Some(_) => Ok(auth),
        None => Err(format!("forwardauth: {:?} is no address: write http://HOST:PORT/PATH", auth.address)),
    }
}

/// `500`, `500-599`.
fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |it: &str| it.trim().parse().ok().filter(|it| (100..600).contains(it));
    let range = status(first).zip(status(last)).filter(|(first, last)| first <= last);
    range.ok_or_else(|| format!("errors: {text:?} is no status: write 500 or 500-599"))
}

fn some(list: Option<Vec<String>>, or: &str) -> Result<Vec<String>, String> {
    list.filter(|it| !it.is_empty()).ok_or_else(|| or.to_owned())
}

fn regex(text: &str) -> Result<String, String> {
    // Compose files write `$$` for `$`; an engine's labels have one of them.
    match Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("{text:?} is no regular expression")),
    }
}

/// Go's `$1x` is the group `1x`, as in the crate; only the braces of both are the same.
fn replacement(text: &str) -> String {
    text.to_owned()
}

fn net(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    net.ok_or_else(|| format!("{text:?} is no address and no CIDR"))
}

fn basic_auth(options: &mut Options, secret: &dyn Fn(&str) -> Option<String>) -> Result<Middleware, String> {
    let mut users = options.list("users").unwrap_or_default();
    if let Some(file) = options.text("usersfile") {
        let name = file.rsplit('/').next().unwrap_or(&file);
        let text = secret(name).ok_or_else(|| {
            format!(
                "basicauth: usersfile {file} is no secret of the swarm; `docker secret create {name} FILE` makes one"
            )
        })?;
        users
            .extend(text.lines().map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#')).map(str::to_owned));
    }
    // A label that was written for Compose and did not go through it.
    let users: Vec<String> = users.iter().map(|it| it.replace("$$", "$")).collect();
    if users.is_empty() {
        return Err("basicauth needs users or usersfile".to_owned());
    }
    if let Some(user) = users.iter().find(|it| !is_known_hash(it)) {
        let name = user.split(':').next().unwrap_or_default();
        return Err(format!("basicauth: the password of {name:?} is no hash of htpasswd (bcrypt, apr1 MD5 or SHA-1)"));
    }
    Ok(Middleware::BasicAuth {
        users,
        realm: options.text("realm").unwrap_or_else(|| "traefik".to_owned()),
        header: options.text("headerfield").unwrap_or_default(),
        remove: options.flag("removeheader").unwrap_or_default(),
    })
}

fn is_known_hash(user: &str) -> bool {
    let Some((name, hash)) = user.split_once(':') else { return false };
    let known = ["$2y$", "$2a$", "$2b$", "$apr1$", "{SHA}"];
    !name.is_empty() && known.iter().any(|it| hash.starts_with(it))
}

fn criterion(options: &mut Options) -> Result<Criterion, String> {
    if options.flag("sourcecriterion.requesthost") == Some(true) {
        return Ok(Criterion::Host);
    }
    if let Some(header) = options.text("sourcecriterion.requestheadername").filter(|it| !it.is_empty()) {
        return Ok(Criterion::Header(header.to_ascii_lowercase()));
    }
    let address = client_address(options, "sourcecriterion.ipstrategy")?;
    Ok(if address == ClientAddress::default() { Criterion::Client } else { Criterion::Forwarded(address) })
}

fn client_address(options: &mut Options, prefix: &str) -> Result<ClientAddress, String> {
    let depth = options.number(&format!("{prefix}.depth")).unwrap_or_default();
    let excluded = options.list(&format!("{prefix}.excludedips")).unwrap_or_default();
    // Clients of IPv6 are counted by /64 in any case.
    options.text(&format!("{prefix}.ipv6subnet"));
    Ok(ClientAddress { depth, excluded: excluded.iter().map(|it| net(it)).collect::<Result<_, _>>()? })
}

fn headers(options: &mut Options, faults: &mut Vec<(String, String)>) -> Result<Headers, String> {
    let mut headers = Headers {
        request: options.named("customrequestheaders."),
        response: options.named("customresponseheaders."),
        force_sts: options.flag("forcestsheader").unwrap_or_default(),
        ..Headers::default()
    };
    for (name, value) in headers.request.iter().chain(&headers.response) {
        let is_name =
            !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&it));
        if !is_name || value.bytes().any(|it| it < b' ' && it != b'\t' || it == 0x7f) {
            return Err(format!("headers: {name}: {value} is no header"));
        }
    }
    if let Some(seconds) = options.number::<u64>("stsseconds").filter(|it| *it > 0) {
        headers.sts = format!("max-age={seconds}");
    }
    let subdomains = options.flag("stsincludesubdomains") == Some(true);
    let preload = options.flag("stspreload") == Some(true);
    if !headers.sts.is_empty() {
        headers.sts += if subdomains { "; includeSubDomains" } else { "" };
        headers.sts += if preload { "; preload" } else { "" };
    }
    let mut says = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|it| !it.is_empty()) {
            headers.response.insert(name.to_owned(), value);
        }
    };
    let deny = options.flag("framedeny").filter(|it| *it).map(|_| "DENY".to_owned());
    says("X-Frame-Options", options.text("customframeoptionsvalue").or(deny));
    says("X-Content-Type-Options", options.flag("contenttypenosniff").filter(|it| *it).map(|_| "nosniff".to_owned()));
    let xss = options.flag("browserxssfilter").filter(|it| *it).map(|_| "1; mode=block".to_owned());
    says("X-XSS-Protection", options.text("custombrowserxssvalue").or(xss));
    says("Content-Security-Policy", options.text("contentsecuritypolicy"));
    says("Content-Security-Policy-Report-Only", options.text("contentsecuritypolicyreportonly"));
    says("Referrer-Policy", options.text("referrerpolicy"));
    says("Permissions-Policy", options.text("permissionspolicy"));
    if options.has_under("accesscontrol") || options.has("addvaryheader") {
        let mut list = |option: &str| options.list(option).unwrap_or_default();
        let mut cors = Cors {
            origins: list("accesscontrolalloworiginlist"),
            origin_regexes: list("accesscontrolalloworiginlistregex"),
            methods: list("accesscontrolallowmethods"),
            headers: list("accesscontrolallowheaders"),
            expose: list("accesscontrolexposeheaders"),
            ..Cors::default()
        };
        cors.origin_regexes = cors.origin_regexes.iter().map(|it| regex(it)).collect::<Result<_, _>>()?;
        cors.credentials = options.flag("accesscontrolallowcredentials").unwrap_or_default();
        cors.max_age = options.number("accesscontrolmaxage").unwrap_or_default();
        cors.vary = options.flag("addvaryheader").unwrap_or_default();
        headers.cors = Some(cors);
    }
    // Redirects are a middleware of their own.
    for gone in ["sslredirect", "ssltemporaryredirect", "sslhost", "sslforcehost", "featurepolicy"] {
        if options.text(gone).is_some() {
            faults.push((format!("headers.{gone}"), "is of Traefik v2: use the middleware redirectscheme".to_owned()));
        }
    }
    options.flag("isdevelopment");
    Ok(headers)
}
