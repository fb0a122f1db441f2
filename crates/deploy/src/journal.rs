//! The state before a deployment, as far as the deployment changes it. Whoever has the journal can undo the deployment.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::observe::Observed;
use crate::plan::{Action, Kind, Plan};

/// Objects that a deployment creates, and services that it changes with their former specs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    pub stack: String,
    /// Entries, in the order of the plan.
    pub entries: Vec<Entry>,
}

/// One object of a [`Journal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub kind: Kind,
    pub name: String,
    /// The spec before the deployment; missing for an object that the deployment creates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Value>,
}

impl Journal {
    /// The journal of a plan that was made from `observed`.
    pub fn of(plan: &Plan, observed: &Observed) -> Journal {
        let entry = |step: &crate::Step| {
            let former = match step.action {
                Action::Create => None,
                Action::Update => {
                    let old = observed.services.iter().find(|it| it["ID"] == step.id.as_str())?;
                    Some(old["Spec"].clone())
                }
                Action::Remove | Action::Keep => return None,
            };
            Some(Entry { kind: step.kind, name: step.name.clone(), former })
        };
        Journal { stack: plan.stack.clone(), entries: plan.steps.iter().filter_map(entry).collect() }
    }

    pub(crate) fn has_service(&self, name: &str) -> bool {
        self.entries.iter().any(|it| it.kind == Kind::Service && it.name == name)
    }

    pub(crate) fn creates(&self, kind: Kind, name: &str) -> bool {
        self.entries.iter().any(|it| it.kind == kind && it.name == name && it.former.is_none())
    }
}
