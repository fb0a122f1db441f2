//! The declared objects: those of Docker's swarm mode, with its names and forms of JSON (API 1.24 to 1.50).
//!
//! A field that Docker leaves out when it is empty is left out here, and one that Docker shows as `null` is shown so: what a
//! client sent comes back to it unchanged. Durations are nanoseconds, times are RFC 3339 texts.

mod assignments;
mod attachment;
mod certificate;
mod change;
mod claims;
mod cluster;
mod container;
mod export;
mod id;
mod ingress;
mod level;
mod meta;
mod netstate;
mod network;
mod node;
mod record;
mod resource;
pub(crate) mod rest;
mod root;
mod secret;
mod service;
mod session;
mod task;
mod time;
mod view;
pub(crate) mod word;

pub use assignments::{AssignmentChanges, Assignments, Report, ServiceFacts, is_told, needs};
pub use attachment::{AttachRefusal, Attached, AttachedNetwork, Attachment, RUNTIME_ATTACHMENT};
pub use certificate::{
    AUTHORITY_KIND, CERTIFICATE_KIND, CertificateOrder, CertificateRecord, OWN_AUTHORITY, authority_kind,
    certificate_kind,
};
pub use change::{Action, Change, Command, Conflict, Kind, Object, Written};
pub use claims::Held;
pub use cluster::{
    CaConfig, Cluster, ClusterSpec, Dispatcher, Encryption, ExternalCa, InitRequest, JoinRequest, JoinTokens,
    Orchestration, Raft, TaskDefaults, UnlockRequest,
};
pub use container::{
    AppArmor, ConfigRef, ContainerSpec, CredentialSpec, DnsConfig, FileTarget, Healthcheck, Mount, Privileges,
    SeLinuxContext, Seccomp, SecretRef, Ulimit,
};
pub use export::{EXPORT_KIND, Export};
pub use id::Id;
pub use ingress::{
    Backend, BackendState, Carried, Entrypoint, HealthCheck, INGRESS_ID, INGRESS_KIND, IngressApplied, IngressChanges,
    IngressNews, IngressServed, IngressSettings, IngressState, Resolver, Route, RouteTls, ServedCertificate,
    ServedTask, Sticky, Upstream, ingress_kind,
};
pub use level::{EXTENSION, Feature, LEVEL, is_extended};
pub use meta::{Driver, Meta, TlsInfo, Version};
pub use netstate::{
    Affinity, BalanceMode, KeepAddress, NetBody, NetChanges, NetEndpoint, NetFacts, NetNode, NetPort, NetService,
    NetState, NetSubnet, NetUpdate, Patch, Protocol, VXLAN_PORT,
};
pub use network::{
    Capabilities, ConfigFrom, ENCRYPTED_OPTION, FIRST_VNI, INGRESS, IpamConfig, IpamOptions, NetworkAttachmentSpec,
    NetworkRecord, NetworkSpec, OVERLAY, SCTP, SwarmNetwork, TaskNetwork, TunnelEnd, TunnelWay, Underlay, VNI_OPTION,
};
pub use node::{
    Availability, Engine, ManagerStatus, NodeDescription, NodeSpec, NodeStatus, Platform, Plugin, Reachability, Role,
    SwarmNode, SwarmNodeState,
};
pub use record::{ClusterRecord, NodeRecord, ServiceRecord, TaskRecord};
pub use resource::{Resource, ResourceError};
pub use rest::Rest;
pub use root::{NewRoot, RootRotation};
pub use secret::{Config, ConfigSpec, Secret, SecretSpec};
pub use service::{
    Empty, Endpoint, EndpointSpec, JobStatus, PortConfig, Ratio, Replicated, ReplicatedJob, Service, ServiceMode,
    ServiceSpec, ServiceStatus, UpdateConfig, UpdateStatus, VirtualIp,
};
pub use session::{Hello, ManagerAddr, Message, NetNews, ToLeader, ToNode, Welcome, decode, encode};
pub use task::{
    ContainerStatus, DiscreteResource, GenericResource, Limits, NamedResource, NetworkAttachmentConfig, Placement,
    PortStatus, Preference, Reservations, ResourceRequirements, RestartPolicy, Spread, Task, TaskSpec, TaskState,
    TaskStatus,
};
pub use time::{Clock, Time};
pub use view::{Table, View};
pub use word::{Word, WordError};

pub(crate) use rest::keeps_rest;
pub(crate) use word::words;

/// True for a default value; Docker leaves such fields out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
