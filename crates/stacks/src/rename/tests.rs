use herder_deploy::images::Images;
use herder_model::swarm::{Command, ContainerSpec, Mount, Object, Time};

use super::*;
use crate::begin::{Asking, Ids, Wish, begin};
use crate::record::DeployOptions;
use crate::record::tests::view_of_this_release;
use crate::{Bundle, File};

fn put(view: &mut View, changes: Vec<Change>) {
    let index = view.index + 1;
    view.apply(index, &Command { at: Time(index), changes }).expect("it fits");
}

fn labels(stack: &str) -> Labels {
    Some([(STACK_LABEL.to_owned(), stack.to_owned())].into())
}

/// A service `STACK_KEY` with the volume `STACK_data`.
fn service(stack: &str, key: &str) -> Change {
    let mut record = ServiceRecord::default();
    let service = &mut record.service;
    service.id = format!("id-{key}");
    (service.spec.name, service.spec.labels) = (format!("{stack}_{key}"), labels(stack));
    let mount = Mount { kind: "volume".into(), source: format!("{stack}_data"), ..Mount::default() };
    let container = ContainerSpec { mounts: vec![mount], ..ContainerSpec::default() };
    service.spec.task_template.container_spec = Some(container);
    Change::PutSpec(record.into())
}

fn network(stack: &str, key: &str) -> Change {
    let mut record = NetworkRecord { id: format!("n-{key}"), ..NetworkRecord::default() };
    record.name = format!("{stack}_{key}");
    record.spec.labels = labels(stack);
    record.into()
}

fn config(stack: &str, key: &str) -> Change {
    let mut object = Config { id: format!("c-{key}"), ..Config::default() };
    (object.spec.name, object.spec.labels) = (format!("{stack}_{key}"), labels(stack));
    object.into()
}

/// The begin of a deployment, and its end.
fn deploy(view: &mut View, stack: &str, text: &str) -> Result<(), Refused> {
    let files = [("compose.yaml".to_owned(), Some(File::Text(text.to_owned())))].into();
    let bundle = Bundle { files, ..Bundle::default() };
    let wish = Wish::Deploy { bundle, images: Images::new(), options: DeployOptions::default() };
    let id = |kind: &str| format!("{kind}{}", view.index);
    let ids = Ids { stack: id("s"), revision: id("r"), operation: id("o") };
    let begun = begin(view, OWN, stack, wish, Asking { by: "me", now: "t", waits: false }, ids)?;
    put(view, begun.changes);
    let kind = kinds().expect("kinds").operation;
    let found = find::<crate::Operation>(view, kind, &begun.operation).expect("it is there");
    let over = crate::Operation { state: crate::OperationState::Succeeded, ..found.record };
    put(view, vec![crate::begin::put(view, kind, &found.id, "", found.version, &over).expect("a record")]);
    let stack = stacks(view, OWN).into_iter().find(|it| it.record.stack == stack).expect("a stack");
    let active =
        Stack { operation: String::new(), revision: begun.revision, state: StackState::Active, ..stack.record };
    let kind = kinds().expect("kinds").stack;
    put(view, vec![crate::begin::put(view, kind, &stack.id, "", stack.version, &active).expect("a record")]);
    Ok(())
}

const FILE: &str = "services:\n  web: {image: i, volumes: ['data:/d', 'former:/f']}\nvolumes: {data: {}, former: {}}\n";

fn view() -> View {
    let mut view = view_of_this_release();
    deploy(&mut view, "shop", FILE).expect("it begins");
    let objects = [service("shop", "web"), network("shop", "default"), config("shop", "conf.1a2b3c4d")];
    objects.into_iter().for_each(|object| put(&mut view, vec![object]));
    view
}

/// Names and labels of all objects.
fn told(view: &View) -> String {
    let label = |labels: &Labels| labels.as_ref().and_then(|it| it.get(STACK_LABEL)).cloned().unwrap_or_default();
    let mut lines = Vec::new();
    for it in view.services.values() {
        let spec = &it.service.spec;
        let former = spec.labels.as_ref().and_then(|it| it.get(FORMER_NAMES_LABEL)).cloned().unwrap_or_default();
        lines.push(format!("service {} of {} was {former}", spec.name, label(&spec.labels)));
    }
    lines.extend(view.networks.values().map(|it| format!("network {} of {}", it.name, label(&it.spec.labels))));
    lines.extend(view.configs.values().map(|it| format!("config {} of {}", it.spec.name, label(&it.spec.labels))));
    for it in stacks(view, OWN) {
        let numbers: Vec<u64> = revisions(view, OWN, &it.record.stack).iter().map(|it| it.record.number).collect();
        lines.push(format!("stack {} {numbers:?} {:?}", it.record.stack, it.record.pins));
    }
    lines.join("\n")
}

fn renamed(view: &mut View, old: &str, new: &str) -> Result<(), String> {
    let changes = rename(view, old, new, "me", "new-id".into()).map_err(|refused| refused.to_string())?.changes;
    put(view, changes);
    Ok(())
}

#[test]
fn services_and_records_get_the_name_and_all_else_keeps_its_own() {
    let mut view = view();
    let (tasks, before) = (view.services["id-web"].spec_version, view.index);
    renamed(&mut view, "shop", "store").expect("renamed");
    assert_eq!(view.index, before + 1);
    // The tasks are those of the specification in place.
    assert_eq!(view.services["id-web"].spec_version, tasks);
    let pins = r#"{"configs": {"conf": "shop_conf"}, "networks": {"default": "shop_default"}, "volumes": {"data": "shop_data", "former": "shop_former"}}"#;
    assert_eq!(
        told(&view),
        format!(
            "service store_web of store was shop_web\nnetwork shop_default of store\n\
             config shop_conf.1a2b3c4d of store\nstack store [1] {pins}"
        )
    );
    // Once more, and back.
    renamed(&mut view, "store", "market").expect("renamed");
    assert!(told(&view).contains("service market_web of market was shop_web,store_web"), "{}", told(&view));
    assert!(told(&view).ends_with(&format!("stack market [1] {pins}")), "{}", told(&view));
    renamed(&mut view, "market", "shop").expect("renamed");
    assert!(told(&view).contains("service shop_web of shop was market_web,store_web"), "{}", told(&view));
    assert!(told(&view).ends_with("stack shop [1] {}"), "{}", told(&view));
}

#[test]
fn a_stack_of_dockers_own_client_gets_a_record() {
    let mut view = view_of_this_release();
    put(&mut view, vec![service("a", "web")]);
    renamed(&mut view, "a", "b").expect("renamed");
    let lines = "service b_web of b was a_web\nstack b [] {\"volumes\": {\"data\": \"a_data\"}}";
    assert_eq!(told(&view), lines);
}

#[test]
fn names_that_others_have_are_refused() {
    let mut view = view();
    #[track_caller]
    fn check(view: &View, old: &str, new: &str, expected: &str) {
        let refused = rename(view, old, new, "me", "id".into()).expect_err("it is refused").to_string();
        assert_eq!(refused, expected);
    }
    check(&view, "shop", "shop", "the stack has the name shop already");
    check(&view, "shop", "a b", "`a b` cannot be the name of a stack: use up to 63 letters, digits, - and _");
    check(&view, "other", "b", "there is no stack other");
    let long = "x".repeat(60);
    let words = format!("service {long}_web would have more than 63 characters: choose a shorter name");
    check(&view, "shop", &long, &words);
    let mut alone = ServiceRecord::default();
    (alone.service.id, alone.service.spec.name) = ("id-alone".into(), "store_web".into());
    put(&mut view, vec![Change::Put(Object::Service(alone.into()))]);
    check(&view, "shop", "store", "service store_web exists already: choose another name, or remove that service");
    deploy(&mut view, "cellar", "services: {a: {image: i}}").expect("it begins");
    check(&view, "shop", "Cellar", "there is a stack Cellar already: choose another name, or remove it first");
    // Names of volumes are all that tells whose they are.
    renamed(&mut view, "shop", "market").expect("renamed");
    let words = "stack market was renamed and still has shop_conf, shop_default, shop_data, shop_former: choose another name \
                 than shop, or rename it back";
    assert_eq!(deploy(&mut view, "shop", FILE).expect_err("refused").to_string(), words);
    check(&view, "cellar", "shop", words);
    // A manager of an older release would not know of pins.
    check(
        &View::default(),
        "a",
        "b",
        "rpc error: code = FailedPrecondition desc = stacks need feature level 3, and the \
           swarm's managers agree on level 0: all managers can; try again in a moment",
    );
}

#[test]
fn revisions_for_which_there_is_no_room_are_named() {
    let mut view = view_of_this_release();
    let large = format!("services: {{web: {{image: i}}}}\n# {}\n", "x".repeat(900_000));
    for _ in 0..5 {
        deploy(&mut view, "shop", &large).expect("it begins");
    }
    put(&mut view, vec![service("shop", "web")]);
    let renamed = rename(&view, "shop", "store", "me", "id".into()).expect("renamed");
    assert_eq!(renamed.dropped, [2, 1]);
    put(&mut view, renamed.changes);
    assert!(told(&view).contains("stack store [5, 4, 3]"), "{}", told(&view));
    put(
        &mut view,
        vec![{
            let mut object = Config { id: "c".into(), ..Config::default() };
            (object.spec.name, object.spec.labels) = ("store_c".into(), labels("store"));
            object.spec.data = "x".repeat(BYTES_MAX);
            object.into()
        }],
    );
    let refused = rename(&view, "store", "shop", "me", "id".into()).expect_err("too large").to_string();
    assert!(refused.contains("more than one write may have (3145728): deploy its files as shop"), "{refused}");
}

#[test]
fn the_leader_and_the_deployment_mean_the_same_label() {
    assert_eq!(FORMER_NAMES_LABEL, herder_decide::swarm::nets::FORMER_NAMES);
}
