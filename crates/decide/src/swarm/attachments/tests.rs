//! Requests of nodes for plain containers, one line each, and the records that the leader writes.

use herder_model::swarm::{Command, IpamConfig, IpamOptions};

use super::*;

fn network(id: &str, name: &str, third: u8, attachable: bool) -> NetworkRecord {
    let configs = vec![IpamConfig {
        subnet: format!("10.0.{third}.0/29"),
        gateway: format!("10.0.{third}.1"),
        ..IpamConfig::default()
    }];
    let mut record = NetworkRecord { id: id.into(), name: name.into(), vni: third.into(), ..NetworkRecord::default() };
    record.spec.name = name.into();
    record.spec.attachable = attachable;
    record.ipam_options = Some(IpamOptions { configs, ..IpamOptions::default() });
    record
}

fn write(view: &mut View, change: Option<Change>) {
    let Some(mut change) = change else { return };
    if let Change::Put(object) = &mut change {
        let version = view.get(object.kind(), object.id()).map_or(0, |it| it.meta().version.index);
        object.rebase(version);
    }
    let command = Command { at: Time(1), changes: vec![change] };
    view.apply(view.index + 1, &command).expect("it fits");
}

/// Asks for places: `c1@n1 ov=10.0.1.5 my:db` for container `c1` of node `n1`, an address with `=`, an alias with `:`.
/// `-c1@n1` releases it.
fn step(view: &mut View, addresses: &mut Addresses, line: &str) -> String {
    let mut words = line.split(' ');
    let who = words.next().expect("a container");
    let (id, node) = who.trim_start_matches('-').split_once('@').expect("container@node");
    if who.starts_with('-') {
        let change = release(view, node, id);
        let said = if change.is_some() { "gone" } else { "nothing" };
        write(view, change);
        return said.into();
    }
    let asked = words.map(|word| {
        let (word, alias) = word.split_once(':').map_or((word, None), |(word, alias)| (word, Some(alias)));
        let (target, v4) = word.split_once('=').map_or((word, None), |(target, v4)| (target, Some(v4)));
        AttachedNetwork {
            target: target.trim_end_matches('?').into(),
            v4: v4.map(|it| it.parse().expect("an address")),
            any: target.ends_with('?'),
            aliases: alias.into_iter().map(str::to_owned).collect(),
            ..AttachedNetwork::default()
        }
    });
    let wanted = Attachment { container_name: id.into(), networks: asked.collect(), ..Attachment::default() };
    addresses.begin_step();
    let change = attach(view, addresses, node, id, &wanted, Time(1));
    if change.is_none() {
        return "nothing".into();
    }
    write(view, change);
    let record = &view.tasks[id];
    let places = record.networks.iter().map(|it| {
        let aliases = it.aliases.join(",");
        format!("{}={}{aliases}", it.network_id, it.v4.expect("an address"))
    });
    let refused = record.attached.iter().flat_map(|it| &it.refused);
    let refused = refused.map(|(target, it)| format!("{target}: {} {}", it.status, it.reason));
    places.chain(refused).collect::<Vec<_>>().join("; ")
}

#[test]
fn plain_containers_get_places_in_attachable_networks() {
    let mut view = View::default();
    for network in [network("idov", "ov", 1, true), network("idmy", "my", 2, true), network("idno", "no", 3, false)] {
        write(&mut view, Some(network.into()));
    }
    let mut addresses = Addresses::default();
    let not_attachable = "no: 403 Could not attach to network no: rpc error: code = PermissionDenied desc = network no not manually \
                          attachable";
    for (line, expected) in [
        ("c1@n1 ov", "idov=10.0.1.2"),
        ("c1@n1 ov", "nothing"),
        // A second network, by the beginning of its id; the first place stays.
        ("c1@n1 ov idm:db", "idov=10.0.1.2; idmy=10.0.2.2db"),
        ("c1@n2 ov", "nothing"),
        ("-c1@n2", "nothing"),
        ("c2@n2 ov=10.0.1.6", "idov=10.0.1.6"),
        ("c3@n2 ov=10.0.1.6", "ov: 403 address 10.0.1.6 of network ov cannot be given: it is in use"),
        ("c3@n2 ov=10.0.9.9", "ov: 403 address 10.0.9.9 of network ov cannot be given: it is not one of its own"),
        ("c3@n2 ov?=10.0.1.6", "idov=10.0.1.3"),
        ("c4@n2 no ov", &format!("idov=10.0.1.4; {not_attachable}")),
        ("c5@n2 else", "else: 404 network else not found"),
        ("-c5@n2", "gone"),
        ("c6@n2 ov", "idov=10.0.1.5"),
        (
            "c7@n2 ov",
            "ov: 403 no address is left in network ov (10.0.1.0/29: 6 of 6 in use); scale services down, or move them to a network \
             with a larger subnet (docker network create -d overlay --subnet …)",
        ),
        ("-c1@n1", "gone"),
        ("c7@n2 ov", "idov=10.0.1.2"),
    ] {
        assert_eq!(step(&mut view, &mut addresses, line), expected, "{line}");
    }
}

#[test]
fn a_stopped_container_holds_no_network() {
    let mut view = View::default();
    write(&mut view, Some(network("n-ov", "ov", 1, true).into()));
    let mut addresses = Addresses::default();
    let place = |running: bool| Attachment {
        container_id: "c1".into(),
        running,
        networks: vec![AttachedNetwork { target: "ov".into(), ..AttachedNetwork::default() }],
        ..Attachment::default()
    };
    let change = attach(&view, &mut addresses, "n1", "a1", &place(true), Time(1));
    write(&mut view, change);
    let refusal = crate::swarm::control::remove_network(&view, "ov").expect_err("it runs");
    assert!(refusal.to_string().ends_with("network n-ov is in use by task a1"), "{refusal}");
    let change = attach(&view, &mut addresses, "n1", "a1", &place(false), Time(2));
    write(&mut view, change);
    for change in crate::swarm::control::remove_network(&view, "ov").expect("it is stopped") {
        write(&mut view, Some(change));
    }
    assert!(view.networks.is_empty());
    assert!(view.tasks["a1"].networks.is_empty());
    // Another network of that name is another network.
    write(&mut view, Some(network("n-new", "ov", 2, true).into()));
    let change = attach(&view, &mut addresses, "n1", "a1", &place(true), Time(3));
    write(&mut view, change);
    assert!(view.tasks["a1"].networks.is_empty());
}
