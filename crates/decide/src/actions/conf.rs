//! `conf.json` of the original.

use std::time::Duration;

use serde_json::Value;

/// Settings of actions, with the original's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conf {
    /// Root of the bus addresses.
    pub cluster: Option<String>,
    /// Name of this node.
    pub hostname: Option<String>,
    /// `host:port` of the local engine.
    pub engine: Option<String>,
    /// Port of the door.
    pub rest_port: Option<u16>,
    /// How long a node may take to answer an action.
    pub task_timeout: Duration,
    /// How long each container of a create may take.
    pub new_container_timeout: Duration,
}

impl Default for Conf {
    fn default() -> Conf {
        Conf {
            cluster: None,
            hostname: None,
            engine: None,
            rest_port: None,
            task_timeout: Duration::from_millis(2500),
            new_container_timeout: Duration::from_millis(15_000),
        }
    }
}

/// Reads the file's text. Besides the settings it gives sentences about what has no effect.
pub fn parse(text: &str) -> Result<(Conf, Vec<String>), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let Value::Object(fields) = value else { return Err("expected a JSON object".into()) };
    let (mut conf, mut notes) = (Conf::default(), Vec::new());
    let (mut host, mut port) = (None, None);
    for (key, value) in fields {
        let number = || value.as_u64().filter(|number| *number > 0);
        let number = || number().ok_or_else(|| format!("{key}: expected a positive number, not {value}"));
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| format!("{key}: expected a text, not {value}"));
        let small = || u16::try_from(number()?).map_err(|_| format!("{key}: expected a port, not {value}"));
        match key.as_str() {
            "clusterAddress" => conf.cluster = Some(text()?),
            "hostname" => conf.hostname = Some(text()?),
            "dockerHost" => host = Some(text()?),
            "dockerPort" => port = Some(small()?),
            "restServicePort" => conf.rest_port = Some(small()?),
            "taskTimeout" => conf.task_timeout = Duration::from_millis(number()?),
            "newContainerTimeout" => conf.new_container_timeout = Duration::from_millis(number()?),
            "announceInterval" | "trackingServiceInterval" => {
                number()?;
                notes.push(format!(
                    "{key} has no effect: nodes follow each other's events, nothing is announced in turns"
                ));
            }
            "main" | "services" => notes.push(format!("{key} has no effect: herder has no classes to load")),
            _ => notes.push(format!("{key} is not known and has no effect")),
        }
    }
    if host.is_some() || port.is_some() {
        conf.engine = Some(format!("{}:{}", host.as_deref().unwrap_or("localhost"), port.unwrap_or(5555)));
    }
    Ok((conf, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_own_file_is_read() {
        let (conf, notes) = parse(
            r#"{"main": "com.deblox.docker.DockerMod", "services": [], "clusterAddress": "deblox", "dockerHost": "localhost",
                "dockerPort": 5555, "announceInterval": 1250, "trackingServiceInterval": 10000, "taskTimeout": 2500,
                "newContainerTimeout": 15000, "colour": "red"}"#,
        )
        .expect("a file that is right");
        let expected =
            Conf { cluster: Some("deblox".into()), engine: Some("localhost:5555".into()), ..Conf::default() };
        assert_eq!(conf, expected);
        assert_eq!(notes.len(), 5, "{notes:?}");
        assert!(notes.contains(&"colour is not known and has no effect".to_owned()));
    }

    #[test]
    fn faults_name_their_key() {
        for (text, expected) in [
            ("[]", "expected a JSON object"),
            (r#"{"taskTimeout": "x"}"#, "taskTimeout: expected a positive number, not \"x\""),
            (r#"{"taskTimeout": 0}"#, "taskTimeout: expected a positive number, not 0"),
            (r#"{"dockerPort": 99999}"#, "dockerPort: expected a port, not 99999"),
            (r#"{"hostname": 1}"#, "hostname: expected a text, not 1"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }
}
