//! Report of figures, baselines and goals, as a table or as JSON. Benchmarks of other crates include this file, so that
//! all tables look the same.

use std::time::Duration;

/// Goal of a figure. A missed one fails nothing: machines differ.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// The figure explains another one.
    None,
    /// Measured divided by baseline.
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// Measured, in the unit of the figure.
    Below(f64),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub figure: String,
    pub unit: &'static str,
    pub measured: f64,
    pub baseline: Option<f64>,
    pub goal: Goal,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.baseline.filter(|baseline| *baseline > 0.0).map(|baseline| self.measured / baseline)
    }

    fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::None => None,
            Goal::RatioAtLeast(limit) => self.ratio().map(|ratio| ratio >= limit),
            Goal::RatioAtMost(limit) => self.ratio().map(|ratio| ratio <= limit),
            Goal::Below(limit) => Some(self.measured < limit),
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::None => String::new(),
            Goal::RatioAtLeast(limit) => format!(">= {} x", hundredths(limit)),
            Goal::RatioAtMost(limit) => format!("<= {} x", hundredths(limit)),
            Goal::Below(limit) => format!("< {limit} {}", self.unit),
        }
    }
}

/// The table of one benchmark. Lines appear as they are measured; JSON comes as a whole at the end.
#[derive(Debug)]
pub(crate) struct Report {
    bench: &'static str,
    json: bool,
    rows: Vec<Row>,
}

impl Report {
    /// `baseline` says what the figures are held against.
    pub(crate) fn new(bench: &'static str, json: bool, baseline: &str) -> Report {
        if !json {
            println!("{bench}; baseline: {baseline}");
            println!("{:<46}{:>16}{:>16}{:>10}  {:<14}", "FIGURE", "MEASURED", "BASELINE", "RATIO", "GOAL");
        }
        Report { bench, json, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, row: Row) {
        if !self.json {
            let baseline = row.baseline.map(|value| amount(value, row.unit)).unwrap_or_default();
            let ratio = row.ratio().map(|ratio| format!("{ratio:.2} x")).unwrap_or_default();
            let met = row.met().map_or("", |met| if met { "met" } else { "NOT MET" });
            let line = format!(
                "{:<46}{:>16}{baseline:>16}{ratio:>10}  {:<14}{met}",
                row.figure,
                amount(row.measured, row.unit),
                row.goal_text()
            );
            println!("{}", line.trim_end());
        }
        self.rows.push(row);
    }

    pub(crate) fn end(self) {
        if self.json {
            let row = |row: &Row| {
                serde_json::json!({
                    "figure": row.figure, "unit": row.unit, "measured": row.measured, "baseline": row.baseline,
                    "ratio": row.ratio(), "goal": row.goal_text(), "met": row.met(),
                })
            };
            let rows: Vec<_> = self.rows.iter().map(row).collect();
            println!("{}", serde_json::json!({"bench": self.bench, "rows": rows}));
        } else {
            println!();
        }
    }
}

/// A third has no end.
fn hundredths(limit: f64) -> f64 {
    (limit * 100.0).round() / 100.0
}

fn amount(value: f64, unit: &str) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0} {unit}"),
        value if value >= 10.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.3} {unit}"),
    }
}

/// Returns the round with the middle ratio of those that measured two sides in turn. A machine's speed changes from
/// round to round, and less between the two sides of one.
pub(crate) fn middle(mut rounds: Vec<(f64, f64)>) -> (f64, f64) {
    rounds.sort_by(|(a, b), (c, d)| (a / b).total_cmp(&(c / d)));
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

/// Repeated times of the same thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Milliseconds below which `share` (0 to 1) of all times are; 0 without times.
    pub(crate) fn ms(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into a list in memory")]
        let index = (self.0.len() as f64 * share) as usize;
        let time = self.0.get(index.min(self.0.len().saturating_sub(1)));
        time.map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Times {
        Times(times.into_iter().collect())
    }
}
