//! Docker's words for states and times.

use herder_model::{Container, Health, Node};

/// The `Status` column. `now` in seconds since 1970.
pub fn status(node: &Node, container: &Container, now: i64) -> String {
    if !node.is_healthy() {
        return "Host Down".into();
    }
    let since = |time: i64| duration(now - time);
    let up = || format!("Up {}", since(container.started_at));
    match container.state.as_str() {
        "paused" => format!("{} (Paused)", up()),
        "restarting" => format!("Restarting ({}) {} ago", container.exit_code, since(container.finished_at)),
        "running" => match container.health {
            None => up(),
            Some(Health::Starting) => format!("{} (health: starting)", up()),
            Some(Health::Healthy) => format!("{} (healthy)", up()),
            Some(Health::Unhealthy) => format!("{} (unhealthy)", up()),
        },
        "removing" => "Removal In Progress".into(),
        "dead" => "Dead".into(),
        _ if container.started_at == 0 => "Created".into(),
        _ if container.finished_at == 0 => String::new(),
        _ => format!("Exited ({}) {} ago", container.exit_code, since(container.finished_at)),
    }
}

/// A length of time in seconds, as rough as Docker puts it.
pub fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Docker rounds hours to the nearest.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use herder_model::NodeState;

    #[test]
    fn durations_are_as_rough_as_dockers() {
        const HOUR: i64 = 3600;
        for (seconds, expected) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (59 * 60, "59 minutes"),
            (HOUR, "About an hour"),
            (2 * HOUR, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (14 * 24 * HOUR, "2 weeks"),
            (60 * 24 * HOUR, "2 months"),
            (3 * 365 * 24 * HOUR, "3 years"),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn every_state_has_its_words() {
        let node = Node { state: NodeState::Healthy, ..Node::default() };
        for (state, started_at, finished_at, expected) in [
            ("created", 0, 0, "Created"),
            ("running", 90, 0, "Up 10 seconds"),
            ("paused", 90, 0, "Up 10 seconds (Paused)"),
            ("restarting", 90, 98, "Restarting (2) 2 seconds ago"),
            ("exited", 90, 95, "Exited (2) 5 seconds ago"),
            ("dead", 90, 95, "Dead"),
            ("removing", 90, 95, "Removal In Progress"),
        ] {
            let container =
                Container { state: state.into(), started_at, finished_at, exit_code: 2, ..Container::default() };
            assert_eq!(status(&node, &container, 100), expected, "{state}");
        }
    }
}
