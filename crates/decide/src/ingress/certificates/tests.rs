use herder_model::swarm::{Command, IngressSettings, RouteTls, Time};

use super::*;

const NOW: i64 = 1_000_000;

fn settings() -> IngressSettings {
    let resolver = |directory: &str, challenge: &str| Resolver {
        directory: directory.to_owned(),
        challenge: challenge.to_owned(),
        ..Resolver::default()
    };
    let resolvers = [
        ("le".to_owned(), resolver("https://ca/dir", "http-01")),
        ("dns".to_owned(), resolver("https://ca/dir", "dns-01")),
        ("own".to_owned(), resolver(OWN_AUTHORITY, "")),
    ];
    IngressSettings { resolvers: resolvers.into(), ..IngressSettings::default() }
}

/// ``le Host(`a`) [domain,domain]; …``
fn state(text: &str) -> IngressState {
    let routes = text.split(';').enumerate().map(|(at, line)| {
        let (resolver, rule) = line.trim().split_once(' ').expect("a resolver and a rule");
        let (rule, domains) = rule.split_once(" [").map_or((rule, ""), |(rule, it)| (rule, it.trim_end_matches(']')));
        let domains = domains.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
        let passthrough = resolver == "through";
        let tls = Some(RouteTls { resolver: resolver.to_owned(), domains, passthrough });
        (format!("r{at}"), Route { rule: rule.to_owned(), tls, ..Route::default() })
    });
    IngressState { settings: settings(), routes: routes.collect(), ..IngressState::default() }
}

#[test]
fn certificates_have_the_exact_hosts_of_routes() {
    let check = |text: &str, expected: &str| {
        let wanted =
            wanted(&state(text)).into_iter().map(|(names, resolver)| format!("{resolver} {}", names.join(",")));
        assert_eq!(wanted.collect::<Vec<_>>().join("; "), expected, "{text}");
    };
    check("le Host(`a.x`)", "le a.x");
    check("le Host(`a.x`) || Host(`b.x`)", "le a.x,b.x");
    check("le Host(`a.x`); le Host(`a.x`) && PathPrefix(`/b`)", "le a.x");
    check("le Host(`a.x`); le Host(`a.x`) || Host(`b.x`)", "le a.x,b.x");
    check("le Host(`a.x`); own Host(`a.x`)", "le a.x; own a.x");
    check("le Host(`a.x`) [B.x,c.x]", "le b.x,c.x");
    check("le Host(`*.x`) || Host(`a.x`)", "le a.x");
    check("dns Host(`*.x`); dns Host(`a.x`); dns Host(`x`)", "dns *.x; dns x");
    check("le Host(`a.x`) && !Host(`b.x`)", "le a.x");
    check("le HostRegexp(`.*`)", "");
    check("le Host(`1.2.3.4`)", "");
    check("other Host(`a.x`); through Host(`b.x`)", "");
}

fn view(records: &[(&str, CertificateRecord)]) -> View {
    let changes = records.iter().enumerate().map(|(at, (name, record))| {
        let kind = certificate_kind().expect("a word");
        Resource::new(kind, &format!("id{at}"), name, record).expect("a resource").into()
    });
    let mut view = View::default();
    view.apply(1, &Command { at: Time(1), changes: changes.collect() }).expect("fits");
    view
}

fn shown(view: &View, text: &str) -> String {
    match due(view, &state(text), NOW) {
        Ok(due) => due.iter().map(|it| format!("{} of {}", it.name, it.resolver)).collect::<Vec<_>>().join("; "),
        Err(next) => format!("next {next:?}"),
    }
}

#[test]
fn certificates_are_asked_for_when_there_is_none_and_when_it_grows_old() {
    let none = view(&[]);
    assert_eq!(shown(&none, "le Host(`a.x`); le Host(`b.x`)"), "a.x of le; b.x of le");
    let Ok(due) = due(&none, &state("le Host(`a.x`)"), NOW) else { panic!("it is due") };
    let begun = ordered(&due[0], CertificateOrder { url: "u".into(), ..CertificateOrder::default() });
    assert_eq!(shown(&view(&[("a.x", begun.clone())]), "le Host(`b.x`); le Host(`a.x`)"), "a.x of le; b.x of le");
    let valid = issued(&due[0], "acme", "chain".into(), "key".into(), (NOW - 900, NOW + 90_000));
    assert!(valid.renew_at > NOW && valid.renew_at < NOW + 90_000, "{}", valid.renew_at);
    let has = |record: &CertificateRecord| view(&[("a.x", record.clone())]);
    assert_eq!(shown(&has(&valid), "le Host(`a.x`)"), format!("next Some({})", valid.renew_at));
    let old = CertificateRecord { renew_at: NOW, ..valid.clone() };
    assert_eq!(shown(&has(&old), "le Host(`a.x`)"), "a.x of le");
    assert_eq!(shown(&has(&valid), "own Host(`a.x`)"), "a.x of own", "another resolver is asked anew");
    let imported = CertificateRecord { source: "import".into(), names: vec!["*.x".into()], ..valid.clone() };
    assert_eq!(shown(&view(&[("mine", imported.clone())]), "le Host(`a.x`)"), "next None");
    let ended = CertificateRecord { not_after: NOW, ..imported };
    assert_eq!(shown(&view(&[("mine", ended)]), "le Host(`a.x`)"), "a.x of le");
    // What is served stays, whatever becomes of the next order.
    let failing = Due { record: old, ..due[0].clone() };
    let after = failed(&failing, "no", false, 1, NOW);
    assert_eq!((after.chain.as_str(), after.names.len(), after.state.as_str()), ("chain", 1, "failed"));
    assert_eq!(shown(&has(&after), "le Host(`a.x`)"), format!("next Some({})", NOW + REFUSED_PAUSE));
    assert_eq!(problems(&has(&after))[0].to_string(), "certificate a.x was not issued by le: no");
}

#[test]
fn pauses_after_failures_double_up_to_a_day() {
    let mut due =
        Due { name: "a".into(), names: vec!["a".into()], resolver: "le".into(), record: CertificateRecord::default() };
    let mut pauses = Vec::new();
    for _ in 0..12 {
        due.record = failed(&due, "no", false, 1, 0);
        pauses.push(due.record.next_try);
    }
    assert_eq!(pauses[..5], [300, 600, 1200, 2400, 4800]);
    assert_eq!(pauses[11], PAUSE_MAX);
    // An authority that is away does not end its order.
    due.record = CertificateRecord { order: Some(CertificateOrder::default()), ..CertificateRecord::default() };
    let away = failed(&due, "away", true, 1, 0);
    assert_eq!((away.order.is_some(), away.next_try), (true, AWAY_PAUSE));
    assert!(failed(&due, "no", false, 1, 0).order.is_none());
}

#[test]
fn authorities_are_asked_in_turn() {
    let resolver = |directory: &str, fallback: &str| Resolver {
        directory: directory.to_owned(),
        fallback: fallback.to_owned(),
        ..Resolver::default()
    };
    let all = [("a", "b"), ("b", "c"), ("c", "a"), ("alone", "")];
    let all = all.map(|(name, fallback)| (name.to_owned(), resolver(name, fallback))).into();
    let of = |name: &str| authorities(&all, name).iter().map(|it| it.directory.clone()).collect::<String>();
    assert_eq!(["a", "c", "alone", "other"].map(of), ["abc", "cab", "alone", ""]);
    let mut due =
        Due { name: "a".into(), names: vec!["a".into()], resolver: "a".into(), record: CertificateRecord::default() };
    let authorities = authorities(&all, "a");
    let mut steps = Vec::new();
    for _ in 0..7 {
        let before = due.record.next_try;
        let directory = asked(&authorities, &due).map(|it| it.directory.clone()).unwrap_or_default();
        due.record.order = Some(CertificateOrder::default());
        due.record = failed(&due, "no", true, 3, before);
        assert!(due.record.order.is_none(), "another authority does not know it");
        steps.push(format!("{directory} {}", due.record.next_try - before));
    }
    assert_eq!(steps.join(", "), "a 30, b 30, c 60, a 30, b 30, c 120, a 30");
    assert!(asked(&[], &due).is_none());
}

#[test]
fn answers_to_authorities_are_served_beside_the_certificates() {
    let alpn = ServedCertificate {
        names: vec!["a".into()],
        chain: "c".into(),
        key: "k".into(),
        not_after: 0,
        challenge: true,
    };
    let order = CertificateOrder {
        tokens: [("t1".to_owned(), "t1.thumb".to_owned())].into(),
        alpn: [("t2".to_owned(), alpn)].into(),
        ..CertificateOrder::default()
    };
    let old = CertificateRecord { chain: "old".into(), order: Some(order), ..CertificateRecord::default() };
    let (certificates, tokens) = served(&view(&[("a", old)]));
    assert_eq!(certificates.keys().collect::<Vec<_>>(), ["acme/t2", "id0"]);
    let state = IngressState { certificates, challenges: tokens, ..IngressState::default() };
    assert_eq!(challenges(&state).into_iter().collect::<Vec<_>>(), ["t1", "t2"]);
}

#[test]
fn resolvers_that_cannot_work_are_refused() {
    let check = |text: &str, expected: &str| {
        let part = |name: &str| {
            let of_name = text.split(' ').find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
            of_name.unwrap_or_default().to_owned()
        };
        let resolver = Resolver {
            directory: part("directory"),
            challenge: part("challenge"),
            hook: part("hook"),
            eab_id: part("eab-id"),
            ..Resolver::default()
        };
        assert_eq!(fault("r", &resolver, &BTreeMap::new()).unwrap_or_default(), expected, "{text}");
    };
    check("directory=https://ca/ challenge=http-01", "");
    check("directory=own", "");
    check(
        "directory=http://ca/ challenge=http-01",
        "resolver r: directory \"http://ca/\": write an https:// URL, letsencrypt, letsencrypt-staging or own",
    );
    check("directory=https://ca/ challenge=x", "resolver r: challenge \"x\": write http-01, tls-alpn-01 or dns-01");
    check(
        "directory=https://ca/ challenge=dns-01",
        "resolver r: the challenge dns-01 needs hook=PROGRAM, which is called with set|unset NAME VALUE",
    );
    check("directory=https://ca/ challenge=http-01 eab-id=1", "resolver r: eab-id and eab-secret are given together");
}
