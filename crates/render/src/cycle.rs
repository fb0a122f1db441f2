//! The time of the next rendering: quiescence between changes. Pure.

use std::time::Duration;

/// Waits so long after a change, and at most so long after the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    pub min: Duration,
    pub max: Duration,
}

impl Default for Wait {
    fn default() -> Self {
        Wait { min: Duration::from_millis(200), max: Duration::from_secs(2) }
    }
}

impl Wait {
    /// Reads `MIN` or `MIN:MAX`; the maximum is four times the minimum where it is not given.
    ///
    /// # Errors
    /// Says which part is no length of time.
    pub fn parse(text: &str) -> Result<Wait, String> {
        let (min, max) = match text.split_once(':') {
            Some((min, max)) => (duration(min)?, Some(duration(max)?)),
            None => (duration(text)?, None),
        };
        let max = max.unwrap_or(min * 4);
        if max < min {
            return Err(format!("wait {text}: the maximum is less than the minimum"));
        }
        Ok(Wait { min, max })
    }
}

/// Reads a length of time as Go writes it: `200ms`, `2s`, `1m30s`.
///
/// # Errors
/// Says that it is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no length of time; write it as 200ms, 2s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |unit| digits + unit);
        let factor = match &rest[digits..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += rest[..digits].parse::<f64>().map_err(|_| wrong())? * factor;
        rest = &rest[unit..];
    }
    if text.is_empty() { Err(wrong()) } else { Duration::try_from_secs_f64(seconds).map_err(|_| wrong()) }
}

/// The quiescence timer of renderings. Times are since any moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cycle {
    /// Times of the first and last change that is not rendered yet.
    changed: Option<(Duration, Duration)>,
}

impl Cycle {
    /// Something changed now.
    pub fn change(&mut self, now: Duration) {
        let first = self.changed.map_or(now, |(first, _)| first);
        self.changed = Some((first, now));
    }

    /// Returns the time to render, if anything changed.
    pub fn due(&self, wait: Wait) -> Option<Duration> {
        self.changed.map(|(first, last)| (last + wait.min).min(first + wait.max))
    }

    /// Records that the file was rendered.
    pub fn done(&mut self) {
        self.changed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_waited_out_but_not_for_ever() {
        let at = |text: &str| duration(text).expect("a time");
        let wait = Wait::parse("200ms:2s").expect("a wait");
        let mut cycle = Cycle::default();
        assert_eq!(cycle.due(wait), None);
        cycle.change(at("1s"));
        assert_eq!(cycle.due(wait), Some(at("1200ms")));
        cycle.change(at("1100ms"));
        assert_eq!(cycle.due(wait), Some(at("1300ms")));
        (0..100).for_each(|step| cycle.change(at("1s") + Duration::from_millis(step * 100)));
        assert_eq!(cycle.due(wait), Some(at("3s")));
        cycle.done();
        assert_eq!(cycle.due(wait), None);
        assert_eq!(Wait::parse("5s").map(|wait| wait.max), Ok(at("20s")));
        assert!(Wait::parse("5s:1s").is_err() && Wait::parse("5").is_err() && Wait::parse("").is_err());
    }
}
