//! The ingress network, and the address that each node has there.

use std::collections::BTreeMap;
use std::sync::Arc;

use herder_model::swarm::{
    Change, ClusterRecord, Driver, ENCRYPTED_OPTION, INGRESS, IpamOptions, NetworkRecord, NetworkSpec, NodeRecord,
    OVERLAY, View,
};

use super::{Addresses, free_vni, subnets};
use crate::swarm::networks::driver_state;

/// Returns the specification of the swarm's own ingress network.
pub fn ingress_spec() -> NetworkSpec {
    NetworkSpec {
        name: INGRESS.into(),
        labels: Some(BTreeMap::new()),
        driver_configuration: Some(Driver::default()),
        ipam_options: Some(IpamOptions::default()),
        ingress: true,
        scope: "swarm".into(),
        ..NetworkSpec::default()
    }
}

/// The ingress network of a swarm that never had one, and the note that it has been made. Also swarms of releases before get
/// it so.
pub fn first_ingress(view: &View, cluster: &Arc<ClusterRecord>, id: String) -> Vec<Change> {
    if cluster.has_networks || view.ingress().is_some() {
        return Vec::new();
    }
    let record = ClusterRecord { has_networks: true, ..ClusterRecord::clone(cluster) };
    let mut view = view.clone();
    view.cluster = Some(cluster.clone());
    let Some(configs) = subnets(&view, &[], true) else { return vec![record.into()] };
    let mut spec = ingress_spec();
    if let Some(driver) = spec.driver_configuration.as_mut().filter(|_| cluster.encrypts_networks) {
        driver.options.insert(ENCRYPTED_OPTION.into(), String::new());
    }
    let vni = free_vni(&view);
    let ipam_options = Some(IpamOptions {
        driver: Driver { name: "default".into(), ..Driver::default() },
        configs,
        ..IpamOptions::default()
    });
    let name = spec.name.clone();
    let driver_state = Some(driver_state(OVERLAY, &spec, vni));
    let network = NetworkRecord { id, name, spec, driver_state, ipam_options, vni, ..NetworkRecord::default() };
    vec![record.into(), network.into()]
}

/// Gives nodes their addresses on the ingress network, and takes those of networks that are gone.
pub fn node_addresses(view: &View, addresses: &mut Addresses) -> Vec<Change> {
    let ingress = view.ingress();
    let is_right = |node: &NodeRecord| match ingress {
        Some(network) => node.addresses.len() == 1 && node.addresses.contains_key(&network.id),
        None => node.addresses.is_empty(),
    };
    let wrong = view.nodes.values().filter(|it| !is_right(it));
    let changes = wrong.filter_map(|node| {
        let mut record = NodeRecord::clone(node);
        record.addresses.retain(|id, _| ingress.is_some_and(|it| it.id == *id));
        if let Some(network) = ingress
            && record.addresses.is_empty()
        {
            record.addresses.extend(addresses.of_node(view, network).map(|it| (network.id.clone(), it)));
        }
        (record != **node).then(|| record.into())
    });
    changes.collect()
}
