//! A change of the root that all certificates of a swarm come from: what `docker swarm ca --rotate` begins.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{JoinTokens, Rest, TlsInfo, is_default, keeps_rest};

/// A root with its key, in PEM. Every node has it: each signs for itself (docs/adr/0006).
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct NewRoot {
    pub cert: String,
    pub key: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

impl fmt::Debug for NewRoot {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRoot").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// A root on its way to all nodes. Until they have it, the one before is trusted as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct RootRotation {
    pub root: NewRoot,
    /// TLS facts of the swarm and of every node once all nodes have the new root.
    pub tls_info: TlsInfo,
    /// The join tokens in force from then on, with the digest of the new root.
    pub join_tokens: JoinTokens,
    /// The key of gossip from then on (base64 of 32 bytes); empty: it stays.
    #[serde(skip_serializing_if = "is_default")]
    pub gossip_key: String,
    #[serde(flatten, skip_deserializing)]
    pub rest: Rest,
}

keeps_rest!(NewRoot, RootRotation);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tokens_are_not_in_the_debug_form() {
        let root = NewRoot { cert: "the cert".into(), key: "the key".into(), ..NewRoot::default() };
        let (worker, manager) = ("the worker".into(), "the manager".into());
        let join_tokens = JoinTokens { worker, manager, ..JoinTokens::default() };
        let text = format!("{:?}", RootRotation { root, join_tokens, ..RootRotation::default() });
        assert!(text.contains("the cert"), "{text}");
        for hidden in ["the key", "the worker", "the manager"] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
}
