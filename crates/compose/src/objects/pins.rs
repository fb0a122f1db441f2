//! Names that objects keep when their stack gets another name.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Desired, STACK_LABEL};

/// The service label with the names that a service had before its stack was renamed, with commas between. It can be
/// reached by them until a deployment changes it.
pub const FORMER_NAMES_LABEL: &str = "herder.stack.former-names";

/// Real names of objects, by section of the file (`networks`, `volumes`, `secrets`, `configs`) and key there. Nobody can rename
/// a network or a volume, so a renamed stack goes on with those that it has.
pub type Pins = BTreeMap<String, BTreeMap<String, String>>;

impl Desired {
    /// Gives objects the names that they have in place of those that the stack's name gives them.
    pub fn pin(&mut self, pins: &Pins) {
        if pins.is_empty() {
            return;
        }
        let prefix = format!("{}_", self.stack);
        let real = |section: &str, name: &str| Some(pins.get(section)?.get(name.strip_prefix(&prefix)?)?.clone());
        for (name, mut body) in std::mem::take(&mut self.networks) {
            let name = real("networks", &name).unwrap_or(name);
            body["Name"] = name.as_str().into();
            self.networks.insert(name, body);
        }
        for (section, objects) in [("secrets", &mut self.secrets), ("configs", &mut self.configs)] {
            for object in objects.iter_mut().filter(|object| !object.external) {
                object.name = real(section, &object.name).unwrap_or_else(|| object.name.clone());
            }
        }
        for service in &mut self.services {
            let task = &mut service.spec["TaskTemplate"];
            rename(task.get_mut("Networks"), "Target", |name| real("networks", name));
            let container = &mut task["ContainerSpec"];
            rename(container.get_mut("Secrets"), "SecretName", |name| real("secrets", name));
            rename(container.get_mut("Configs"), "ConfigName", |name| real("configs", name));
            rename(container.get_mut("Mounts"), "Source", |name| real("volumes", name));
            let hooks = container.pointer_mut("/Herder/Hooks").and_then(Value::as_object_mut);
            let hooks = hooks.into_iter().flat_map(|all| all.values_mut());
            for hook in hooks.filter_map(Value::as_array_mut).flatten() {
                rename(hook.get_mut("Mounts"), "Source", |name| real("volumes", name));
            }
        }
    }
}

/// Replaces the names that a list of objects has in one of their members.
fn rename(list: Option<&mut Value>, member: &str, real: impl Fn(&str) -> Option<String>) {
    for object in list.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(name) = object[member].as_str().and_then(&real) {
            object[member] = name.into();
        }
    }
}

/// Replaces the stack's name in all labels of a part of a service spec: its volumes have it, too.
pub fn relabel(value: &mut Value, stack: &str) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|it| relabel(it, stack)),
        Value::Object(members) => {
            for (name, value) in members {
                if name == STACK_LABEL && value.is_string() {
                    *value = stack.into();
                } else {
                    relabel(value, stack);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Content, DesiredService, FileObject};
    use super::*;

    #[test]
    fn a_renamed_stack_goes_on_with_the_objects_that_it_has() {
        let file = FileObject {
            name: "new_conf".into(),
            external: false,
            labels: BTreeMap::new(),
            content: Content::None,
            template: String::new(),
            driver: None,
        };
        let spec = json!({"TaskTemplate": {"Networks": [{"Target": "new_default"}, {"Target": "new_later"}], "ContainerSpec": {
            "Configs": [{"ConfigName": "new_conf"}], "Mounts": [{"Source": "new_data"}, {"Source": "/data"}, {"Type": "tmpfs"}],
            "Herder": {"Hooks": {"PreStart": [{"Mounts": [{"Source": "new_data"}]}]}}}}});
        let service = DesiredService { key: "web".into(), name: "new_web".into(), spec, depends_on: Vec::new() };
        let network = |name: &str| (name.to_owned(), json!({"Name": name}));
        let mut desired = Desired {
            stack: "new".into(),
            networks: [network("new_default"), network("new_later")].into(),
            configs: vec![file.clone(), FileObject { external: true, ..file }],
            services: vec![service],
            ..Desired::default()
        };
        let pin = |section: &str, key: &str| (section.to_owned(), [(key.to_owned(), format!("old_{key}"))].into());
        desired.pin(&[pin("networks", "default"), pin("configs", "conf"), pin("volumes", "data")].into());
        let spec = json!({"TaskTemplate": {"Networks": [{"Target": "old_default"}, {"Target": "new_later"}], "ContainerSpec": {
            "Configs": [{"ConfigName": "old_conf"}], "Mounts": [{"Source": "old_data"}, {"Source": "/data"}, {"Type": "tmpfs"}],
            "Herder": {"Hooks": {"PreStart": [{"Mounts": [{"Source": "old_data"}]}]}}}}});
        assert_eq!(desired.services[0].spec, spec);
        assert_eq!(desired.networks, [network("new_later"), network("old_default")].into());
        let names: Vec<&str> = desired.configs.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["old_conf", "new_conf"]);
    }

    #[test]
    fn all_labels_with_the_stacks_name_are_found() {
        let mut spec = json!({"Labels": {STACK_LABEL: "a", "x": "a"}, "Mounts": [{"Labels": {STACK_LABEL: "a"}}]});
        relabel(&mut spec, "b");
        assert_eq!(spec, json!({"Labels": {STACK_LABEL: "b", "x": "a"}, "Mounts": [{"Labels": {STACK_LABEL: "b"}}]}));
    }
}
