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
    /// Maximum time of a node's answer to an action.
    pub task_timeout: Duration,
    /// Maximum time of each container of a create.
    pub new_container_timeout: Duration,
    /// Interval of liveness checks of nodes. Only from the file: without one, herder's own.
    pub announce_interval: Option<Duration>,
    /// Interval at which the containers of a node are read anew, events or not. Only from the file, too.
    pub tracking_interval: Option<Duration>,
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
            announce_interval: None,
            tracking_interval: None,
        }
    }
}

/// The original's own intervals, where a file does not name them.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(1000);
const TRACKING_INTERVAL: Duration = Duration::from_millis(10_000);

/// Maximum number: the milliseconds of a day. A longer wait is a mistake of the unit.
const NUMBER_MAX: u64 = 24 * 3600 * 1000;

/// Reads the file's text. Besides the settings it gives sentences about what has no effect.
pub fn parse(text: &str) -> Result<(Conf, Vec<String>), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let Value::Object(fields) = value else { return Err("expected a JSON object".into()) };
    let (announce_interval, tracking_interval) = (Some(ANNOUNCE_INTERVAL), Some(TRACKING_INTERVAL));
    let mut conf = Conf { announce_interval, tracking_interval, ..Conf::default() };
    let mut notes = Vec::new();
    let (mut host, mut port) = (None, None);
    for (key, value) in fields {
        let number = || value.as_u64().filter(|number| (1..=NUMBER_MAX).contains(number));
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
            "announceInterval" => conf.announce_interval = Some(Duration::from_millis(number()?)),
            "trackingServiceInterval" => conf.tracking_interval = Some(Duration::from_millis(number()?)),
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
        let expected = Conf {
            cluster: Some("deblox".into()),
            engine: Some("localhost:5555".into()),
            announce_interval: Some(Duration::from_millis(1250)),
            tracking_interval: Some(Duration::from_secs(10)),
            ..Conf::default()
        };
        assert_eq!(conf, expected);
        assert_eq!(
            notes,
            [
                "main has no effect: herder has no classes to load",
                "services has no effect: herder has no classes to load",
                "colour is not known and has no effect",
            ]
        );
    }

    #[test]
    fn what_a_file_leaves_out_is_as_in_the_original() {
        let (conf, notes) = parse(r#"{"restServicePort": 8080, "hostname": "h1"}"#).expect("a file that is right");
        assert_eq!((conf.rest_port, conf.hostname.as_deref()), (Some(8080), Some("h1")));
        assert_eq!((conf.task_timeout.as_millis(), conf.new_container_timeout.as_millis()), (2500, 15_000));
        assert_eq!(conf.announce_interval.zip(conf.tracking_interval), Some((ANNOUNCE_INTERVAL, TRACKING_INTERVAL)));
        assert!(notes.is_empty(), "{notes:?}");
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
