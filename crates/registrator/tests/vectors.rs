//! Table tests (`vectors.txt`): the services of a container, and the record that each store gets.

use herder_registrator::plan::{Books, Write, ended_well};
use herder_registrator::service::{Naming, Rules, Service, address, is_of_host, services, tags};
use herder_registrator::{ForcedTags, record};
use serde_json::{Value, json};

/// A container as an engine describes it, from the lines of a case.
#[derive(Default)]
struct Case {
    rules: Rules,
    tags: String,
    container: Value,
    other: Option<Value>,
    expected: Vec<String>,
}

fn case(text: &str) -> Case {
    let mut case = Case {
        rules: Rules { hostname: "dockerhost01".into(), host_ip: "10.100.199.201".parse().ok(), ..Rules::default() },
        container: json!({
            "Id": "0123456789abcdef", "Name": "/web",
            "Config": { "Env": [], "Labels": {}, "ExposedPorts": {} },
            "HostConfig": { "NetworkMode": "default" },
            "NetworkSettings": { "Ports": {}, "Networks": {}, "IPAddress": "" },
        }),
        ..Case::default()
    };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let container = &mut case.container;
        match word {
            "=" | "!" => case.expected.push(line.to_owned()),
            "image" => container["Config"]["Image"] = rest.into(),
            "env" => container["Config"]["Env"].as_array_mut().expect("a list").push(rest.into()),
            "label" => {
                let (key, value) = rest.split_once('=').expect("key=value");
                container["Config"]["Labels"][key] = value.into();
            }
            "expose" => rest.split(' ').for_each(|port| container["Config"]["ExposedPorts"][port] = json!({})),
            "bind" => {
                let (port, at) = rest.split_once(' ').unwrap_or((rest, ""));
                let binding = at.rsplit_once(':').map(|(ip, port)| json!([{ "HostIp": ip, "HostPort": port }]));
                container["NetworkSettings"]["Ports"][port] = binding.into();
            }
            "mode" => container["HostConfig"]["NetworkMode"] = rest.into(),
            "address" => container["NetworkSettings"]["IPAddress"] = rest.into(),
            "network" => {
                let (name, ip) = rest.split_once(' ').expect("name and address");
                container["NetworkSettings"]["Networks"][name] = json!({ "IPAddress": ip });
            }
            "other" => case.other = Some(json!({ "NetworkSettings": { "IPAddress": rest } })),
            "rules" => match rest.split_once('=') {
                None if rest == "legacy" => case.rules.naming = Naming::Legacy2015,
                None if rest == "internal" => case.rules.internal = true,
                None if rest == "explicit" => case.rules.explicit = true,
                Some(("ip", ip)) => case.rules.ip = Some(ip.to_owned()),
                Some(("label", label)) => case.rules.ip_label = Some(label.to_owned()),
                Some(("tags", tags)) => case.tags = tags.replace('_', " "),
                _ => panic!("{line}"),
            },
            _ => panic!("{line}"),
        }
    }
    case
}

fn told(service: &Service) -> String {
    let mut text = format!("= {} {} {}", service.id, service.name, address(service));
    if !service.tags.is_empty() {
        text.push_str(&format!(" tags {}", service.tags.join(";")));
    }
    if !service.attrs.is_empty() {
        let pairs: Vec<String> = service.attrs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        text.push_str(&format!(" attrs {}", pairs.join(" ")));
    }
    text
}

#[test]
fn containers_become_services_by_both_eras_of_rules() {
    let text = include_str!("vectors.txt");
    let cases: Vec<&str> = text.split("\n\n").filter(|case| case.contains("image ")).collect();
    assert!(cases.len() >= 40, "{} cases", cases.len());
    for text in cases {
        let case = case(text);
        let tags = ForcedTags::parse(&case.tags).and_then(|tags| tags.of(&case.container)).expect("tags");
        let (found, ignored) = services(&case.container, case.other.as_ref(), &tags, &case.rules);
        let mut seen: Vec<String> = found.iter().map(told).collect();
        seen.extend(ignored.into_iter().map(|why| format!("! {}", why.0)));
        let fits = seen.len() == case.expected.len()
            && seen.iter().zip(&case.expected).all(|(seen, expected)| match expected.strip_prefix("! ") {
                Some(why) => seen.starts_with('!') && seen.contains(why),
                None => seen == expected,
            });
        assert!(fits, "{text}\n\nfound\n{}", seen.join("\n"));
    }
}

fn service(attrs: &[(&str, &str)]) -> Service {
    Service {
        id: "dockerhost01:web:80".into(),
        name: "webapp".into(),
        ip: "10.0.0.1".into(),
        port: 49166,
        tags: tags("a,b"),
        attrs: attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ttl: 0,
        container: "0123456789abcdef".into(),
        exposed_port: "80".into(),
        published_port: "49166".into(),
        health: false,
    }
}

#[test]
fn each_store_gets_its_form() {
    let plain = service(&[]);
    let (key, value) = record::key_value("services", &plain);
    assert_eq!((key.as_str(), value.as_str()), ("services/webapp/dockerhost01:web:80", "10.0.0.1:49166"));
    assert_eq!(record::skydns_prefix("cluster.local"), "/skydns/local/cluster");
    assert_eq!(record::skydns_value(&plain), r#"{"host":"10.0.0.1","port":49166}"#);
    assert_eq!(
        record::zookeeper_value(&plain),
        r#"{"Name":"webapp","IP":"10.0.0.1","PublicPort":49166,"PrivatePort":80,"ContainerID":"0123456789ab","Tags":["a","b"],"Attrs":{}}"#
    );
    let consul = record::consul(&service(&[("region", "us2")]));
    assert_eq!(
        consul.to_string(),
        r#"{"ID":"dockerhost01:web:80","Name":"webapp","Port":49166,"Address":"10.0.0.1","Tags":["a","b"],"Meta":{"region":"us2"}}"#
    );
}

#[test]
fn the_first_attribute_for_a_check_counts() {
    for (attrs, expected) in [
        (
            &[("check_http", "/up"), ("check_timeout", "1s")][..],
            r#"{"HTTP":"http://10.0.0.1:49166/up","Timeout":"1s","Interval":"10s"}"#,
        ),
        (
            &[("check_https", "/up"), ("check_https_method", "HEAD"), ("check_interval", "3s")],
            r#"{"HTTP":"https://10.0.0.1:49166/up","Method":"HEAD","Interval":"3s"}"#,
        ),
        (&[("check_cmd", "/bin/check")], r#"{"Args":["check-cmd","0123456789ab","80","/bin/check"],"Interval":"10s"}"#),
        (&[("check_script", "nc $SERVICE_IP $SERVICE_PORT")], r#"{"Args":["nc 10.0.0.1 49166"],"Interval":"10s"}"#),
        (&[("check_ttl", "30s"), ("check_interval", "3s")], r#"{"TTL":"30s"}"#),
        (
            &[("check_tcp", "true"), ("check_initial_status", "passing")],
            r#"{"Status":"passing","TCP":"10.0.0.1:49166","Interval":"10s"}"#,
        ),
        (
            &[("check_grpc", "true"), ("check_grpc_use_tls", "true"), ("check_tls_skip_verify", "true")],
            r#"{"GRPC":"10.0.0.1:49166","GRPCUseTLS":true,"TLSSkipVerify":true,"Interval":"10s"}"#,
        ),
        (
            &[("check_http", "/"), ("check_tcp", "true"), ("check_deregister_after", "1m")],
            r#"{"HTTP":"http://10.0.0.1:49166/","Interval":"10s","DeregisterCriticalServiceAfter":"1m"}"#,
        ),
    ] {
        assert_eq!(record::consul(&service(attrs))["Check"].to_string(), expected);
    }
    let healthy = Service { health: true, ..service(&[]) };
    assert_eq!(record::consul(&healthy)["Check"].to_string(), r#"{"TTL":"60s"}"#);
}

#[test]
fn ids_of_this_host_are_known_by_their_form() {
    for id in ["h1:web:80", "h1:web:53:udp", "h1:a:b:80"] {
        assert!(is_of_host(id, "h1"), "{id}");
    }
    for id in ["h2:web:80", "h1:web", "h1:web:x", "h1x:web:80", "h1::80", "my-id"] {
        assert!(!is_of_host(id, "h1"), "{id}");
    }
}

#[test]
fn the_books_tell_what_is_due() {
    let mut books = Books::default();
    let web = service(&[]);
    let carry_out = |books: &mut Books| -> Vec<String> {
        let due = books.due();
        due.iter().for_each(|write| books.done(write));
        due.iter()
            .map(|write| match write {
                Write::Register(service) => format!("+{}", service.id),
                Write::Deregister(service) => format!("-{}", service.id),
            })
            .collect()
    };
    books.runs(&web.container, vec![web.clone()]);
    assert_eq!(carry_out(&mut books), ["+dockerhost01:web:80"]);
    assert_eq!(carry_out(&mut books), [""; 0]);
    // Renewed while it lives; a failed one stays and is not renewed.
    books.again();
    assert_eq!(carry_out(&mut books), ["+dockerhost01:web:80"]);
    books.failed(&web.container);
    books.again();
    assert_eq!(carry_out(&mut books), [""; 0]);
    books.runs(&web.container, vec![Service { port: 5, ..web.clone() }]);
    assert_eq!(carry_out(&mut books), ["-dockerhost01:web:80", "+dockerhost01:web:80"]);
    // What an earlier run left goes, but not what is wanted.
    books.found(Service { ip: String::new(), port: 0, ..web.clone() });
    books.found(Service { id: "dockerhost01:old:80".into(), ..web.clone() });
    assert_eq!(carry_out(&mut books), ["-dockerhost01:old:80"]);
    books.ended(&web.container);
    assert_eq!(carry_out(&mut books), ["-dockerhost01:web:80"]);
    assert!(ended_well(0) && ended_well(137) && !ended_well(1) && !ended_well(2));
}
