//! The labels of one declared thing, read one by one; what is left over is named.

use std::collections::BTreeMap;

/// Labels below one prefix: the option in lower case, the label as it is written, its value.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    found: BTreeMap<String, (String, String)>,
    /// Label, and what is wrong with it.
    pub(super) faults: Vec<(String, String)>,
}

impl Options {
    pub(super) fn put(&mut self, option: &str, label: &str, value: &str) {
        let option = option.to_ascii_lowercase();
        if let Some((other, before)) = self.found.get(&option)
            && before != value
        {
            let text = format!("says another thing than {other}: the case of letters does not count");
            self.faults.push((label.to_owned(), text));
            return;
        }
        self.found.insert(option, (label.to_owned(), value.to_owned()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.found.keys().map(String::as_str)
    }

    pub(super) fn has(&self, option: &str) -> bool {
        self.found.contains_key(option)
    }

    /// Any option that begins so.
    pub(super) fn has_under(&self, prefix: &str) -> bool {
        self.found.keys().any(|it| it.starts_with(prefix))
    }

    fn take(&mut self, option: &str) -> Option<(String, String)> {
        self.found.remove(option)
    }

    pub(super) fn text(&mut self, option: &str) -> Option<String> {
        self.take(option).map(|(_, value)| value.trim().to_owned())
    }

    /// Reads a value; one that cannot be read is a fault.
    pub(super) fn read<T>(&mut self, option: &str, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (label, value) = self.take(option)?;
        let found = read(value.trim());
        if found.is_none() {
            self.faults.push((label, format!("{value:?} is no {wanted}")));
        }
        found
    }

    pub(super) fn flag(&mut self, option: &str) -> Option<bool> {
        self.read(option, "boolean: write true or false", boolean)
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self, option: &str) -> Option<T> {
        self.read(option, "number in range", |it| it.parse().ok())
    }

    pub(super) fn milliseconds(&mut self, option: &str) -> Option<u64> {
        self.read(option, "duration: write 10s, 500ms or 2m", milliseconds)
    }

    /// Commas between; spaces around do not count.
    pub(super) fn list(&mut self, option: &str) -> Option<Vec<String>> {
        let text = self.text(option)?;
        Some(text.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect())
    }

    /// Options `prefix[0].x`, `prefix[1].x` …, in the order of their numbers.
    pub(super) fn indexed(&mut self, prefix: &str) -> BTreeMap<usize, Options> {
        let mut all: BTreeMap<usize, Options> = BTreeMap::new();
        let keys: Vec<String> = self.found.keys().filter(|it| it.starts_with(prefix)).cloned().collect();
        for key in keys {
            let Some((number, rest)) = key.strip_prefix(prefix).and_then(|it| it.strip_prefix('[')?.split_once(']'))
            else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            if let Some((label, value)) = self.take(&key) {
                all.entry(number).or_default().put(rest.trim_start_matches('.'), &label, &value);
            }
        }
        all
    }

    /// Options below `prefix`, with the names as they are written.
    pub(super) fn named(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let keys: Vec<String> = self.found.keys().filter(|it| it.starts_with(prefix)).cloned().collect();
        let mut named = BTreeMap::new();
        for key in keys {
            if let Some((label, value)) = self.take(&key) {
                let name = label.get(label.len() - (key.len() - prefix.len())..).unwrap_or_default();
                named.insert(name.to_owned(), value);
            }
        }
        named
    }

    /// Named as not yet there: the value is not used.
    pub(super) fn not_yet(&mut self, prefix: &str) {
        let keys: Vec<String> = self.found.keys().filter(|it| it.starts_with(prefix)).cloned().collect();
        for key in keys {
            if let Some((label, _)) = self.take(&key) {
                self.faults.push((label, "is not supported yet and has no effect; remove it".to_owned()));
            }
        }
    }

    /// Reports every option that nothing has read as unknown.
    pub(super) fn end(mut self, faults: &mut Vec<(String, String)>) {
        faults.append(&mut self.faults);
        for (label, _) in self.found.into_values() {
            faults.push((label, "is not understood; check its spelling, or remove it".to_owned()));
        }
    }
}

/// Parses a boolean as Go does.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `1.5s`, `200ms`, `1h30m`; a number alone is seconds.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1000);
    }
    let (mut total, mut rest) = (0.0_f64, text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        let after = rest.get(digits..)?;
        let length = after.find(|it: char| it.is_ascii_digit()).unwrap_or(after.len());
        let factor = match after.get(..length)? {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return None,
        };
        total += number * factor;
        rest = after.get(length..)?;
    }
    let most = 1e15;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to the most")]
    (0.0..most).contains(&total).then_some(total.round() as u64)
}
