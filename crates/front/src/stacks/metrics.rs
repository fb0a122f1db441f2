//! `GET /v2/metrics`: figures of operations on stacks and of targets, for Prometheus. Each door tells of what it did itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use herder_pool::full;
use herder_stacks::{OperationState, Verb};
use http::{HeaderValue, Response, header};
use parking_lot::Mutex;

use super::v2::Answered;

/// Addresses of targets that are told of.
const ADDRESSES_MAX: usize = 1024;

/// Number and time of calls or operations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    count: u64,
    seconds: f64,
}

impl Sum {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.seconds += time.as_secs_f64();
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Target {
    is_up: bool,
    calls: Sum,
}

/// Figures of one door since its start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By kind and outcome.
    operations: Mutex<BTreeMap<(String, String), Sum>>,
    /// By address.
    targets: Mutex<BTreeMap<String, Target>>,
}

impl Metrics {
    /// Counts an operation that this node carried out.
    pub(crate) fn ended(&self, kind: Verb, outcome: OperationState, time: Duration) {
        self.operations.lock().entry((word(&kind), word(&outcome))).or_default().add(time);
    }

    /// Counts a call of a remote engine.
    pub(crate) fn called(&self, address: &str, is_up: bool, time: Duration) {
        let mut targets = self.targets.lock();
        if targets.len() < ADDRESSES_MAX || targets.contains_key(address) {
            let target = targets.entry(address.to_owned()).or_default();
            target.is_up = is_up;
            target.calls.add(time);
        }
    }

    /// The figures in Prometheus' text format.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, lines: Vec<(String, String)>| {
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (labels, value) in lines {
                let _ = writeln!(text, "{labels} {value}");
            }
        };
        let operations = self.operations.lock().clone();
        let of = |name: &str, value: fn(&Sum) -> String| {
            let line = |((kind, outcome), sum): (&(String, String), &Sum)| {
                (format!("{name}{{kind=\"{kind}\",outcome=\"{outcome}\"}}"), value(sum))
            };
            operations.iter().map(line).collect::<Vec<_>>()
        };
        family(
            "herder_stack_operations_total",
            "counter",
            of("herder_stack_operations_total", |it| it.count.to_string()),
        );
        let mut seconds = of("herder_stack_operations_seconds_sum", |it| format!("{:.3}", it.seconds));
        seconds.extend(of("herder_stack_operations_seconds_count", |it| it.count.to_string()));
        family("herder_stack_operations_seconds", "summary", seconds);
        let targets = self.targets.lock().clone();
        let of = |name: &str, value: fn(&Target) -> String| {
            let line = |(address, it): (&String, &Target)| (format!("{name}{{target=\"{address}\"}}"), value(it));
            targets.iter().map(line).collect::<Vec<_>>()
        };
        family("herder_target_up", "gauge", of("herder_target_up", |it| u8::from(it.is_up).to_string()));
        let mut seconds = of("herder_target_request_seconds_sum", |it| format!("{:.3}", it.calls.seconds));
        seconds.extend(of("herder_target_request_seconds_count", |it| it.calls.count.to_string()));
        family("herder_target_request_seconds", "summary", seconds);
        text
    }

    pub(crate) fn answer(&self) -> Answered {
        let mut reply = Response::new(full(self.text()));
        let media_type = HeaderValue::from_static("text/plain; version=0.0.4");
        reply.headers_mut().insert(header::CONTENT_TYPE, media_type);
        Ok(reply)
    }
}

/// A word as the API has it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_in_the_form_of_prometheus() {
        let metrics = Metrics::default();
        metrics.ended(Verb::Deploy, OperationState::RolledBack, Duration::from_millis(1500));
        metrics.ended(Verb::Deploy, OperationState::RolledBack, Duration::from_secs(1));
        metrics.called("10.0.0.1:2376", true, Duration::from_millis(20));
        metrics.called("10.0.0.1:2376", false, Duration::from_millis(20));
        let expected = "\
# TYPE herder_stack_operations_total counter
herder_stack_operations_total{kind=\"deploy\",outcome=\"rolled_back\"} 2
# TYPE herder_stack_operations_seconds summary
herder_stack_operations_seconds_sum{kind=\"deploy\",outcome=\"rolled_back\"} 2.500
herder_stack_operations_seconds_count{kind=\"deploy\",outcome=\"rolled_back\"} 2
# TYPE herder_target_up gauge
herder_target_up{target=\"10.0.0.1:2376\"} 0
# TYPE herder_target_request_seconds summary
herder_target_request_seconds_sum{target=\"10.0.0.1:2376\"} 0.040
herder_target_request_seconds_count{target=\"10.0.0.1:2376\"} 2
";
        assert_eq!(metrics.text(), expected);
    }
}
