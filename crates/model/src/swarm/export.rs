//! Exports: stores outside of the swarm that its leader writes the services of all nodes into.

use serde::{Deserialize, Serialize};

use super::is_default;

/// Kind of the resources with an [`Export`] each. Their name is the URI.
pub const EXPORT_KIND: &str = "export";

/// The settings that `herder export add` stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Export {
    /// URI of the store, in the form of Registrator's.
    pub uri: String,
    /// Tags of every service; may be a template over the container.
    #[serde(skip_serializing_if = "is_default")]
    pub tags: String,
    /// `v7` or `legacy-2015`; empty is `v7`.
    #[serde(skip_serializing_if = "is_default")]
    pub naming: String,
    /// True to export the containers' own addresses and ports.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    /// True to export only containers with `SERVICE_NAME`.
    #[serde(skip_serializing_if = "is_default")]
    pub explicit: bool,
}
