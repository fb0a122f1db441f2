//! Check of doc comments: the first sentence says what the item is or does, and is short.

use std::process::Command;

use crate::run;

/// Words that begin a question or a relative clause where a noun or a verb should stand.
const NO_BEGINNINGS: [&str; 18] = [
    "As", "How", "Nobody", "Of", "So", "Somebody", "That", "What", "Whatever", "When", "Where", "Whether", "Which",
    "Who", "Whoever", "Whom", "Whose", "Why",
];

/// Maximum number of words of a first sentence.
const WORDS_MAX: usize = 20;

/// Returns the doc comments that break the rule, as lines to print.
pub(super) fn check() -> anyhow::Result<Vec<String>> {
    let files = run::read(Command::new("git").args(["ls-files", "*.rs"]))?;
    let mut violations = Vec::new();
    for path in files.lines() {
        // A file that was removed and not yet committed is listed, too.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        violations.extend(found(&text).into_iter().map(|(line, why)| format!("{path}:{line}: {why}")));
    }
    Ok(violations)
}

/// Faults of a file, with the line (from 1) on which the comment begins.
fn found(text: &str) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    let mut lines = text.lines().map(doc).enumerate().peekable();
    while let Some((number, first)) = lines.next() {
        let Some(first) = first else { continue };
        let mut paragraph = first.to_owned();
        let mut ended = first.is_empty();
        while let Some((_, Some(next))) = lines.next_if(|(_, line)| line.is_some()) {
            ended |= next.is_empty();
            if !ended {
                paragraph = format!("{paragraph} {next}");
            }
        }
        if let Some(why) = fault(sentence(&paragraph)) {
            faults.push((number + 1, why));
        }
    }
    faults
}

/// Returns the text of a line of a doc comment.
fn doc(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let text = line.strip_prefix("///").filter(|it| !it.starts_with('/')).or_else(|| line.strip_prefix("//!"))?;
    Some(text.trim())
}

fn sentence(paragraph: &str) -> &str {
    paragraph.split(". ").next().unwrap_or_default()
}

fn fault(sentence: &str) -> Option<String> {
    let mut words = sentence.split_whitespace();
    let first = words.next()?;
    if NO_BEGINNINGS.contains(&first) {
        return Some(format!("the doc comment begins with `{first}`: say what the item is or does"));
    }
    let count = 1 + words.count();
    (count > WORDS_MAX)
        .then(|| format!("the first sentence of the doc comment has {count} words; {WORDS_MAX} are allowed"))
}

#[cfg(test)]
mod tests {
    fn faults(text: &str) -> String {
        super::found(text).into_iter().map(|(line, why)| format!("{line} {why}")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn first_sentences_say_what_the_item_is() {
        assert_eq!(faults("/// Returns the name. What follows\n/// is free.\n///\n/// Whether.\nfn a() {}\n"), "");
        assert_eq!(
            faults("//! Whether it runs.\n"),
            "1 the doc comment begins with `Whether`: say what the item is or does"
        );
        let long = format!("\n    /// A{}\n    /// b c.\n", " word".repeat(18));
        assert_eq!(faults(&long), "2 the first sentence of the doc comment has 21 words; 20 are allowed");
        assert_eq!(faults("// Whether a plain comment.\n//// Whether a line.\n"), "");
    }
}
