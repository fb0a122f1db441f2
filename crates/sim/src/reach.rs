//! Compares what every node reaches, by names, virtual IPs and published ports, with the tasks that run.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use herder_model::swarm::{NetworkRecord, ServiceRecord, TaskRecord, TaskState, View};

use crate::kernel::{Hop, Kernel};
use crate::nodes::{Nodes, data_path};

/// A task's place on a network.
#[derive(Clone, Copy)]
struct Endpoint<'v> {
    task: &'v TaskRecord,
    v4: Ipv4Addr,
}

/// Returns the first fault in what nodes reach. `None` when all is well.
pub(crate) fn fault(nodes: &Nodes, view: &View) -> Option<String> {
    nodes.names().into_iter().find_map(|node| {
        let kernel = nodes.kernel(&node)?;
        let why = kernel.differs().or_else(|| of_node(view, &node, &kernel));
        why.map(|why| format!("{node}: {why}"))
    })
}

fn of_node(view: &View, node: &str, kernel: &Kernel) -> Option<String> {
    let is_here = |network: &NetworkRecord| {
        network.spec.ingress || endpoints(view, network).any(|it| it.task.task.node_id == node)
    };
    let overlays = || view.networks.values().filter(|it| it.is_overlay() && is_here(it));
    let known: BTreeSet<u32> = overlays().map(|it| it.vni).collect();
    if kernel.networks() != known {
        return Some(format!("it has devices of networks {:?}, and is on {known:?}", kernel.networks()));
    }
    let reached = overlays().find_map(|network| {
        let serving: Vec<Endpoint<'_>> = endpoints(view, network).collect();
        let hops = serving.iter().find_map(|it| {
            let hop = kernel.hop(network.vni, it.v4);
            let wanted = match it.task.task.node_id == node {
                true => Hop::Here,
                false => Hop::Node(IpAddr::V4(data_path(&it.task.task.node_id))),
            };
            (hop != Some(wanted)).then(|| format!("packets to {} go to {hop:?} and not to {wanted:?}", it.v4))
        });
        let services = || view.services.values().find_map(|it| of_service(it, network, &serving, node, kernel));
        hops.or_else(services).or_else(|| removed_name(view, network, &serving, node, kernel))
    });
    reached.or_else(|| removed_port(view, kernel))
}

/// A name of a service that was removed.
fn removed_name(
    view: &View,
    network: &NetworkRecord,
    serving: &[Endpoint<'_>],
    node: &str,
    kernel: &Kernel,
) -> Option<String> {
    let asker = serving.iter().find(|it| it.task.task.node_id == node)?.v4;
    let is_there = |name: &String| view.services.values().any(|it| it.service.spec.name == *name);
    let resolves = |name: &String| kernel.resolve(&network.id, asker, name).is_some();
    let name = kernel.services(&network.id).into_iter().find(|name| !is_there(name) && resolves(name))?;
    Some(format!("name {name} of {} still resolves", network.id))
}

/// A published port of a service that was removed, or publishes it no more.
fn removed_port(view: &View, kernel: &Kernel) -> Option<String> {
    let all = view.services.values().flat_map(|it| &it.service.endpoint.ports).filter(|it| it.is_ingress());
    let wanted: BTreeSet<u16> = all.map(|it| it.published_port).collect();
    let port = kernel.ports().difference(&wanted).next().copied()?;
    Some(format!("port {port} leads to {:?}, and no service publishes it", kernel.published(port)))
}

/// Endpoints of a network that serve.
fn endpoints<'v>(view: &'v View, network: &'v NetworkRecord) -> impl Iterator<Item = Endpoint<'v>> {
    let serving = |it: &&std::sync::Arc<TaskRecord>| {
        it.task.status.state == TaskState::Running && it.task.desired_state <= TaskState::Running
    };
    view.tasks.values().filter(serving).filter_map(|task| {
        let place = task.networks.iter().find(|it| it.network_id == network.id)?;
        Some(Endpoint { task, v4: place.v4? })
    })
}

fn of_service(
    record: &ServiceRecord,
    network: &NetworkRecord,
    serving: &[Endpoint<'_>],
    node: &str,
    kernel: &Kernel,
) -> Option<String> {
    let service = &record.service;
    let name = &service.spec.name;
    let wanted = serving.iter().filter(|it| it.task.task.service_id == service.id).map(|it| it.v4);
    let wanted: BTreeSet<Ipv4Addr> = wanted.collect();
    if network.spec.ingress {
        return service.endpoint.ports.iter().filter(|it| it.is_ingress()).find_map(|port| {
            let wanted = wanted.iter().map(|it| (*it, port.target_port)).collect();
            let seen = kernel.published(port.published_port);
            (seen != wanted).then(|| format!("port {} leads to {seen:?}, not {wanted:?}", port.published_port))
        });
    }
    if !service.spec.task_template.networks.iter().any(|it| it.target == network.id) {
        return None;
    }
    let vip = service.endpoint.virtual_ips.iter().find(|it| it.network_id == network.id).and_then(|it| it.address());
    let asker = serving.iter().find(|it| it.task.task.node_id == node)?.v4;
    let resolve = |name: &str| kernel.resolve(&network.id, asker, name);
    let by_name = vip.map_or_else(|| wanted.clone(), |vip| [vip].into());
    let tasks = format!("tasks.{name}");
    let fault = |what: String, seen: Option<BTreeSet<Ipv4Addr>>, wanted: &BTreeSet<Ipv4Addr>| {
        (seen.as_ref() != Some(wanted)).then(|| format!("{what} is {seen:?}, not {wanted:?}"))
    };
    fault(format!("name {name}"), resolve(name), &by_name)
        .or_else(|| fault(format!("name {tasks}"), resolve(&tasks), &wanted))
        .or_else(|| vip.and_then(|it| fault(format!("behind {it}"), Some(kernel.behind(network.vni, it)), &wanted)))
}

#[cfg(test)]
mod tests;
