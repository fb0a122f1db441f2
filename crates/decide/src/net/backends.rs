//! Endpoints that connections are balanced to.

use herder_model::swarm::{NetEndpoint, NetState};

use super::Host;

/// Endpoints that are in service, by id: their names resolve.
pub(super) fn serving<'s>(state: &'s NetState, host: &'s Host) -> impl Iterator<Item = (&'s String, &'s NetEndpoint)> {
    state.endpoints.iter().filter(|(id, endpoint)| {
        let is_up = state.nodes.get(&endpoint.node).is_some_and(|node| node.up);
        endpoint.serving && is_up && !host.ended.contains(*id)
    })
}

/// Endpoints of a service that get new connections, in the order of their addresses. Those of suspected nodes are left out
/// unless there are no others: a suspicion that is wrong about all of them must not end the service.
pub(super) fn backends<'s>(state: &'s NetState, service: &str, host: &'s Host) -> Vec<&'s NetEndpoint> {
    let all = serving(state, host).map(|(_, endpoint)| endpoint);
    let mut all: Vec<&NetEndpoint> = all.filter(|endpoint| endpoint.service.as_deref() == Some(service)).collect();
    if all.iter().any(|endpoint| !host.suspects.contains(&endpoint.node)) {
        all.retain(|endpoint| !host.suspects.contains(&endpoint.node));
    }
    all.sort_by_key(|endpoint| endpoint.v4);
    all
}
