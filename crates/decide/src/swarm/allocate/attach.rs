//! The networks that tasks of a service are on.

use std::net::Ipv4Addr;
use std::sync::Arc;

use herder_model::swarm::{NetworkAttachmentConfig, NetworkRecord, ServiceRecord, View};

use crate::ingress;

/// A network of a service's tasks.
#[derive(Clone, Copy, Debug)]
pub struct Attached<'a> {
    /// Id of the network, or the name of one that every node has.
    pub id: &'a str,
    /// The network. `None` for one that every node has by itself, and for one that was removed.
    pub network: Option<&'a Arc<NetworkRecord>>,
    pub aliases: &'a [String],
    config: Option<&'a NetworkAttachmentConfig>,
}

/// The driver option that gives each slot of a service its own address: `10.0.1.50-10.0.1.59` or `10.0.1.50-59`.
pub const FIXED_OPTION: &str = "herder.ip";

/// Reads a value of [`FIXED_OPTION`]: its first and last address.
pub fn fixed_range(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (first, last) = text.split_once('-').map_or((text, None), |(first, last)| (first, Some(last.trim())));
    let first: Ipv4Addr = first.trim().parse().ok()?;
    let last: Ipv4Addr = match last {
        None => first,
        Some(last) => match last.parse::<u8>() {
            Ok(last) => Ipv4Addr::from((u32::from(first) & !0xff) | u32::from(last)),
            Err(_) => last.parse().ok()?,
        },
    };
    (first <= last).then_some((first, last))
}

impl Attached<'_> {
    /// The address that the specification fixes for a slot; `None` if it fixes none.
    ///
    /// # Errors
    ///
    /// The reason, if the range ends before the slot.
    pub fn address_of_slot(&self, slot: u64) -> Result<Option<Ipv4Addr>, String> {
        let Some(text) = self.config.and_then(|it| it.driver_opts.get(FIXED_OPTION)) else { return Ok(None) };
        let at = fixed_range(text).and_then(|(first, last)| {
            let at = u32::from(first).checked_add(u32::try_from(slot.saturating_sub(1)).ok()?)?;
            (at <= u32::from(last)).then(|| at.into())
        });
        at.map(Some).ok_or_else(|| {
            let network = self.network.map_or(self.id, |it| &it.spec.name);
            format!("{FIXED_OPTION}={text} of network {network} has no address for slot {slot}; give it a larger range, or scale the service down")
        })
    }
}

/// True if every node has a network of this name by itself.
pub fn is_everywhere(target: &str) -> bool {
    matches!(target, "bridge" | "host" | "none")
}

/// Returns the networks of a service's tasks in the order of their interfaces. Ingress comes first if it publishes
/// ports there or has routes, then the specification's order.
pub fn attached<'a>(view: &'a View, service: &'a ServiceRecord) -> Vec<Attached<'a>> {
    let spec = &service.service.spec;
    let mut attached = Vec::new();
    let ports = spec.endpoint_spec.iter().flat_map(|it| &it.ports);
    if (ports.into_iter().any(|it| it.is_ingress()) || ingress::is_routed(view, spec))
        && let Some(network) = view.ingress()
    {
        attached.push(Attached { id: &network.id, network: Some(network), aliases: &[], config: None });
    }
    for config in &spec.task_template.networks {
        let network = view.networks.get(&*config.target);
        attached.push(Attached { id: &config.target, network, aliases: &config.aliases, config: Some(config) });
    }
    attached
}
