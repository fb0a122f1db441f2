//! Rules and requests as texts, in `rules.txt`.

use proptest::prelude::*;

use super::*;

#[derive(Debug)]
struct Request {
    method: String,
    host: String,
    path: String,
    query: Vec<(String, String)>,
    words: Vec<(String, String)>,
}

impl Request {
    fn of(line: &str) -> Request {
        let mut words = line.split_whitespace();
        let (method, url) = (words.next().expect("a method"), words.next().expect("a host"));
        let (url, query) = url.split_once('?').unwrap_or((url, ""));
        let (host, path) = url.split_at(url.find('/').unwrap_or(url.len()));
        let pairs = |text: &str, between: char| {
            let pairs = text.split(between).filter(|it| !it.is_empty());
            pairs.map(|it| it.split_once('=').unwrap_or((it, ""))).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        let words: Vec<&str> = words.collect();
        Request {
            method: method.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            query: pairs(query, '&'),
            words: pairs(&words.join(" "), ' '),
        }
    }

    fn word(&self, key: &str) -> &str {
        self.words.iter().find(|(it, _)| it == key).map_or("", |(_, value)| value)
    }
}

impl Subject for Request {
    fn host(&self) -> &str {
        &self.host
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn method(&self) -> &str {
        &self.method
    }

    fn header(&self, name: &str, fits: &dyn Fn(&str) -> bool) -> bool {
        self.words.iter().any(|(it, value)| it == name && fits(value))
    }

    fn query(&self, name: &str, fits: &dyn Fn(&str) -> bool) -> bool {
        self.query.iter().any(|(it, value)| it == name && fits(value))
    }

    fn client(&self) -> IpAddr {
        self.word("from").parse().unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    fn sni(&self) -> &str {
        self.word("sni")
    }

    fn alpn(&self, name: &str) -> bool {
        self.word("alpn") == name
    }
}

#[test]
fn rules_hold_for_the_requests_that_they_describe() {
    let mut rule = None;
    let mut checked = 0;
    for line in include_str!("rules.txt").lines().filter(|it| !it.is_empty() && !it.starts_with('#')) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        checked += usize::from(matches!(mark, "+" | "-" | "!"));
        match mark {
            "rule" => rule = Some((rest, Rule::parse(rest, Scope::Http, false))),
            "old" => rule = Some((rest, Rule::parse(rest, Scope::Http, true))),
            "tcp" => rule = Some((rest, Rule::parse(rest, Scope::Tcp, false))),
            "!" => {
                let (text, parsed) = rule.as_ref().expect("a rule");
                assert_eq!(parsed.as_ref().expect_err(text).to_string(), rest, "{text}");
            }
            _ => {
                let (text, parsed) = rule.as_ref().expect("a rule");
                let parsed = parsed.as_ref().unwrap_or_else(|error| panic!("{text}: {error}"));
                assert_eq!(parsed.holds(&Request::of(rest)), mark == "+", "{text}: {rest}");
            }
        }
    }
    assert!(checked > 150, "{checked}");
}

#[test]
fn a_rule_knows_the_hosts_that_it_needs_and_those_of_its_certificate() {
    let check = |text: &str, needed: &str, hosts: &str| {
        let rule = Rule::parse(text, Scope::Http, false).expect("a rule");
        let show = |it: BTreeSet<String>| it.into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(rule.needed_hosts().map_or("any".to_owned(), show), needed, "{text}");
        assert_eq!(show(rule.hosts()), hosts, "{text}");
    };
    check("Host(`a`)", "a", "a");
    check("Host(`a`) && Path(`/x`)", "a", "a");
    check("Host(`a`) || Host(`b`)", "a b", "a b");
    check("Host(`a`) || Path(`/x`)", "any", "a");
    check("Host(`a`) && (Host(`b`) || Host(`c`))", "a", "a b c");
    check("!Host(`a`)", "any", "");
    check("Host(`*.a`)", "any", "*.a");
    check("Host(`*`)", "any", "");
    check("HostRegexp(`a`)", "any", "");
}

proptest! {
    /// A rule that needs hosts never holds for another one.
    #[test]
    fn a_rule_holds_only_for_hosts_that_it_needs(text in rule(), host in "[ab]", path in "/[xy]") {
        let rule = Rule::parse(&text, Scope::Http, false).expect("a rule");
        let request = Request::of(&format!("GET {host}{path}"));
        if let Some(needed) = rule.needed_hosts() {
            prop_assert!(!rule.holds(&request) || needed.contains(&host), "{text}");
        }
        let not = Rule::parse(&format!("!({text})"), Scope::Http, false).expect("a rule");
        prop_assert_ne!(not.holds(&request), rule.holds(&request));
    }

    #[test]
    fn any_text_is_a_rule_or_an_error(text in "[HostPah(`)&|! \"\\\\{}a*/.]{0,60}") {
        for old in [false, true] {
            let _ = Rule::parse(&text, Scope::Http, old);
            let _ = Rule::parse(&text, Scope::Tcp, old);
        }
    }
}

fn rule() -> impl Strategy<Value = String> {
    let leaf =
        prop_oneof!["[abc]".prop_map(|it| format!("Host(`{it}`)")), "[xyz]".prop_map(|it| format!("Path(`/{it}`)")),];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            inner.prop_map(|it| format!("!({it})")),
        ]
    })
}

proptest! {
    #[test]
    fn any_labels_are_routes_or_problems(text in "(traefik\\.enable=true\n)?((traefik\\.(http|tcp|udp)\\.(routers|services|middlewares)\\.[ab]\\.(rule|service|middlewares|tls|loadbalancer\\.server\\.port|chain\\.middlewares|addprefix\\.prefix)|herder\\.http\\.(host|port|tls|path))=[Host(`a`)80b,]{0,12}\n){0,8}") {
        crate::fuzz::fuzz_rule(text.as_bytes());
    }
}
