//! Calls one after the other on one swarm; what each of them is answered.

use herder_model::swarm::{
    ClusterRecord, ClusterSpec, Command, ConfigSpec, InitRequest, JoinRequest, JoinTokens, NewRoot, NodeRecord,
    NodeSpec, Reachability, Role, RootRotation, SecretSpec, ServiceRecord, SwarmNodeState, Task, TaskRecord, TaskState,
    Time, TlsInfo, View,
};
use serde_json::{Value, json};

use super::*;
use crate::swarm::local::ManagerSeen;

mod edited;

/// A swarm whose clock is its number of writes.
#[derive(Default)]
struct Swarm {
    view: View,
}

impl Swarm {
    /// Applies the changes; returns status and text of a refusal.
    fn did(&mut self, changes: Changes) -> String {
        let index = self.view.index + 1;
        let written = changes
            .and_then(|changes| self.view.apply(index, &Command { at: Time(index), changes }).map_err(Denial::from));
        written.map_or_else(|denial| format!("{} {denial}", denial.status()), |_| String::new())
    }

    fn now(&self) -> Time {
        Time(self.view.index + 1)
    }

    fn secret(&mut self, name: &str) -> String {
        let spec = SecretSpec { name: name.into(), data: "czNjcjN0".into(), ..SecretSpec::default() };
        let changes = create_secret(&self.view, spec, format!("id-{name}"));
        self.did(changes)
    }

    fn config(&mut self, name: &str) -> String {
        let spec = ConfigSpec { name: name.into(), data: "czNjcjN0".into(), ..ConfigSpec::default() };
        let changes = create_config(&self.view, spec, format!("id-{name}"));
        self.did(changes)
    }

    fn create(&mut self, name: &str, more: &Value) -> String {
        let changes = create_service(&self.view, &declared(name, more), format!("id-{name}"), self.now());
        self.did(changes)
    }

    /// Updates the present version.
    fn update(&mut self, name: &str, more: &Value) -> String {
        let update =
            ServiceUpdate { version: self.version(name), declared: declared(name, more), ..ServiceUpdate::default() };
        self.update_with(name, &update)
    }

    fn roll_back(&mut self, name: &str) -> String {
        let declared = declared(name, &json!({}));
        let update =
            ServiceUpdate { version: self.version(name), declared, rollback: true, ..ServiceUpdate::default() };
        self.update_with(name, &update)
    }

    fn update_with(&mut self, name: &str, update: &ServiceUpdate) -> String {
        let changes = update_service(&self.view, name, update, self.now());
        self.did(changes)
    }

    fn version(&self, name: &str) -> u64 {
        self.service(name).service.meta.version.index
    }

    fn service(&self, name: &str) -> &ServiceRecord {
        crate::swarm::lookup::service(&self.view, name).expect("a service")
    }
}

/// A service of one image with more, or something else.
fn declared(name: &str, more: &Value) -> Declared {
    let mut body = json!({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}});
    merge(&mut body, more);
    Declared { spec: serde_json::from_value(body).expect("a service"), ..Declared::default() }
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.iter().for_each(|(key, value)| merge(into.entry(key.clone()).or_insert(Value::Null), value));
        }
        (into, more) => *into = more.clone(),
    }
}

fn with_secret(name: &str) -> Value {
    let secret = json!({"SecretID": format!("id-{name}"), "SecretName": name,
        "File": {"Name": name, "UID": "0", "GID": "0", "Mode": 292}});
    json!({"TaskTemplate": {"ContainerSpec": {"Secrets": [secret]}}})
}

fn with_port(published: u16, mode: &str) -> Value {
    json!({"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": published, "PublishMode": mode}]}})
}

const TAKEN: &str =
    "409 rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists";

#[test]
fn names_are_given_once() {
    let mut swarm = Swarm::default();
    assert_eq!(swarm.create("web", &json!({})), "");
    assert_eq!(swarm.create("web", &json!({})), TAKEN);
    assert_eq!(swarm.secret("tok"), "");
    assert_eq!(swarm.secret("TOK"), "409 rpc error: code = AlreadyExists desc = secret TOK already exists");
    assert_eq!(swarm.config("tok"), "");
    assert_eq!(swarm.config("tok"), "409 rpc error: code = AlreadyExists desc = config tok already exists");
}

#[test]
fn a_service_without_a_name_is_given_one() {
    let mut swarm = Swarm::default();
    for id in ["mkujaftd9ii1yj57q0jo8f6gq", "mkujaftd9ii1yj57q0jo8f6gr"] {
        let changes = create_service(&swarm.view, &declared("", &json!({})), id.into(), Time(1));
        assert_eq!(swarm.did(changes), "");
    }
    let names: Vec<&str> = swarm.view.services.values().map(|it| it.service.spec.name.as_str()).collect();
    assert_eq!(names, ["eager_lynx", "eager_lynx_mkujaftd9ii1yj57q0jo8f6gr"]);
    let update = ServiceUpdate { version: 1, declared: declared("", &json!({})), ..ServiceUpdate::default() };
    let text = "501 rpc error: code = Unimplemented desc = renaming services is not supported";
    assert_eq!(swarm.update_with("eager_lynx", &update), text);
}

#[test]
fn secrets_are_there_while_a_service_has_them() {
    let mut swarm = Swarm::default();
    let none = "400 rpc error: code = InvalidArgument desc = secret not found: tok";
    assert_eq!(swarm.create("web", &with_secret("tok")), none);
    let mut two = with_secret("a");
    two["TaskTemplate"]["ContainerSpec"]["Secrets"]
        .as_array_mut()
        .expect("a list")
        .extend(with_secret("b")["TaskTemplate"]["ContainerSpec"]["Secrets"].as_array().expect("a list").clone());
    assert_eq!(swarm.create("web", &two), "400 rpc error: code = InvalidArgument desc = secrets not found: a, b");
    swarm.secret("tok");
    assert_eq!(swarm.create("web", &with_secret("tok")), "");
    let used = "400 rpc error: code = InvalidArgument desc = secret 'tok' is in use by the following service";
    let changes = remove_secret(&swarm.view, "tok");
    assert_eq!(swarm.did(changes), format!("{used}: web"));
    swarm.create("api", &with_secret("tok"));
    let changes = remove_secret(&swarm.view, "tok");
    assert_eq!(swarm.did(changes), format!("{used}s: api, web"));
    // Somebody removes it between the decision and the write.
    let late = create_service(&swarm.view, &declared("late", &with_secret("tok")), "id-late".into(), Time(9));
    swarm.did(Ok(vec![herder_model::swarm::Change::Remove(Kind::Secret, "id-tok".into())]));
    assert_eq!(swarm.did(late), "404 rpc error: code = NotFound desc = secret id-tok not found");
}

#[test]
fn only_labels_of_secrets_and_configs_can_be_changed() {
    let mut swarm = Swarm::default();
    swarm.secret("tok");
    let spec = |name: &str, data: &str| SecretSpec { name: name.into(), data: data.into(), ..SecretSpec::default() };
    let only = "400 rpc error: code = InvalidArgument desc = only updates to Labels are allowed";
    let mut check = |version: u64, spec: SecretSpec, expected: &str| {
        let changes = update_secret(&swarm.view, "tok", version, spec, "id-new".into());
        assert_eq!(swarm.did(changes), expected);
    };
    check(1, spec("other", ""), only);
    check(1, spec("tok", "AAAA"), only);
    check(9, spec("tok", ""), "500 rpc error: code = Unknown desc = update out of sequence");
    check(1, spec("tok", "czNjcjN0"), "");
    assert_eq!(swarm.view.secrets["id-tok"].spec.data, "czNjcjN0");
    let changes = update_config(&swarm.view, "nosuch", 1, ConfigSpec::default(), "id-new".into());
    assert_eq!(swarm.did(changes), "404 config nosuch not found");
}

#[test]
fn what_an_update_may_not_change() {
    let mut swarm = Swarm::default();
    swarm.create("web", &json!({}));
    let renamed = ServiceUpdate { version: 1, declared: declared("web9", &json!({})), ..ServiceUpdate::default() };
    let text = "501 rpc error: code = Unimplemented desc = renaming services is not supported";
    assert_eq!(swarm.update_with("web", &renamed), text);
    let text = "501 rpc error: code = Unimplemented desc = service mode change is not allowed";
    assert_eq!(swarm.update("web", &json!({"Mode": {"Global": {}}})), text);
    let late = ServiceUpdate { version: 9, declared: declared("web", &json!({})), ..ServiceUpdate::default() };
    assert_eq!(swarm.update_with("web", &late), "500 rpc error: code = Unknown desc = update out of sequence");
    let text = "400 rpc error: code = FailedPrecondition desc = service id-web does not have a previous spec";
    assert_eq!(swarm.roll_back("web"), text);
    assert_eq!(swarm.update_with("nosuch", &late), "404 service nosuch not found");
}

#[test]
fn two_rollbacks_bring_back_what_was() {
    let mut swarm = Swarm::default();
    let image = |it: &Swarm| it.service("web").service.spec.task_template.force_update;
    swarm.create("web", &json!({}));
    assert_eq!(swarm.update("web", &json!({"TaskTemplate": {"ForceUpdate": 1}})), "");
    let second = swarm.service("web").spec_version;
    assert_eq!(swarm.roll_back("web"), "");
    assert_eq!(image(&swarm), 0);
    // An update of its own: what failed in the one before does not count against it.
    let rolled_back = swarm.service("web").spec_version;
    assert!(rolled_back > second);
    let status = swarm.service("web").service.update_status.clone().expect("a status");
    assert_eq!((&*status.state, &*status.message), ("rollback_started", "manually requested rollback"));
    assert_eq!(swarm.roll_back("web"), "");
    assert_eq!(image(&swarm), 1);
    assert!(swarm.service("web").spec_version > rolled_back);
    assert_eq!(swarm.update("web", &json!({})), "");
    assert_eq!(swarm.service("web").service.update_status, None);
}

#[test]
fn credentials_stay_until_others_come() {
    let mut swarm = Swarm::default();
    let with = |auth: &str| Declared { registry_auth: auth.into(), ..declared("web", &json!({})) };
    let changes = create_service(&swarm.view, &with("one"), "id-web".into(), Time(1));
    swarm.did(changes);
    let mut check = |auth: &str, auth_from: AuthFrom, expected: &str| {
        let update = ServiceUpdate {
            version: swarm.version("web"),
            declared: with(auth),
            auth_from,
            ..ServiceUpdate::default()
        };
        let said = swarm.update_with("web", &update);
        let said = if said.is_empty() { swarm.service("web").registry_auth.clone() } else { said };
        assert_eq!(said, expected);
    };
    check("", AuthFrom::PreviousSpec, "500 service does not have a previous spec");
    check("", AuthFrom::Spec, "one");
    check("two", AuthFrom::Spec, "two");
    check("", AuthFrom::PreviousSpec, "one");
}

#[test]
fn each_update_of_a_job_runs_it_again() {
    let mut swarm = Swarm::default();
    let job = json!({"Mode": {"ReplicatedJob": {}}});
    swarm.create("job", &job);
    let iteration = |it: &Swarm| it.service("job").service.job_status.clone().expect("a job").job_iteration.index;
    assert_eq!(iteration(&swarm), 0);
    swarm.update("job", &job);
    swarm.update("job", &job);
    assert_eq!(iteration(&swarm), 2);
    assert_eq!(swarm.service("job").service.job_status.clone().expect("a job").last_execution, Time(3).to_string());
}

#[test]
fn ports_of_every_node_belong_to_one_service() {
    let mut swarm = Swarm::default();
    assert_eq!(swarm.create("web", &with_port(80, "host")), "");
    assert_eq!(swarm.create("web2", &with_port(80, "host")), "", "no node gets both");
    let taken = "400 rpc error: code = InvalidArgument desc = port '80' is already in use by service 'web' (id-web) as a \
                 host-published port";
    assert_eq!(swarm.create("web3", &with_port(80, "ingress")), taken);
    assert_eq!(swarm.update("web", &with_port(80, "host")), "", "its own");
}

#[test]
fn networks_of_services_must_be_there() {
    let mut swarm = Swarm::default();
    let refused = swarm.create("web", &with_port(8080, ""));
    let no_ingress = "400 rpc error: code = FailedPrecondition desc = service needs ingress network, but no ingress network is \
                      present";
    assert_eq!(refused, no_ingress);
    let networks = |name: &str| json!({"TaskTemplate": {"Networks": [{"Target": name}]}});
    assert_eq!(swarm.create("web", &networks("ov1")), "404 network ov1 not found");
    for name in ["bridge", "host", "none"] {
        assert_eq!(swarm.create(&format!("on-{name}"), &networks(name)), "");
    }
}

/// Makes nodes `n1` … by letters. `m` is a manager, `M` a silent one, `g` one that is being demoted, `w` a worker, `d`
/// one that is down.
fn nodes(text: &str) -> (Swarm, Vec<ManagerSeen>) {
    let (mut swarm, mut managers, mut changes) = (Swarm::default(), Vec::new(), Vec::new());
    changes.push(ClusterRecord::default().into());
    for (at, kind) in text.chars().enumerate() {
        let role = if matches!(kind, 'm' | 'M' | 'g') { Role::Manager } else { Role::Worker };
        let mut record = NodeRecord { role, ..NodeRecord::default() };
        record.node.id = format!("n{}", at + 1);
        record.node.spec.role = if kind == 'g' { Role::Worker } else { role };
        record.node.status.state = if kind == 'd' { SwarmNodeState::Down } else { SwarmNodeState::Ready };
        if role == Role::Manager {
            let reachability = if kind != 'M' { Reachability::Reachable } else { Reachability::Unreachable };
            managers.push(ManagerSeen { node_id: record.node.id.clone(), reachability, ..ManagerSeen::default() });
        }
        changes.push(record.into());
    }
    swarm.did(Ok(changes));
    (swarm, managers)
}

#[test]
fn managers_become_workers_while_the_others_have_a_quorum() {
    let check = |text: &str, expected: &str| {
        let (mut swarm, managers) = nodes(text);
        let changes = update_node(&swarm.view, "n1", 1, NodeSpec::default(), &managers);
        assert_eq!(swarm.did(changes), expected, "{text}");
    };
    let loss = "400 rpc error: code = FailedPrecondition desc = can't remove member from the raft: this would result in a loss \
                of quorum";
    let last = "400 rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm";
    check("mw", last);
    check("mg", last);
    check("mgw", last);
    check("mgm", "");
    check("mgmM", loss);
    check("mm", "");
    check("mM", loss);
    check("mmm", "");
    check("mmM", loss);
    check("Mmm", "");
    check("w", "");
    let (mut swarm, _) = nodes("mm");
    let changes = update_node(&swarm.view, "n1", 1, NodeSpec::default(), &[]);
    assert_eq!(swarm.did(changes), "404 rpc error: code = NotFound desc = can't find manager in raft memberlist");
}

#[test]
fn nodes_are_removed_when_they_are_down_and_no_managers() {
    let check = |text: &str, force: bool, expected: &str| {
        let (mut swarm, managers) = nodes(text);
        let task = |id: &str, state| {
            let mut task = Task { id: id.into(), node_id: "n1".into(), ..Task::default() };
            task.status.state = state;
            TaskRecord { task, ..TaskRecord::default() }.into()
        };
        swarm.did(Ok(vec![task("t1", TaskState::Running), task("t2", TaskState::Failed)]));
        let changes = remove_node(&swarm.view, "n1", force, &managers, swarm.now());
        assert_eq!(swarm.did(changes), expected, "{text}");
        if expected.is_empty() {
            let states: Vec<_> = swarm.view.tasks.values().map(|it| it.task.status.state).collect();
            assert_eq!(states, [TaskState::Orphaned, TaskState::Failed]);
            assert!(!swarm.view.nodes.contains_key("n1"));
            assert!(swarm.view.cluster.as_ref().is_some_and(|it| it.removed.contains("n1")));
        }
    };
    check("d", false, "");
    check("w", true, "");
    check("w", false, "400 rpc error: code = FailedPrecondition desc = node n1 is not down and can't be removed");
    let manager = "400 rpc error: code = FailedPrecondition desc = node n1 is a cluster manager and is a member of the raft \
                   cluster. It must be demoted to worker before removal";
    check("mm", true, manager);
}

fn cluster() -> Swarm {
    let mut record = ClusterRecord::default();
    record.cluster.id = "c1".into();
    record.cluster.spec = cluster_spec(&InitRequest::default()).expect("defaults");
    let token = |secret: &str| format!("SWMTKN-1-digest-{secret}");
    record.cluster.join_tokens = Some(JoinTokens { worker: token("w"), manager: token("m"), ..JoinTokens::default() });
    let mut swarm = Swarm::default();
    swarm.did(Ok(vec![record.into()]));
    swarm
}

fn fresh() -> Fresh {
    Fresh { worker: "W2".into(), manager: "M2".into(), unlock_key: "SWMKEY-1-x".into(), root: None }
}

/// Shows the state of the root: trusted root, signer, change under way, a token.
fn root(swarm: &Swarm) -> String {
    let cluster = swarm.view.cluster.clone().expect("a cluster").cluster.clone();
    let TlsInfo { trust_root, cert_issuer_public_key, .. } = cluster.tls_info;
    let token = cluster.join_tokens.unwrap_or_default().worker;
    format!("{trust_root} {cert_issuer_public_key} {} {token}", cluster.root_rotation_in_progress)
}

#[test]
fn a_new_root_is_in_force_when_all_nodes_have_it_also_those_that_are_down() {
    let mut swarm = cluster();
    let info = |root: &str| TlsInfo {
        trust_root: root.into(),
        cert_issuer_subject: "s".into(),
        cert_issuer_public_key: format!("key of {root}"),
        ..TlsInfo::default()
    };
    let mut record = ClusterRecord::clone(swarm.view.cluster.as_ref().expect("a cluster"));
    record.cluster.tls_info = info("old");
    swarm.did(Ok(vec![record.into()]));
    let tells = |swarm: &mut Swarm, id: &str, root: &str, state: SwarmNodeState| {
        let mut record = swarm.view.nodes.get(id).map(|it| NodeRecord::clone(it)).unwrap_or_default();
        (record.node.id, record.node.status.state) = (id.to_owned(), state);
        record.node.description.tls_info = info(root);
        assert_eq!(swarm.did(Ok(vec![record.into()])), "");
    };
    tells(&mut swarm, "a", "old", SwarmNodeState::Ready);
    tells(&mut swarm, "b", "old", SwarmNodeState::Down);
    let update = |swarm: &Swarm, force_rotate: u64, root: &str| {
        let record = swarm.view.cluster.clone().expect("a cluster");
        let mut spec = record.cluster.spec.clone();
        spec.ca_config.force_rotate = force_rotate;
        let join_tokens = JoinTokens { worker: format!("token of {root}"), ..JoinTokens::default() };
        let rotation = RootRotation { tls_info: info(root), join_tokens, ..RootRotation::default() };
        let root = wants_root(&swarm.view, &spec).then_some(rotation);
        let update = ClusterUpdate { version: record.cluster.meta.version.index, spec, ..ClusterUpdate::default() };
        update_cluster(&swarm.view, update, Fresh { root, ..fresh() })
    };
    let unchanged = update(&swarm, 0, "none");
    assert_eq!(swarm.did(unchanged), "");
    assert_eq!(root(&swarm), "old key of old false SWMTKN-1-digest-w");
    assert_eq!(settle_root(&swarm.view), None);
    let begun = update(&swarm, 1, "new");
    assert_eq!(swarm.did(begun), "");
    assert_eq!(root(&swarm), "old key of new true SWMTKN-1-digest-w");
    // Other settings may be changed meanwhile, the root may not.
    let other = update(&swarm, 1, "none");
    assert_eq!(swarm.did(other), "");
    let text = "400 rpc error: code = FailedPrecondition desc = the root is being changed already: wait until all nodes have the \
                new one, or remove those that do not come back (`docker node rm`)";
    let twice = update(&swarm, 2, "newer");
    assert_eq!(swarm.did(twice), text);
    tells(&mut swarm, "a", "new", SwarmNodeState::Ready);
    assert_eq!(settle_root(&swarm.view), None);
    tells(&mut swarm, "b", "new", SwarmNodeState::Ready);
    let settled = settle_root(&swarm.view);
    assert_eq!(swarm.did(Ok(settled.into_iter().collect())), "");
    assert_eq!(root(&swarm), "new key of new false token of new");
    assert_eq!(settle_root(&swarm.view), None);
}

#[test]
fn tokens_and_keys_are_made_anew_when_that_is_asked_for() {
    let mut swarm = cluster();
    let mut check = |change: fn(&mut ClusterUpdate), expected: &str| {
        let record = swarm.view.cluster.clone().expect("a cluster");
        let spec = record.cluster.spec.clone();
        let mut update = ClusterUpdate { version: record.cluster.meta.version.index, spec, ..ClusterUpdate::default() };
        change(&mut update);
        let changes = update_cluster(&swarm.view, update, fresh());
        assert_eq!(swarm.did(changes), "");
        let record = swarm.view.cluster.clone().expect("a cluster");
        let tokens = record.cluster.join_tokens.clone().expect("tokens");
        assert_eq!(format!("{} {} {}", tokens.worker, tokens.manager, record.unlock_key), expected);
    };
    check(|_| (), "SWMTKN-1-digest-w SWMTKN-1-digest-m ");
    check(|it| it.rotate_worker_token = true, "SWMTKN-1-digest-W2 SWMTKN-1-digest-m ");
    check(|it| it.rotate_unlock_key = true, "SWMTKN-1-digest-W2 SWMTKN-1-digest-m ");
    check(|it| it.spec.encryption_config.auto_lock_managers = true, "SWMTKN-1-digest-W2 SWMTKN-1-digest-m SWMKEY-1-x");
    check(
        |it| (it.spec.encryption_config.auto_lock_managers, it.rotate_manager_token) = (false, true),
        "SWMTKN-1-digest-W2 SWMTKN-1-digest-M2 ",
    );
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let check = |spec: Value, expected: &str| {
        let mut swarm = cluster();
        let spec: ClusterSpec = serde_json::from_value(spec).expect("settings");
        let changes =
            update_cluster(&swarm.view, ClusterUpdate { version: 1, spec, ..ClusterUpdate::default() }, fresh());
        assert_eq!(swarm.did(changes), expected);
    };
    let refused = |text: &str| format!("400 rpc error: code = InvalidArgument desc = {text}");
    check(json!({}), "");
    check(json!({"CAConfig": {"NodeCertExpiry": 1}}), &refused("minimum certificate expiry time is: 1h0m0s"));
    check(
        json!({"Dispatcher": {"HeartbeatPeriod": -1}}),
        &refused("heartbeat time period cannot be a negative duration"),
    );
    check(json!({"Name": "mine"}), &refused("modification of cluster name is not allowed"));
    check(
        json!({"CAConfig": {"SigningCAKey": "k"}}),
        &refused("if a signing CA key is provided, the signing CA cert must also be provided"),
    );
    check(
        json!({"CAConfig": {"ExternalCAs": [{"Protocol": "acme", "URL": "https://ca"}]}}),
        &refused("external CA https://ca: the protocol must be cfssl"),
    );
    check(
        json!({"CAConfig": {"ExternalCAs": [{"Protocol": "cfssl", "URL": "http://ca"}]}}),
        &refused("external CA http://ca: the URL must begin with https://"),
    );
    check(
        json!({"CAConfig": {"ExternalCAs": [{"Protocol": "cfssl", "URL": "https://ca"}]}}),
        "400 rpc error: code = FailedPrecondition desc = the managers of this swarm do not certify its nodes yet: update herder on \
         all managers",
    );
    check(
        json!({"CAConfig": {"SigningCACert": "-----BEGIN CERTIFICATE-----", "SigningCAKey": "k", "ForceRotate": 1}}),
        "400 rpc error: code = FailedPrecondition desc = the managers of this swarm do not certify its nodes yet: update herder on \
         all managers",
    );
    check(
        json!({"CAConfig": {"SigningCACert": "-----BEGIN CERTIFICATE-----"}}),
        &refused("there must be at least one valid, reachable external CA corresponding to the desired CA certificate"),
    );
    check(
        json!({"CAConfig": {"SigningCACert": "-----BEGIN CERTIFICATE-----".repeat(2)}}),
        &refused("the desired CA certificate cannot contain multiple certificates"),
    );
    let mut swarm = cluster();
    let late = update_cluster(&swarm.view, ClusterUpdate { version: 7, ..ClusterUpdate::default() }, fresh());
    assert_eq!(swarm.did(late), "500 rpc error: code = Unknown desc = update out of sequence");
}

#[test]
fn a_root_whose_key_an_external_ca_has_is_not_left_without_a_signer() {
    let mut swarm = cluster();
    let mut record = ClusterRecord::clone(swarm.view.cluster.as_ref().expect("a cluster"));
    let external = |cert: &str| json!({"Protocol": "cfssl", "URL": "https://ca", "CACert": cert});
    record.cluster.tls_info.trust_root = "OLD\n".into();
    record.ca_key = "old key".into();
    assert_eq!(swarm.did(Ok(vec![record.into()])), "");
    let mut step = |ca: Value, root: Option<(&str, &str)>, settles: bool, expected: &str| {
        let spec: ClusterSpec = serde_json::from_value(json!({ "CAConfig": ca })).expect("settings");
        assert_eq!(wants_root(&swarm.view, &spec), root.is_some(), "{ca}");
        let root = root.map(|(cert, key)| RootRotation {
            root: NewRoot { cert: cert.into(), key: key.into(), ..NewRoot::default() },
            tls_info: TlsInfo { trust_root: cert.into(), ..TlsInfo::default() },
            ..RootRotation::default()
        });
        let version = swarm.view.cluster.as_ref().map_or(0, |it| it.cluster.meta.version.index);
        let update = ClusterUpdate { version, spec, ..ClusterUpdate::default() };
        let done = swarm.did(update_cluster(&swarm.view, update, Fresh { root, ..fresh() }));
        let refused = done.contains(cluster::EXTERNAL_ONLY);
        if settles {
            assert_eq!(swarm.did(Ok(settle_root(&swarm.view).into_iter().collect())), "");
        }
        let record = swarm.view.cluster.as_ref().expect("a cluster");
        let (root, key) = (record.cluster.tls_info.trust_root.trim().to_owned(), record.ca_key.clone());
        assert_eq!(format!("{root}, {key}{}", if refused { ", refused" } else { &done }), expected, "{ca}");
    };
    // For the root that is there: the managers keep its key.
    step(json!({"ExternalCAs": [{"Protocol": "cfssl", "URL": "https://ca"}]}), None, false, "OLD, old key");
    let new = json!({"SigningCACert": "NEW", "ExternalCAs": [external("NEW")]});
    step(new, Some(("NEW", "")), true, "NEW, ");
    step(json!({"ExternalCAs": [external("NEW")]}), None, false, "NEW, ");
    // Nobody could certify a node any more, and nobody can sign the next root.
    step(json!({}), None, false, "NEW, , refused");
    step(json!({"ExternalCAs": [external("OTHER")]}), None, false, "NEW, , refused");
    step(json!({"ForceRotate": 1, "ExternalCAs": [external("NEW")]}), Some(("NEXT", "k")), false, "NEW, , refused");
    // With its key the root is the managers' own again.
    step(json!({"SigningCACert": "NEW\n", "SigningCAKey": "new key"}), Some(("NEW", "new key")), false, "NEW, new key");
    step(json!({"ForceRotate": 1}), Some(("NEXT", "k")), true, "NEXT, k");
}

#[test]
fn requests_to_enter_are_checked_before_anything_is_done() {
    let said = |it: Result<(), Denial>| it.map_or_else(|it| format!("{} {it}", it.status()), |()| String::new());
    let init = |body: Value| said(check_init(&serde_json::from_value(body).expect("a request")));
    assert_eq!(init(json!({})), "");
    assert_eq!(init(json!({"ListenAddr": "0.0.0.0:2377", "Spec": {"Name": "default"}, "Availability": "drain"})), "");
    assert_eq!(init(json!({"ListenAddr": "[::]:2377"})), "");
    assert_eq!(init(json!({"Spec": {"Name": "mine"}})), "400 swarm spec must be named \"default\"");
    assert_eq!(init(json!({"ListenAddr": "a:b"})), "400 invalid ListenAddr \"a:b\"");
    assert!(init(json!({"Availability": "often"})).starts_with("400 invalid Availability: \"often\""));
    let port = "400 Datapath port number is not in valid range (1024-49151) : 80";
    assert_eq!(init(json!({"DataPathPort": 80})), port);
    assert_eq!(init(json!({"DataPathPort": 1024, "SubnetSize": 29, "DefaultAddrPool": ["10.1.0.0/16"]})), "");
    assert_eq!(init(json!({"SubnetSize": 30})), "400 subnet size is out of range: 30");
    let small = "400 invalid CIDR: \"10.1.0.0/26\". Subnet size is too small for pool: 24";
    assert_eq!(init(json!({"DefaultAddrPool": ["10.2.0.0/16", "10.1.0.0/26"]})), small);
    assert_eq!(init(json!({"DefaultAddrPool": ["x"]})), "400 invalid base pool x: invalid CIDR address: x");
    let external = |url: &str| json!({"Spec": {"CAConfig": {"ExternalCAs": [{"Protocol": "cfssl", "URL": url}]}}});
    assert_eq!(init(external("https://ca")), "");
    let plain = "400 rpc error: code = InvalidArgument desc = external CA http://ca: the URL must begin with https://";
    assert_eq!(init(external("http://ca")), plain);
    let token = format!("SWMTKN-1-{}-{}", "a".repeat(50), "b".repeat(25));
    let join = |addrs: &[&str], token: &str| {
        let remote_addrs = Some(addrs.iter().map(|it| (*it).to_owned()).collect());
        said(check_join(&JoinRequest { remote_addrs, join_token: token.into(), ..JoinRequest::default() }))
    };
    assert_eq!(join(&["a:2377"], &token), "");
    assert_eq!(join(&[], &token), "400 at least 1 RemoteAddr is required to join");
    assert_eq!(join(&["a:2377"], "SWMTKN-1-x-y"), "400 invalid join token");
}

#[test]
fn a_swarm_that_begins_with_external_cas_takes_the_root_of_the_first_that_names_one() {
    let check = |cas: Value, expected: Option<&str>| {
        let body = json!({"Spec": {"CAConfig": {"NodeCertExpiry": 7, "ExternalCAs": cas}}});
        let mut request: InitRequest = serde_json::from_value(body).expect("a request");
        let taken = take_external(&mut request);
        assert_eq!(taken.as_ref().map(|it| it.signing_ca_cert.as_str()), expected, "{cas}");
        assert!(request.spec.ca_config.external_cas.is_empty(), "{cas}");
        assert_eq!(request.spec.ca_config.node_cert_expiry, 7);
        let all = cas.as_array().map(|it| it.iter().filter(|ca| **ca != json!({})).count());
        assert_eq!(taken.map_or(0, |it| it.external_cas.len()), all.unwrap_or_default(), "{cas}");
    };
    let ca = |cert: &str| json!({"Protocol": "cfssl", "URL": "https://ca", "CACert": cert});
    check(json!([]), None);
    check(json!([{}]), None);
    check(json!([ca("")]), Some(""));
    check(json!([ca(" "), ca("NEW"), ca("OTHER")]), Some("NEW"));
}
