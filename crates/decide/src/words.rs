//! Docker's words for states and times.

use herder_model::{Container, Health, Node, Status};

/// The status as `docker ps` shows it, at `now` seconds since 1970.
pub fn status(node: &Node, container: &Container, now: i64) -> String {
    let mut text = String::new();
    status_into(&mut text, node, container, now);
    text
}

/// Same as [`status`], appended to `text`. Needs no escaping in JSON.
pub fn status_into(text: &mut String, node: &Node, container: &Container, now: i64) {
    tell_into(text, node, status_of(container), now);
}

/// Returns the parts of a status that do not depend on the clock and the node.
pub fn status_of(container: &Container) -> Status {
    match container.state.as_str() {
        "running" => Status::Up(
            container.started_at,
            match container.health {
                Some(Health::Starting) => " (health: starting)",
                Some(Health::Healthy) => " (healthy)",
                Some(Health::Unhealthy) => " (unhealthy)",
                None => "",
            },
        ),
        "paused" => Status::Up(container.started_at, " (Paused)"),
        "restarting" => Status::Ended("Restarting", container.exit_code, container.finished_at),
        "removing" => Status::Fixed("Removal In Progress"),
        "dead" => Status::Fixed("Dead"),
        _ if container.started_at == 0 => Status::Fixed("Created"),
        // Docker says nothing about what started and, as far as it knows, neither runs nor ended.
        _ if container.finished_at == 0 => Status::Fixed(""),
        _ => Status::Ended("Exited", container.exit_code, container.finished_at),
    }
}

pub(crate) fn tell_into(text: &mut String, node: &Node, status: Status, now: i64) {
    if !node.is_healthy() {
        return text.push_str("Host Down");
    }
    match status {
        Status::Fixed(words) => text.push_str(words),
        Status::Up(since, after) => {
            text.push_str("Up ");
            duration_into(text, now.saturating_sub(since));
            text.push_str(after);
        }
        Status::Ended(word, code, at) => {
            text.push_str(word);
            text.push_str(" (");
            number_into(text, code);
            text.push_str(") ");
            duration_into(text, now.saturating_sub(at));
            text.push_str(" ago");
        }
    }
}

/// A duration in Docker's words: `Less than a second`, `5 seconds`, `About a minute`, `3 weeks`.
pub fn duration(seconds: i64) -> String {
    let mut text = String::new();
    duration_into(&mut text, seconds);
    text
}

fn duration_into(text: &mut String, seconds: i64) {
    let (minutes, hours_whole) = (seconds / 60, seconds / 3600);
    // Docker rounds hours, and nothing else.
    let hours = (seconds + 1800) / 3600;
    let (count, unit) = match () {
        () if seconds < 1 => return text.push_str("Less than a second"),
        () if seconds == 1 => return text.push_str("1 second"),
        () if seconds < 60 => (seconds, " seconds"),
        () if minutes == 1 => return text.push_str("About a minute"),
        () if minutes < 60 => (minutes, " minutes"),
        () if hours == 1 => return text.push_str("About an hour"),
        () if hours < 48 => (hours, " hours"),
        () if hours < 24 * 7 * 2 => (hours / 24, " days"),
        () if hours < 24 * 30 * 2 => (hours / 24 / 7, " weeks"),
        () if hours < 24 * 365 * 2 => (hours / 24 / 30, " months"),
        () => (hours_whole / 24 / 365, " years"),
    };
    number_into(text, count);
    text.push_str(unit);
}

/// Writes without the detour over a formatter; a list of 30,000 containers has as many durations.
fn number_into(text: &mut String, number: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        text.push('-');
    }
    text.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
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
            (23 * HOUR + 1800, "24 hours"),
            (89 * 60, "About an hour"),
            (90 * 60, "2 hours"),
            (13 * 24 * HOUR, "13 days"),
            (60 * 24 * HOUR, "2 months"),
            (700 * 24 * HOUR, "23 months"),
            (3 * 365 * 24 * HOUR, "3 years"),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn health_is_told_while_it_runs_and_nothing_of_a_node_that_is_down() {
        let container = |health| Container { state: "running".into(), started_at: 95, health, ..Container::default() };
        let on = |state| Node { state, ..Node::default() };
        for (node, health, expected) in [
            (NodeState::Healthy, None, "Up 5 seconds"),
            (NodeState::Healthy, Some(Health::Starting), "Up 5 seconds (health: starting)"),
            (NodeState::Healthy, Some(Health::Healthy), "Up 5 seconds (healthy)"),
            (NodeState::Healthy, Some(Health::Unhealthy), "Up 5 seconds (unhealthy)"),
            (NodeState::Unhealthy, Some(Health::Healthy), "Host Down"),
            (NodeState::Pending, None, "Host Down"),
        ] {
            assert_eq!(status(&on(node), &container(health), 100), expected);
        }
    }

    #[test]
    fn numbers_are_written_as_ever() {
        for number in [0, 7, 10, 137, -1, i64::MAX, i64::MIN] {
            let mut text = String::new();
            number_into(&mut text, number);
            assert_eq!(text, number.to_string());
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
