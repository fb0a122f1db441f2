//! Conditions of circuit breakers, in Traefik's language: `NetworkErrorRatio() > 0.3 || LatencyAtQuantileMS(50.0) > 100`.

use std::ops::Range;

/// Calls and comparisons of one condition. A longer one is refused.
const PARTS_MAX: usize = 64;

/// Figures of the requests of the last seconds.
pub trait Figures {
    /// Requests whose answer has one of these status codes.
    fn answers(&self, codes: Range<u16>) -> u64;
    /// Requests to which no task answered.
    fn network_errors(&self) -> u64;
    fn requests(&self) -> u64;
    /// Milliseconds within which this percentage of the answers came.
    fn latency_ms(&self, percent: f64) -> f64;
}

/// A condition under which a circuit breaker opens.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Measure, Comparison, f64),
}

/// A figure that a condition compares.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    NetworkErrors,
    LatencyMs(f64),
    /// Share of the first codes among the second ones.
    Codes(Range<u16>, Range<u16>),
}

/// An operator between a figure and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    ///
    /// Says what is wrong, and before which text.
    pub fn parse(text: &str) -> Result<Condition, String> {
        let mut reader = Reader { rest: text, parts: 0 };
        let condition = reader.any()?;
        reader.skip();
        if reader.rest.is_empty() { Ok(condition) } else { Err(reader.wrong("expected && or || or the end")) }
    }

    /// Returns whether the condition holds.
    pub fn holds(&self, figures: &dyn Figures) -> bool {
        match self {
            Condition::All(all) => all.iter().all(|it| it.holds(figures)),
            Condition::Any(all) => all.iter().any(|it| it.holds(figures)),
            Condition::Not(it) => !it.holds(figures),
            Condition::Compare(measure, comparison, number) => {
                let value = measure.of(figures);
                match comparison {
                    Comparison::Less => value < *number,
                    Comparison::LessOrEqual => value <= *number,
                    Comparison::Greater => value > *number,
                    Comparison::GreaterOrEqual => value >= *number,
                    Comparison::Equal => (value - number).abs() < f64::EPSILON,
                    Comparison::NotEqual => (value - number).abs() >= f64::EPSILON,
                }
            }
        }
    }
}

impl Measure {
    fn of(&self, figures: &dyn Figures) -> f64 {
        match self {
            Measure::NetworkErrors => ratio(figures.network_errors(), figures.requests()),
            Measure::LatencyMs(percent) => figures.latency_ms(*percent),
            Measure::Codes(of, among) => ratio(figures.answers(of.clone()), figures.answers(among.clone())),
        }
    }
}

/// A share; 0 of nothing is 0.
fn ratio(part: u64, whole: u64) -> f64 {
    let number = |it: u64| f64::from(u32::try_from(it).unwrap_or(u32::MAX));
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

struct Reader<'t> {
    rest: &'t str,
    parts: usize,
}

impl<'t> Reader<'t> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn takes(&mut self, text: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn wrong(&self, text: &str) -> String {
        match self.rest.is_empty() {
            true => format!("{text} at the end"),
            false => format!("{text} before {:?}", self.rest),
        }
    }

    fn any(&mut self) -> Result<Condition, String> {
        let mut all = vec![self.all()?];
        while self.takes("||") {
            all.push(self.all()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::Any(all) })
    }

    fn all(&mut self) -> Result<Condition, String> {
        let mut all = vec![self.one()?];
        while self.takes("&&") {
            all.push(self.one()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::All(all) })
    }

    fn one(&mut self) -> Result<Condition, String> {
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err(format!("has more than {PARTS_MAX} parts"));
        }
        if self.takes("!") {
            return Ok(Condition::Not(Box::new(self.one()?)));
        }
        if self.takes("(") {
            let inner = self.any()?;
            return if self.takes(")") { Ok(inner) } else { Err(self.wrong("expected )")) };
        }
        let measure = self.measure()?;
        let comparison = COMPARISONS.into_iter().find(|(text, _)| self.takes(text));
        let (_, comparison) = comparison.ok_or_else(|| self.wrong("expected < <= > >= == or !="))?;
        Ok(Condition::Compare(measure, comparison, self.number()?))
    }

    fn word(&mut self, is_part: fn(char) -> bool) -> &'t str {
        self.skip();
        let (word, rest) = self.rest.split_at(self.rest.find(|it| !is_part(it)).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn digits(&mut self) -> Result<&'t str, String> {
        let before = self.rest.trim_start();
        let word = self.word(|it| it.is_ascii_digit() || it == '.');
        if word.parse::<f64>().is_err() {
            self.rest = before;
            return Err(self.wrong("expected a number"));
        }
        Ok(word)
    }

    fn number(&mut self) -> Result<f64, String> {
        self.digits()?.parse().map_err(|_| self.wrong("expected a number"))
    }

    fn measure(&mut self) -> Result<Measure, String> {
        let before = self.rest.trim_start();
        let name = self.word(|it| it.is_ascii_alphanumeric());
        let mut numbers = Vec::new();
        if !self.takes("(") {
            self.rest = before;
            return Err(self.wrong("expected NetworkErrorRatio(), LatencyAtQuantileMS(percent) or ResponseCodeRatio(from, to, of from, of to)"));
        }
        while !self.takes(")") {
            if !numbers.is_empty() && !self.takes(",") {
                return Err(self.wrong("expected , or )"));
            }
            numbers.push(self.digits()?);
            if numbers.len() > 4 {
                return Err(self.wrong("too many numbers"));
            }
        }
        let code = |it: &str| it.parse::<u16>().ok().filter(|it| *it <= 1000);
        let codes = |from: &str, to: &str| Some(code(from)?..code(to)?);
        let percent = |it: &str| it.parse().ok().filter(|it| (0.0..=100.0).contains(it));
        match (name, &numbers[..]) {
            ("NetworkErrorRatio", []) => Ok(Measure::NetworkErrors),
            ("LatencyAtQuantileMS", [it]) => {
                percent(it).map(Measure::LatencyMs).ok_or_else(|| format!("{name} wants a percentage"))
            }
            ("ResponseCodeRatio", [a, b, c, d]) => match codes(a, b).zip(codes(c, d)) {
                Some((of, among)) => Ok(Measure::Codes(of, among)),
                None => Err(format!("{name} wants status codes")),
            },
            _ => Err(format!(
                "{name} with {} numbers is none of NetworkErrorRatio(), LatencyAtQuantileMS(percent), ResponseCodeRatio(from, to, of from, of to)",
                numbers.len()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred requests: ten failed, twenty were answered with 500. Each took as many milliseconds as its number.
    struct Hundred;

    impl Figures for Hundred {
        fn answers(&self, codes: Range<u16>) -> u64 {
            [(200, 70), (500, 20), (502, 10)]
                .into_iter()
                .filter(|(code, _)| codes.contains(code))
                .map(|(_, it)| it)
                .sum()
        }

        fn network_errors(&self) -> u64 {
            10
        }

        fn requests(&self) -> u64 {
            100
        }

        fn latency_ms(&self, percent: f64) -> f64 {
            percent
        }
    }

    #[test]
    fn conditions_are_read_and_held_against_figures() {
        let check = |text: &str, expected: bool| {
            assert_eq!(Condition::parse(text).map(|it| it.holds(&Hundred)), Ok(expected), "{text}");
        };
        check("NetworkErrorRatio() > 0.09", true);
        check("NetworkErrorRatio() > 0.10", false);
        check("NetworkErrorRatio()>=0.1", true);
        check("LatencyAtQuantileMS(50.0) > 49", true);
        check("LatencyAtQuantileMS(50.0) > 50", false);
        check("ResponseCodeRatio(500, 600, 0, 600) > 0.25", true);
        check("ResponseCodeRatio(500, 501, 0, 600) == 0.2", true);
        check("ResponseCodeRatio(500, 600, 600, 700) > 0", false);
        check(
            "NetworkErrorRatio() > 0.5 || LatencyAtQuantileMS(99) > 90 && ResponseCodeRatio(200,300,0,600) < 0.8",
            true,
        );
        check("!(NetworkErrorRatio() > 0.5) && !LatencyAtQuantileMS(1) != 1", true);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Condition::parse(text).map_err(|it| it.contains(expected)), Err(true), "{text}");
        };
        check("", "NetworkErrorRatio");
        check("NetworkErrorRatio()", "expected < <=");
        check("NetworkErrorRatio() > x", "a number before \"x\"");
        check("NetworkErrorRatio() > 1 x", "&& or ||");
        check("NetworkErrorRatio(1) > 1", "with 1 numbers");
        check("LatencyAtQuantileMS(101) > 1", "percentage");
        check("ResponseCodeRatio(500, 2000, 0, 600) > 1", "status codes");
        check("(NetworkErrorRatio() > 1", "expected )");
        check("Other() > 1", "Other with 0 numbers");
        check(&"!".repeat(100), "more than 64 parts");
    }
}
