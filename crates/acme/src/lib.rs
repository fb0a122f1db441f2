//! Certificates of the ingress: ordered from authorities that speak ACME, or signed by the swarm's own authority.
//!
//! One manager orders, the one that leads: [`run`]. Each step of an order is written before the next one is made, so that another leader
//! goes on with the same order. Which certificates are wanted, and when, is decided in `decide::ingress`; ingress nodes get them, and the
//! answers to the authority's questions, with their routes.

mod account;
mod book;
mod client;
mod hook;
mod order;
mod own;
mod run;

pub use run::{Settings, run};

/// The reason why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failed {
    pub(crate) text: String,
    /// The authority said nothing: the order can go on later.
    pub(crate) is_away: bool,
    /// The authority wants the same request once more, with another nonce (RFC 8555, 6.5).
    pub(crate) wants_nonce: bool,
}

/// Problem type of a nonce that the authority does not know (any more).
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";

impl Failed {
    /// The authority, or what this node has, does not allow it.
    pub(crate) fn refused(text: impl Into<String>) -> Failed {
        Failed { text: text.into(), is_away: false, wants_nonce: false }
    }

    pub(crate) fn away(text: impl Into<String>) -> Failed {
        Failed { text: text.into(), is_away: true, wants_nonce: false }
    }
}

impl From<herder_store::StoreError> for Failed {
    fn from(error: herder_store::StoreError) -> Failed {
        Failed::away(format!("the managers did not write it: {error}"))
    }
}

impl From<instant_acme::Error> for Failed {
    fn from(error: instant_acme::Error) -> Failed {
        use instant_acme::Error;
        let wants_nonce = matches!(&error, Error::Api(problem) if problem.r#type.as_deref() == Some(BAD_NONCE));
        let is_away = match &error {
            Error::Api(_) if wants_nonce => true,
            Error::Api(problem) => problem.status.is_some_and(|it| it >= 500),
            Error::Other(_) | Error::Json(_) | Error::Timeout(_) => true,
            _ => false,
        };
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text += &format!(": {inner_text}");
            }
            source = inner.source();
        }
        Failed { text: text.replace("API error: ", ""), is_away, wants_nonce }
    }
}
