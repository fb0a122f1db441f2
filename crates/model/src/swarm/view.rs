//! All declared objects at one moment.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::{
    Change, ClusterRecord, Command, Config, Conflict, Id, Kind, NetworkRecord, NodeRecord, Object, Resource, Secret,
    ServiceRecord, TaskRecord, TaskSpec, Version, Word, Written,
};
use crate::swarm::claims::{Claims, Held};

/// Id → object, in the order of the ids.
pub type Table<T> = OrdMap<Id, Arc<T>>;

/// State of the store after one of its commands. A copy is as cheap as a pointer and never changes.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Number of the last command in it.
    pub index: u64,
    pub cluster: Option<Arc<ClusterRecord>>,
    pub nodes: Table<NodeRecord>,
    pub services: Table<ServiceRecord>,
    pub tasks: Table<TaskRecord>,
    pub secrets: Table<Secret>,
    pub configs: Table<Config>,
    pub networks: Table<NetworkRecord>,
    /// Resources by kind. A kind without objects has no entry.
    pub resources: OrdMap<Word, Table<Resource>>,
    /// Service or node → tasks.
    by_service: OrdMap<Id, OrdSet<Id>>,
    by_node: OrdMap<Id, OrdSet<Id>>,
    /// The specification of each service's newest task. Other tasks share it, since specifications take most of the
    /// memory of tasks.
    specs: OrdMap<Id, Arc<TaskSpec>>,
    /// Kind and name in lower case → id. Docker's names differ in more than case.
    names: OrdMap<(Kind, String), String>,
    /// VXLAN network identifier → id of the network.
    vnis: OrdMap<u32, Id>,
    claims: Claims,
}

impl View {
    pub fn get(&self, kind: Kind, id: &str) -> Option<Object> {
        match kind {
            Kind::Cluster => self.cluster.clone().filter(|it| it.cluster.id == id).map(Object::Cluster),
            Kind::Node => self.nodes.get(id).cloned().map(Object::Node),
            Kind::Service => self.services.get(id).cloned().map(Object::Service),
            Kind::Task => self.tasks.get(id).cloned().map(Object::Task),
            Kind::Secret => self.secrets.get(id).cloned().map(Object::Secret),
            Kind::Config => self.configs.get(id).cloned().map(Object::Config),
            Kind::Network => self.networks.get(id).cloned().map(Object::Network),
            Kind::Resource(kind) => self.resources.get(&kind)?.get(id).cloned().map(Object::Resource),
        }
    }

    /// The objects of a kind without a table of its own, in the order of their ids.
    pub fn resources_of(&self, kind: Word) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.get(&kind).into_iter().flat_map(|table| table.values())
    }

    /// The feature level of the swarm: nothing is written that a release of a lower level cannot read.
    pub fn level(&self) -> u32 {
        self.cluster.as_ref().map_or(0, |it| it.level)
    }

    /// Id of the service, secret, config or network of this name.
    pub fn named(&self, kind: Kind, name: &str) -> Option<&str> {
        self.names.get(&(kind, name.to_lowercase())).map(String::as_str)
    }

    /// Id of the network with this VXLAN network identifier.
    pub fn network_of_vni(&self, vni: u32) -> Option<&str> {
        self.vnis.get(&vni).map(Id::as_str)
    }

    /// The addresses of a network that tasks, services and nodes hold.
    pub fn held(&self, network: &str) -> Held<'_> {
        self.claims.held(network)
    }

    /// The network that published ports travel through.
    pub fn ingress(&self) -> Option<&Arc<NetworkRecord>> {
        self.networks.values().find(|it| it.spec.ingress && !it.is_removing())
    }

    /// Sorted by id.
    pub fn tasks_of_service<'v>(&'v self, service: &str) -> impl Iterator<Item = &'v Arc<TaskRecord>> + use<'v> {
        self.by_service.get(service).into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    pub fn task_count_of_service(&self, service: &str) -> usize {
        self.by_service.get(service).map_or(0, OrdSet::len)
    }

    /// Ids of services that have tasks, whether they are there or not. Empty, where tasks have none.
    pub fn services_of_tasks(&self) -> impl Iterator<Item = &str> {
        self.by_service.keys().map(Id::as_str)
    }

    /// Sorted by id.
    pub fn tasks_of_node<'v>(&'v self, node: &str) -> impl Iterator<Item = &'v Arc<TaskRecord>> + use<'v> {
        self.by_node.get(node).into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// Every object, those first that others refer to.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        let clusters = self.cluster.iter().cloned().map(Object::Cluster);
        let nodes = self.nodes.values().cloned().map(Object::Node);
        let secrets = self.secrets.values().cloned().map(Object::Secret);
        let configs = self.configs.values().cloned().map(Object::Config);
        let networks = self.networks.values().cloned().map(Object::Network);
        let services = self.services.values().cloned().map(Object::Service);
        let tasks = self.tasks.values().cloned().map(Object::Task);
        let resources = self.resources.values().flat_map(|table| table.values().cloned().map(Object::Resource));
        clusters
            .chain(nodes)
            .chain(resources)
            .chain(secrets)
            .chain(configs)
            .chain(networks)
            .chain(services)
            .chain(tasks)
    }

    /// A view of these objects as they are, such as a snapshot has them.
    pub fn of(index: u64, objects: impl IntoIterator<Item = Object>) -> View {
        let mut view = View { index, ..View::default() };
        for mut object in objects {
            if let Object::Task(record) = &mut object {
                view.share_spec(record);
            }
            view.put(object);
        }
        view
    }

    /// Applies a command as the one with this number. Either all of it is done, or nothing.
    pub fn apply(&mut self, index: u64, command: &Command) -> Result<Vec<Written>, Conflict> {
        self.apply_owned(index, command.clone())
    }

    /// Same as [`View::apply`], but consumes the command, so that unshared objects are written without a copy.
    pub fn apply_owned(&mut self, index: u64, command: Command) -> Result<Vec<Written>, Conflict> {
        let at = command.at.to_string();
        let mut changes = command.changes.into_iter();
        // One change is done or not: no copy is needed to begin with.
        if changes.len() == 1 {
            self.index = index;
            let written = changes.next().map(|change| self.change(index, &at, change)).transpose()?;
            return Ok(written.flatten().into_iter().collect());
        }
        let mut next = self.clone();
        next.index = index;
        let outcome = changes.map(|change| next.change(index, &at, change));
        let written = outcome.filter_map(Result::transpose).collect::<Result<_, _>>();
        // A command that was refused has its number, too.
        self.index = index;
        let written = written?;
        *self = next;
        Ok(written)
    }

    fn change(&mut self, index: u64, at: &str, change: Change) -> Result<Option<Written>, Conflict> {
        let object = match change {
            Change::Put(object) => object,
            Change::PutSpec(mut service) => {
                let record = Arc::make_mut(&mut service);
                record.previous_spec_version = record.spec_version;
                record.spec_version = Version { index };
                Object::Service(service)
            }
            Change::Remove(kind, id) => {
                let before = self.remove(kind, &id);
                return Ok(before.map(|before| Written { before: Some(before), after: None }));
            }
            Change::Expect(kind, id, version) => {
                let Some(there) = self.get(kind, &id) else { return Err(Conflict::Gone { kind, id }) };
                let same = version == 0 || there.meta().version.index == version;
                return if same { Ok(None) } else { Err(Conflict::Sequence { kind, id }) };
            }
        };
        self.write(index, at, object).map(Some)
    }

    fn write(&mut self, index: u64, at: &str, mut object: Object) -> Result<Written, Conflict> {
        let (kind, id) = (object.kind(), object.id().to_owned());
        let before = self.get(kind, &id);
        let known = object.meta().version.index;
        let is = before.as_ref().map_or(0, |before| before.meta().version.index);
        if known != is {
            let gone = before.is_none();
            return Err(if gone { Conflict::Gone { kind, id } } else { Conflict::Sequence { kind, id } });
        }
        if let Some(key) = name_key(&object)
            && self.names.get(&key).is_some_and(|other| *other != id)
        {
            return Err(Conflict::Name { kind, name: object.name().to_owned() });
        }
        self.check_network(&object)?;
        if let Object::Task(record) = &mut object {
            self.share_spec(record);
        }
        let meta = object.meta_mut();
        meta.version.index = index;
        at.clone_into(&mut meta.updated_at);
        meta.created_at = before.as_ref().map_or_else(|| at.to_owned(), |before| before.meta().created_at.clone());
        self.put(object.clone());
        Ok(Written { before, after: Some(object) })
    }

    /// An address or VXLAN network identifier that another object has meanwhile is no address for this one.
    fn check_network(&self, object: &Object) -> Result<(), Conflict> {
        if let Some(network) = self.claims.conflict(object) {
            return Err(Conflict::Sequence { kind: Kind::Network, id: network.to_owned() });
        }
        if let Object::Network(record) = object
            && self.vnis.get(&record.vni).is_some_and(|it| *it != record.id)
        {
            return Err(Conflict::Sequence { kind: Kind::Network, id: record.id.clone() });
        }
        Ok(())
    }

    /// Replaces the record's copies of its old specification by those that other tasks of its service share. Records
    /// from a wire or disk have copies of their own.
    fn share_spec(&mut self, record: &mut Arc<TaskRecord>) {
        let (service, spec) = (&record.task.service_id, &record.task.spec);
        let before = self.tasks.get(&record.task.id).map(|it| &it.task.spec);
        for known in before.into_iter().chain(self.specs.get(service)) {
            if Arc::ptr_eq(known, spec) {
                return;
            }
            if known == spec {
                let known = Arc::clone(known);
                Arc::make_mut(record).task.spec = known;
                return;
            }
        }
        if !service.is_empty() {
            self.specs.insert(Id::from(service), Arc::clone(spec));
        }
    }

    fn put(&mut self, object: Object) {
        let (kind, id) = (object.kind(), Id::from(object.id()));
        if let Object::Task(record) = object {
            return self.put_task(id, record);
        }
        self.remove(kind, &id);
        self.claims.put(&object);
        if let Some(key) = name_key(&object) {
            self.names.insert(key, object.id().to_owned());
        }
        match object {
            Object::Cluster(it) => self.cluster = Some(it),
            Object::Node(it) => drop(self.nodes.insert(id, it)),
            Object::Service(it) => drop(self.services.insert(id, it)),
            Object::Secret(it) => drop(self.secrets.insert(id, it)),
            Object::Config(it) => drop(self.configs.insert(id, it)),
            Object::Network(it) => {
                if it.vni != 0 {
                    self.vnis.insert(it.vni, id.clone());
                }
                self.networks.insert(id, it);
            }
            Object::Resource(it) => drop(self.resources.entry(it.kind).or_default().insert(id, it)),
            Object::Task(_) => {}
        }
    }

    /// Writes a task, and updates indexes only if its service or node changed. Most writes change neither.
    fn put_task(&mut self, id: Id, record: Arc<TaskRecord>) {
        let before = self.tasks.insert(id.clone(), record.clone());
        let holds = |it: &TaskRecord| !it.networks.is_empty();
        if let Some(before) = before.clone().filter(|it| holds(it)) {
            self.claims.remove(&Object::Task(before));
        }
        if holds(&record) {
            self.claims.put(&Object::Task(record.clone()));
        }
        let old = before.as_ref().map_or(("", ""), |it| (it.task.service_id.as_str(), it.task.node_id.as_str()));
        let (service, node) = (&record.task.service_id, &record.task.node_id);
        for (index, old, new) in [(&mut self.by_service, old.0, service), (&mut self.by_node, old.1, node)] {
            if old != new {
                let _ = leave(index, old, &id);
                match index.get_mut(new) {
                    Some(tasks) => drop(tasks.insert(id.clone())),
                    None if new.is_empty() => {}
                    None => drop(index.insert(Id::from(new), OrdSet::unit(id.clone()))),
                }
            }
        }
    }

    fn remove(&mut self, kind: Kind, id: &str) -> Option<Object> {
        let before = self.get(kind, id)?;
        if let Some(key) = name_key(&before) {
            self.names.remove(&key);
        }
        self.claims.remove(&before);
        match &before {
            Object::Cluster(_) => self.cluster = None,
            Object::Node(_) => drop(self.nodes.remove(id)),
            Object::Service(_) => drop(self.services.remove(id)),
            Object::Secret(_) => drop(self.secrets.remove(id)),
            Object::Config(_) => drop(self.configs.remove(id)),
            Object::Network(it) => {
                self.vnis.remove(&it.vni);
                self.networks.remove(id);
            }
            Object::Resource(it) => {
                if let Some(table) = self.resources.get_mut(&it.kind) {
                    table.remove(id);
                    if table.is_empty() {
                        self.resources.remove(&it.kind);
                    }
                }
            }
            Object::Task(it) => {
                if leave(&mut self.by_service, &it.task.service_id, id) {
                    self.specs.remove(&it.task.service_id);
                }
                leave(&mut self.by_node, &it.task.node_id, id);
                self.tasks.remove(id);
            }
        }
        Some(before)
    }
}

/// True, if nothing is left under the key.
fn leave(index: &mut OrdMap<Id, OrdSet<Id>>, key: &str, id: &str) -> bool {
    let Some(tasks) = index.get_mut(key) else { return true };
    tasks.remove(id);
    let is_empty = tasks.is_empty();
    if is_empty {
        index.remove(key);
    }
    is_empty
}

/// Returns the key under which an object must be unique. Several nodes may have one hostname; tasks are named after
/// their services; a resource need not have a name.
///
/// All managers must come to the same here: a kind that gets a type of its own follows the rule of resources.
fn name_key(object: &Object) -> Option<(Kind, String)> {
    let kind = object.kind();
    let is_unique = match kind {
        Kind::Service | Kind::Secret | Kind::Config => true,
        Kind::Network | Kind::Resource(_) => !object.name().is_empty(),
        Kind::Cluster | Kind::Node | Kind::Task => false,
    };
    is_unique.then(|| (kind, object.name().to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::{Service, Task, Time};

    /// Each line is a command. `web+` puts a service, `web@3` replaces version 3, `web-` removes, `web?` expects it,
    /// `web:t1` adds a task. Then what is there, or why not.
    #[test]
    fn a_command_is_done_whole_or_not_at_all() {
        let mut view = View::default();
        let mut index = 0;
        let mut check = |commands: &str, expected: &str| {
            index += 1;
            let changes = commands.split(' ').map(change).collect();
            let outcome = view.apply(index, &Command { at: Time(index), changes });
            let text = match outcome {
                Ok(_) => {
                    let services = view.services.values().map(|it| {
                        let tasks: Vec<&str> = view.tasks_of_service(&it.service.id).map(|it| &*it.task.id).collect();
                        format!("{}@{}[{}]", it.service.id, it.service.meta.version.index, tasks.join(","))
                    });
                    services.collect::<Vec<_>>().join(" ")
                }
                Err(conflict) => conflict.to_string(),
            };
            assert_eq!(text, expected, "{commands}");
        };
        check("web+ db+", "db@1[] web@1[]");
        check("web@1", "db@1[] web@2[]");
        check("web@1", "update out of sequence");
        check("api+ web@1", "update out of sequence");
        check("web:t1 web?", "db@1[] web@2[t1]");
        check("api? web-", "service api not found");
        check("WEB+", "name conflicts with an existing object: service WEB already exists");
        check("web- WEB+", "WEB@8[] db@1[]");
        check("gone@4", "service gone not found");
        check("gone-", "WEB@8[] db@1[]");
    }

    fn change(text: &str) -> Change {
        let cut = text.find(|c: char| !c.is_alphanumeric()).expect("a sign");
        let (id, rest) = (text[..cut].to_owned(), &text[cut + 1..]);
        let service = |version: u64| {
            let mut service = Service { id: id.clone(), ..Service::default() };
            service.spec.name = id.clone();
            service.meta.version.index = version;
            Change::from(ServiceRecord { service, ..ServiceRecord::default() })
        };
        match &text[cut..=cut] {
            "+" => service(0),
            "@" => service(rest.parse().expect("a number")),
            "-" => Change::Remove(Kind::Service, id),
            "?" => Change::Expect(Kind::Service, id, 0),
            _ => {
                let task = Task { id: rest.to_owned(), service_id: id, ..Task::default() };
                Change::from(TaskRecord { task, ..TaskRecord::default() })
            }
        }
    }

    #[test]
    fn a_view_of_its_objects_is_the_same_view() {
        let mut view = View::default();
        let changes = ["web+", "db+", "web:t1", "db:t2"].map(change).to_vec();
        view.apply(7, &Command { at: Time(1), changes }).expect("new");
        let again = View::of(view.index, view.objects());
        assert!(view.objects().eq(again.objects()));
        assert_eq!(again.named(Kind::Service, "Web"), Some("web"));
        assert_eq!(again.tasks_of_service("web").count(), 1);
    }

    #[test]
    fn tasks_of_one_service_share_what_they_run() {
        let mut view = View::default();
        let mut put = |id: &str, image: &str| {
            let spec = serde_json::json!({"ContainerSpec": {"Image": image}, "ForceUpdate": 0});
            let spec: TaskSpec = serde_json::from_value(spec).expect("a specification");
            let task = Task { id: id.into(), service_id: "web".into(), spec: Arc::new(spec), ..Task::default() };
            let mut record = TaskRecord { task, ..TaskRecord::default() };
            record.task.meta.version.index = view.tasks.get(id).map_or(0, |it| it.task.meta.version.index);
            let command = Command { at: Time(1), changes: vec![record.into()] };
            view.apply(view.index + 1, &command).expect("versions are right");
            let again = View::of(view.index, view.objects());
            [&view, &again].map(|view| {
                let specs = view.tasks.values().map(|it| Arc::as_ptr(&it.task.spec));
                specs.collect::<std::collections::BTreeSet<_>>().len()
            })
        };
        assert_eq!(put("a", "one"), [1, 1]);
        assert_eq!(put("b", "one"), [1, 1]);
        assert_eq!(put("a", "one"), [1, 1]);
        assert_eq!(put("c", "two"), [2, 2]);
        assert_eq!(put("d", "two"), [2, 2]);
        let gone = ["a", "b", "c", "d"].map(|id| Change::Remove(Kind::Task, id.into())).to_vec();
        view.apply(9, &Command { at: Time(1), changes: gone }).expect("removed");
        assert!(view.specs.is_empty());
    }

    #[test]
    fn a_task_that_moves_is_found_where_it_is() {
        let mut view = View::default();
        let mut index = 0;
        for (node, expected) in [("", "0 0"), ("a", "1 0"), ("a", "1 0"), ("b", "0 1"), ("", "0 0"), ("b", "0 1")] {
            let task = Task { id: "t".into(), service_id: "web".into(), node_id: node.into(), ..Task::default() };
            let mut record = TaskRecord { task, ..TaskRecord::default() };
            record.task.meta.version.index = index;
            index += 1;
            view.apply(index, &Command { at: Time(1), changes: vec![record.into()] }).expect("versions are right");
            let found = format!("{} {}", view.tasks_of_node("a").count(), view.tasks_of_node("b").count());
            assert_eq!((found.as_str(), view.tasks_of_service("web").count()), (expected, 1), "{node}");
        }
        let changes = vec![Change::Remove(Kind::Task, "t".into())];
        view.apply(9, &Command { at: Time(1), changes }).expect("removed");
        assert_eq!((view.tasks_of_node("b").count(), view.tasks_of_service("web").count()), (0, 0));
        assert!(view.by_node.is_empty() && view.by_service.is_empty());
    }
}
