//! Frozen: see the module above.

use serde::{Deserialize, Serialize};

use super::{JoinTokens, TlsInfo};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NewRoot {
    pub(crate) cert: String,
    pub(crate) key: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RootRotation {
    pub(crate) root: NewRoot,
    pub(crate) tls_info: TlsInfo,
    pub(crate) join_tokens: JoinTokens,
}
