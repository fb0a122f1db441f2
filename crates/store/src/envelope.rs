//! What is written down outlives the version that wrote it: a byte of version, then JSON, which says what it is. New members
//! of the JSON are optional; whatever else changes has a new version.

use serde::Serialize;
use serde::de::DeserializeOwned;

const VERSION: u8 = 1;

pub(crate) fn wrap<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes)
}

pub(crate) fn unwrap<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|error| error.to_string()),
        Some((version, _)) => Err(format!("it has version {version}, which this version of herder does not know")),
        None => Err("it is empty".to_owned()),
    }
}
