//! The difference of two texts, line by line. Pure.

/// Maximum number of lines of both texts; longer ones are shown as replaced whole.
const LINES_MAX: usize = 4000;

/// The lines that `new` lacks with `-` and those that it adds with `+`, each with two lines around it.
pub(super) fn lines(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let marked = if old.len() > LINES_MAX || new.len() > LINES_MAX { replaced(&old, &new) } else { common(&old, &new) };
    let is_near = |at: usize| {
        let (from, to) = (at.saturating_sub(AROUND), (at + AROUND + 1).min(marked.len()));
        marked[from..to].iter().any(|(sign, _)| *sign != ' ')
    };
    let mut text = String::new();
    let mut is_gap = false;
    for (at, (sign, line)) in marked.iter().enumerate() {
        if is_near(at) {
            text.push_str(&format!("{sign} {line}\n"));
            is_gap = false;
        } else if !is_gap {
            text.push_str("  …\n");
            is_gap = true;
        }
    }
    if marked.iter().all(|(sign, _)| *sign == ' ') { String::new() } else { text }
}

/// Lines around a change that are shown.
const AROUND: usize = 2;

fn replaced<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    old.iter().map(|line| ('-', *line)).chain(new.iter().map(|line| ('+', *line))).collect()
}

/// Marks lines by the longest common subsequence.
fn common<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let width = new.len() + 1;
    let mut longest = vec![0_u16; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i * width + j] = if old[i] == new[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut marked = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            marked.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
            marked.push(('-', old[i]));
            i += 1;
        } else {
            marked.push(('+', new[j]));
            j += 1;
        }
    }
    marked
}

#[cfg(test)]
mod tests {
    #[test]
    fn changed_lines_are_shown_with_those_around_them() {
        let check = |old: &str, new: &str, expected: &str| {
            let lines = |text: &str| text.split(' ').collect::<Vec<_>>().join("\n");
            assert_eq!(super::lines(&lines(old), &lines(new)).trim_end().replace('\n', "|"), expected);
        };
        check("a b c", "a b c", "");
        check("a b c", "a x c", "  a|- b|+ x|  c");
        check("1 2 3 4 5 6 7", "1 2 3 4 5 6 7 8", "  …|  6|  7|+ 8");
        check("1 2 3 4 5 6 7", "0 2 3 4 5 6 7", "- 1|+ 0|  2|  3|  …");
    }
}
