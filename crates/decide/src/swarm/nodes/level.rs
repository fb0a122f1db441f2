//! The feature level of the swarm: when it rises, and what is refused below it.

use herder_model::swarm::{Change, ClusterRecord, Feature, NodeRecord, Role, View};

use crate::swarm::{Code, Denial, Refusal};

/// Refuses a change that some manager's release cannot read, and names those managers.
///
/// # Errors
///
/// Returns a refusal in Docker's form while the swarm's level, or the release of a manager, is below what the feature needs.
pub fn needs(view: &View, feature: Feature) -> Result<(), Denial> {
    let level = feature.level();
    let behind = behind(view, level);
    if view.level() >= level && behind.is_empty() {
        return Ok(());
    }
    let help = match &behind[..] {
        [] => "all managers can; try again in a moment".to_owned(),
        behind => format!("upgrade these managers: {}", behind.join(", ")),
    };
    let text = format!(
        "{feature} need feature level {level}, and the swarm's managers agree on level {}: {help}",
        view.level()
    );
    Err(Refusal::new(Code::FailedPrecondition, text).into())
}

/// Returns the managers whose release does not reach a level: hostname, id and their level.
fn behind(view: &View, level: u32) -> Vec<String> {
    let behind = managers(view).filter(|it| it.level < level);
    behind.map(|it| format!("{} ({}, level {})", it.node.description.hostname, it.node.id, it.level)).collect()
}

/// Nodes that manage, or are about to.
fn managers(view: &View) -> impl Iterator<Item = &NodeRecord> {
    let manages = |it: &&NodeRecord| it.role == Role::Manager || it.node.spec.role == Role::Manager;
    view.nodes.values().map(AsRef::as_ref).filter(manages)
}

/// The change that raises the level of the swarm to what all managers can, or nothing. `own` is the level of the leader's release.
///
/// The level never falls by itself: with a manager of an older release what was written above its level is kept, but nobody may
/// add to it (see [`needs`]).
pub fn raise(view: &View, own: u32) -> Option<Change> {
    let record = view.cluster.as_ref().filter(|it| it.level < own)?;
    let level = managers(view).map(|it| it.level).min()?.min(own);
    (level > record.level).then(|| ClusterRecord { level, ..ClusterRecord::clone(record) }.into())
}

/// Refuses to make a manager of a node whose release is below the level of the swarm.
///
/// # Errors
///
/// Returns the reason, which names both levels.
pub fn may_manage(view: &View, level: u32) -> Result<(), String> {
    if level >= view.level() {
        return Ok(());
    }
    Err(format!(
        "a manager of this swarm needs a release of feature level {}, and this node's has level {level}: upgrade it first",
        view.level()
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use herder_model::swarm::Object;

    use super::*;

    /// `2 a:1 b:0w`: the level of the swarm, then nodes with theirs; `w` for workers.
    fn view(line: &str) -> View {
        let (level, nodes) = line.split_once(' ').expect("a level");
        let cluster = ClusterRecord { level: level.parse().expect("a number"), ..ClusterRecord::default() };
        let node = |text: &str| {
            let (id, level) = text.split_once(':').expect("a level");
            let role = if level.ends_with('w') { Role::Worker } else { Role::Manager };
            let level = level.trim_end_matches('w').parse().expect("a number");
            let mut record = NodeRecord { role, level, ..NodeRecord::default() };
            record.node.id = id.to_owned();
            record.node.description.hostname = format!("host-{id}");
            Object::Node(Arc::new(record))
        };
        View::of(1, nodes.split(' ').map(node).chain([Object::Cluster(cluster.into())]))
    }

    #[test]
    fn the_level_rises_to_what_all_managers_can_and_never_falls() {
        let check = |line: &str, own: u32, expected: Option<u32>| {
            let raised = raise(&view(line), own).map(|change| match change {
                Change::Put(Object::Cluster(it)) => it.level,
                other => panic!("{other:?}"),
            });
            assert_eq!(raised, expected, "{line}");
        };
        check("0 a:1 b:1 c:1", 1, Some(1));
        check("0 a:1 b:0 c:1", 1, None);
        check("0 a:1 b:1 c:0w", 1, Some(1));
        check("0 a:3 b:2 c:3", 3, Some(2));
        // The leader writes nothing that it does not know itself.
        check("0 a:3 b:3 c:3", 1, Some(1));
        check("2 a:1 b:1 c:1", 1, None);
        check("2 a:1 b:3 c:3", 3, None);
        check("2 a:3 b:3 c:3", 3, Some(3));
        check("0 a:1w", 1, None);
    }

    #[test]
    fn what_needs_more_is_refused_with_the_managers_that_hold_it_back() {
        let check = |line: &str, expected: &str| {
            let said =
                needs(&view(line), Feature::Resources).map_or_else(|denial| denial.to_string(), |()| "may".to_owned());
            assert_eq!(said, expected, "{line}");
        };
        let refused = "rpc error: code = FailedPrecondition desc = stored resources need feature level 1, and the swarm's managers \
                       agree on level";
        check("1 a:1 b:1 c:0w", "may");
        check(
            "0 a:1 b:0 c:0",
            &format!("{refused} 0: upgrade these managers: host-b (b, level 0), host-c (c, level 0)"),
        );
        check("0 a:1 b:1", &format!("{refused} 0: all managers can; try again in a moment"));
        // One went back to an older release.
        check("1 a:1 b:0", &format!("{refused} 1: upgrade these managers: host-b (b, level 0)"));
    }

    #[test]
    fn a_node_of_an_older_release_is_made_no_manager() {
        assert_eq!(may_manage(&view("1 a:1"), 1), Ok(()));
        let refused = may_manage(&view("2 a:2"), 1).expect_err("refused");
        assert!(refused.contains("needs a release of feature level 2, and this node's has level 1"), "{refused}");
    }
}
