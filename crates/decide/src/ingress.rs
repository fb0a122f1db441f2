//! Ingress: which requests go to which service, as labels declare it.
//!
//! [`table()`] computes all routes from the store's view, with every problem by name; [`Rule`] is held against requests. Traefik's
//! labels are read as its documentation describes them, herder's own short ones beside them. See docs/ingress.md.

mod beside;
mod breaker;
mod certificates;
mod labelled;
mod labels;
mod middleware;
mod native;
mod options;
mod routes;
mod rule;
mod serving;
mod syntax;
mod table;

pub use breaker::{Comparison, Condition, Figures, Measure};
pub use certificates::{Due, asked, authorities, challenges, due, failed, issued, ordered, wanted};
pub use middleware::{ClientAddress, Cors, Criterion, ForwardAuth, Headers, Middleware};
pub use native::DEFAULT_RESOLVER;
pub use routes::Routes;
pub use rule::{Rule, RuleError, Scope, Subject, host_fits};
pub use serving::Serving;
pub use syntax::SyntaxError;
pub use table::{
    DRAIN_MS, LeaderTable, Problem, Touched, fault, is_routed, listens, routed_ports, settings, table, table_of,
};
