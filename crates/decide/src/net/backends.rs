//! Endpoints that connections are balanced to.

use herder_model::swarm::{NetEndpoint, NetState};

use super::Host;

/// True if an endpoint is in service: its names resolve.
pub(super) fn serves(state: &NetState, host: &Host, id: &str, endpoint: &NetEndpoint) -> bool {
    let is_up = state.nodes.get(&endpoint.node).is_some_and(|node| node.up);
    endpoint.serving && is_up && !host.ended.contains(id)
}

/// Those of a service's endpoints that get new connections, in the order of their addresses. Those of suspected nodes are left out
/// unless there are no others: a suspicion that is wrong about all of them must not end the service.
pub(super) fn backends<'s>(
    state: &'s NetState,
    members: impl Iterator<Item = (&'s String, &'s NetEndpoint)>,
    host: &Host,
) -> Vec<&'s NetEndpoint> {
    let serving = members.filter(|(id, endpoint)| serves(state, host, id, endpoint));
    let mut all: Vec<&NetEndpoint> = serving.map(|(_, endpoint)| endpoint).collect();
    if all.iter().any(|endpoint| !host.suspects.contains(&endpoint.node)) {
        all.retain(|endpoint| !host.suspects.contains(&endpoint.node));
    }
    all.sort_by_key(|endpoint| endpoint.v4);
    all
}
