//! Form of persisted data, which outlives releases: a byte of version, then JSON. New members of the JSON are optional;
//! other changes need a new version.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Entry, Vote};

    /// Data of earlier versions is read, and written in the same form.
    #[test]
    fn the_form_of_what_is_kept_stays_as_it_is() {
        fn check<T: Serialize + DeserializeOwned>(json: &str) {
            let bytes = [&[VERSION], json.as_bytes()].concat();
            let value: T = unwrap(&bytes).unwrap_or_else(|why| panic!("{json}: {why}"));
            assert_eq!(String::from_utf8_lossy(&wrap(&value).expect("JSON")), String::from_utf8_lossy(&bytes));
        }
        let log_id = r#""log_id":{"leader_id":{"term":2,"node_id":"n1:00ff"},"index":7}"#;
        check::<Entry>(&format!(r#"{{{log_id},"payload":"Blank"}}"#));
        check::<Entry>(&format!(
            r#"{{{log_id},"payload":{{"Normal":{{"request":"0000000000000000000000000000002a","since":5,"command":{{"at":1,"changes":[{{"remove":["task","t1"]}},{{"expect":["service","s1",4]}}]}}}}}}}}"#
        ));
        check::<Entry>(&format!(
            r#"{{{log_id},"payload":{{"Membership":{{"configs":[["n1:00ff"]],"nodes":{{"n1:00ff":{{"addr":"10.0.0.1:2377"}}}}}}}}}}"#
        ));
        check::<Vote>(r#"{"leader_id":{"term":2,"node_id":"n1:00ff"},"committed":true}"#);
    }

    #[test]
    fn another_version_is_not_guessed_at() {
        let check = |bytes: &[u8], expected: &str| {
            let why = unwrap::<u64>(bytes).expect_err("refused");
            assert!(why.contains(expected), "{why}");
        };
        check(b"", "it is empty");
        check(b"\x027", "it has version 2");
        check(b"\x01seven", "expected value");
        assert_eq!(unwrap(b"\x017"), Ok(7));
    }
}
