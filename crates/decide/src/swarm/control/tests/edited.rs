//! Secrets and configs that are edited in place.

use std::collections::BTreeMap;

use super::*;

/// The files of a swarm: kind, id, name and data, `superseded` for those that are.
fn files(swarm: &Swarm) -> Vec<String> {
    let mark = |labels: Option<&BTreeMap<String, String>>| {
        if labels.is_some_and(|it| it.contains_key(SUPERSEDED_LABEL)) { " superseded" } else { "" }
    };
    let secrets = swarm
        .view
        .secrets
        .values()
        .map(|it| format!("secret {} {} {}{}", it.id, it.spec.name, it.spec.data, mark(it.spec.labels.as_ref())));
    let configs = swarm
        .view
        .configs
        .values()
        .map(|it| format!("config {} {} {}{}", it.id, it.spec.name, it.spec.data, mark(it.spec.labels.as_ref())));
    secrets.chain(configs).collect()
}

#[test]
fn data_of_a_stack_is_edited_in_place_and_the_old_object_stays_while_something_refers_to_it() {
    let mut swarm = Swarm::default();
    let labels = |key: &str| Some(BTreeMap::from([(key.to_owned(), "true".to_owned())]));
    let of_stack = || labels("com.docker.stack.namespace");
    let secret =
        |data: &str| SecretSpec { name: "s".into(), data: data.into(), labels: of_stack(), ..Default::default() };
    let config = |data: &str, labels| ConfigSpec { name: "c".into(), data: data.into(), labels, ..Default::default() };
    let made = create_secret(&swarm.view, secret("AAAA"), "s1".into());
    assert_eq!(swarm.did(made), "");
    let made = create_config(&swarm.view, config("AAAA", None), "c1".into());
    assert_eq!(swarm.did(made), "");
    let uses = |secret: &str, config: &str| {
        json!({"TaskTemplate": {"ContainerSpec": {
            "Secrets": [{"SecretID": secret, "SecretName": "s", "File": {"Name": "s"}}],
            "Configs": [{"ConfigID": config, "ConfigName": "c", "File": {"Name": "c"}}]}}})
    };
    assert_eq!(swarm.create("web", &uses("s1", "c1")), "");
    // The label may be there before, or come with the update.
    let edited = update_secret(&swarm.view, "s", 1, secret("BBBB"), "s2".into());
    assert_eq!(swarm.did(edited), "");
    let edited = update_config(&swarm.view, "c", 2, config("BBBB", labels("herder.versioned")), "c2".into());
    assert_eq!(swarm.did(edited), "");
    let both = [
        "secret s1 s.00000001 AAAA superseded",
        "secret s2 s BBBB",
        "config c1 c.00000002 AAAA superseded",
        "config c2 c BBBB",
    ];
    assert_eq!(files(&swarm), both);
    let late = update_secret(&swarm.view, "s", 1, secret("CCCC"), "s3".into());
    assert_eq!(swarm.did(late), "500 rpc error: code = Unknown desc = update out of sequence");
    let day = Time(10) + std::time::Duration::from_secs(24 * 60 * 60);
    // The service has them, then it had them, then it has had others since.
    assert_eq!(remove_superseded(&swarm.view, day), []);
    assert_eq!(swarm.update("web", &uses("s2", "c2")), "");
    assert_eq!(remove_superseded(&swarm.view, day), []);
    assert_eq!(swarm.roll_back("web"), "");
    assert_eq!(swarm.update("web", &uses("s2", "c2")), "");
    assert_eq!(swarm.update("web", &json!({"TaskTemplate": {"ForceUpdate": 1}})), "");
    assert_eq!(remove_superseded(&swarm.view, Time(11)), []);
    let removals = remove_superseded(&swarm.view, day);
    assert_eq!(swarm.did(Ok(removals)), "");
    assert_eq!(files(&swarm), ["secret s2 s BBBB", "config c2 c BBBB"]);
}
