//! Lists with Docker's filters: entries of all nodes as if they were one engine's.
//!
//! Pure, and answered from memory: no engine is asked. Entries keep the fields that the engine gave them, known or not;
//! what one engine cannot know (whose name it is, on which address a port listens) is put right.

mod containers;
mod filters;
mod images;
mod networks;
mod volumes;

pub use containers::{ContainerQuery, Pieces, containers, pieces, select};
pub use filters::{Filters, Pattern, Patterns, glob};
pub use images::images;
pub(crate) use networks::{hide_joint, shown_id};
pub use networks::{is_dangling, is_predefined, network_name, networks};
pub use volumes::{volume_name, volumes};

/// Reason why a list cannot be given. The sentences are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error("invalid filter '{0}'")]
    Key(String),
    #[error("invalid filter '{key}={value}': expected {expected}")]
    Value { key: String, value: String, expected: &'static str },
    /// For networks.
    #[error("invalid value for filter '{0}', must be \"true\" (or \"1\"), or \"false\" (or \"0\")")]
    Flag(&'static str),
    /// For networks.
    #[error("got more than one value for filter key \"{0}\"")]
    Several(&'static str),
    /// For networks.
    #[error("invalid filter: 'type'='{0}'; expected builtin or custom")]
    Type(String),
    #[error("No such container: {0}")]
    NoContainer(String),
    #[error("No such image: {0}")]
    NoImage(String),
}

impl ListError {
    /// The HTTP status for it, as engines answer.
    pub fn status(&self) -> u16 {
        match self {
            ListError::Key(_)
            | ListError::Value { .. }
            | ListError::Flag(_)
            | ListError::Several(_)
            | ListError::Type(_) => 400,
            ListError::NoContainer(_) | ListError::NoImage(_) => 404,
        }
    }

    fn value(key: &str, value: &str, expected: &'static str) -> ListError {
        ListError::Value { key: key.to_owned(), value: value.to_owned(), expected }
    }
}
