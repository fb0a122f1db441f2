//! Addresses of a service for clients: its virtual IPs and its published ports.

use std::net::Ipv4Addr;

use herder_model::swarm::{
    Endpoint, EndpointSpec, NetworkRecord, PortConfig, ServiceRecord, TaskRecord, TaskState, View, VirtualIp,
};

use super::addresses::{is_free, last_held, walk};
use super::attach::attached;
use super::pool::{Subnet, subnet_of};
use super::ports;

/// Makes the endpoint of a service what its specification says. Virtual IPs and dynamic ports that it has already stay; what is
/// missing is given, as far as there is any left. A service that changes to `dnsrr` keeps its virtual IPs while it has
/// tasks of before: clients that have resolved its name still use them.
pub fn complete_endpoint(
    view: &View,
    record: &mut ServiceRecord,
    give: &mut dyn FnMut(&NetworkRecord, &Subnet) -> Option<Ipv4Addr>,
) {
    let had = std::mem::take(&mut record.service.endpoint);
    let said = record.service.spec.endpoint_spec.clone().unwrap_or_default();
    let mode = if said.mode.is_empty() { "vip".to_owned() } else { said.mode.clone() };
    let places = attached(view, record);
    let on_networks = places.iter().any(|it| it.network.is_some());
    let mut endpoint = Endpoint::default();
    if !said.ports.is_empty() {
        endpoint.ports = ports::complete(view, &record.service.id, &said.ports, &had.ports);
        endpoint.spec = EndpointSpec { mode: mode.clone(), ..said.clone() };
    } else if on_networks && mode == "vip" {
        endpoint.spec = EndpointSpec { mode: mode.clone(), ..said.clone() };
    }
    let is_of_before = |it: &TaskRecord| {
        let is_alive = it.task.status.state <= TaskState::Running && it.task.desired_state <= TaskState::Complete;
        is_alive && it.endpoint_mode != "dnsrr"
    };
    if mode != "vip" {
        let mut tasks = view.tasks_of_service(&record.service.id);
        if tasks.any(|it| is_of_before(it)) {
            let stays = |vip: &VirtualIp| places.iter().any(|it| it.id == vip.network_id);
            endpoint.virtual_ips = had.virtual_ips.into_iter().filter(stays).collect();
        }
    } else {
        for place in places {
            let Some(network) = place.network else { continue };
            let Some(subnet) = subnet_of(network) else {
                endpoint.virtual_ips.push(VirtualIp { network_id: network.id.clone(), ..VirtualIp::default() });
                continue;
            };
            let kept = had.virtual_ips.iter().find(|it| it.network_id == network.id && it.address().is_some());
            let addr = match kept {
                Some(kept) => kept.addr.clone(),
                None => match give(network, &subnet) {
                    Some(address) => format!("{address}/{}", subnet.net.prefix_len()),
                    None => continue,
                },
            };
            if !endpoint.virtual_ips.iter().any(|it| it.network_id == network.id) {
                endpoint.virtual_ips.push(VirtualIp { network_id: network.id.clone(), addr, ..VirtualIp::default() });
            }
        }
    }
    record.service.endpoint = endpoint;
}

/// Same as [`complete_endpoint`], without knowledge of recent assignments: for the manager that declares a service.
pub fn complete_endpoint_of(view: &View, record: &mut ServiceRecord) {
    complete_endpoint(view, record, &mut |network, subnet| {
        let after = last_held(view, network, subnet);
        walk(subnet, after, |it| is_free(view, network, subnet, it.into())).map(Ipv4Addr::from)
    });
}

/// A published port of an endpoint: that which clients use.
pub(crate) fn published(record: &ServiceRecord) -> impl Iterator<Item = &PortConfig> {
    let said = record.service.spec.endpoint_spec.iter().flat_map(|it| &it.ports);
    said.chain(&record.service.endpoint.ports).filter(|it| it.published_port != 0)
}
