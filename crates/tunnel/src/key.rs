//! The key pair of a node.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519::{PublicKey, StaticSecret};

use crate::TunnelError;

/// File, below the state folder of a node, with its private key in base64. Only its owner may read it.
pub const KEY_FILE: &str = "net-tunnel.key";

/// Reads the private key of this node, and makes one where there is none.
///
/// # Errors
///
/// If the file can be neither read nor made, or holds something else.
pub fn private_key(folder: &Path) -> Result<[u8; 32], TunnelError> {
    let path = folder.join(KEY_FILE);
    let failed = |source| TunnelError::File { path: path.display().to_string(), source };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = STANDARD.encode(rand::random::<[u8; 32]>());
            let part = path.with_extension("part");
            std::fs::create_dir_all(folder).map_err(failed)?;
            let mut file = std::fs::OpenOptions::new();
            let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(failed)?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            std::fs::rename(&part, &path).map_err(failed)?;
            text
        }
        Err(error) => return Err(failed(error)),
    };
    decoded(text.trim()).ok_or_else(|| TunnelError::Key(path.display().to_string()))
}

/// Returns the public key of this node in base64, and makes a key pair where there is none.
///
/// # Errors
///
/// As [`private_key`].
pub fn public_key(folder: &Path) -> Result<String, TunnelError> {
    Ok(STANDARD.encode(PublicKey::from(&StaticSecret::from(private_key(folder)?)).as_bytes()))
}

/// Reads a key in base64.
pub fn decoded(key: &str) -> Option<[u8; 32]> {
    STANDARD.decode(key).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_node_keeps_its_key_and_shows_it_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let key = public_key(folder.path()).unwrap();
        assert_eq!(public_key(folder.path()).unwrap(), key);
        let path = folder.path().join(KEY_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(public_key(folder.path()), Err(TunnelError::Key(_))));
    }

    /// From RFC 7748, section 6.1.
    #[test]
    fn public_keys_are_those_of_x25519() {
        let folder = tempfile::tempdir().unwrap();
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        std::fs::write(folder.path().join(KEY_FILE), format!("{private}\n")).unwrap();
        assert_eq!(public_key(folder.path()).unwrap(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }
}
