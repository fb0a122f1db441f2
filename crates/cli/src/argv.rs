//! Long options with one dash (`-experimental`, `-cluster-opt x`), as scripts for classic Swarm write them. Pure.

/// Options of classic Swarm that may be written with one dash, and whether a value follows them.
const LONG: &[(&str, bool)] = &[
    ("addr", true),
    ("advertise", true),
    ("api-enable-cors", false),
    ("cluster-driver", true),
    ("cluster-opt", true),
    ("container-name-refresh-filter", true),
    ("cors", false),
    ("debug", false),
    ("delay", true),
    ("discovery-opt", true),
    ("engine-failure-retry", true),
    ("engine-refresh-max-interval", true),
    ("engine-refresh-min-interval", true),
    ("engine-refresh-retry", true),
    ("experimental", false),
    ("filter", true),
    ("heartbeat", true),
    ("help", false),
    ("host", true),
    ("log-level", true),
    ("refresh-on-node-filter", false),
    ("replication", false),
    ("replication-ttl", true),
    ("strategy", true),
    ("timeout", true),
    ("tls", false),
    ("tlscacert", true),
    ("tlscert", true),
    ("tlskey", true),
    ("tlsverify", false),
    ("ttl", true),
    ("version", false),
];

/// Options of one letter that are followed by a value.
const SHORT_WITH_VALUE: &[&str] = &["-l", "-f", "-H", "-c"];

/// Verbs of classic Swarm. All other verbs are herder's own, and their options have two dashes.
const VERBS: &[&str] = &["create", "c", "join", "j", "list", "l", "manage", "m"];

/// Verbs that take the place of Go programs, whose options of any length have one dash.
const ONE_DASH: &[&str] = &["registrator", "render"];

/// Gives options with one dash a second one, and takes `=true` from switches. Values that begin with a dash stay: they are numbers.
fn two_dashes(word: String) -> Option<String> {
    let is_option = |rest: &str| rest.len() > 1 && rest.starts_with(|c: char| c.is_ascii_alphabetic());
    let word = match word.strip_prefix('-') {
        Some(rest) if is_option(rest) && !is_short(rest) => format!("-{word}"),
        _ => word,
    };
    let (Some(name), true) = (word.strip_suffix("=true"), word.starts_with("--")) else {
        return Some(word).filter(|word| !(word.starts_with("--") && word.ends_with("=false")));
    };
    Some(name.to_owned())
}

/// `-Hunix:///…`: a short option with its value.
fn is_short(rest: &str) -> bool {
    rest.starts_with('H')
}

/// Rewrites the options of classic Swarm in clap's form: a second dash for long options, `--tls=true` as `--tls`,
/// `--tls=false` removed. Values of options, words after `--` and the words of herder's own verbs stay as they are.
pub fn normalize(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut out = Vec::new();
    let mut words = arguments.into_iter();
    out.extend(words.next());
    let mut before_verb = true;
    while let Some(word) = words.next() {
        if !word.starts_with('-') || word == "-" {
            if before_verb && ONE_DASH.contains(&word.as_str()) {
                out.push(word);
                out.extend(words.by_ref().filter_map(two_dashes));
                break;
            }
            let classic = !before_verb || VERBS.contains(&word.as_str());
            before_verb = false;
            out.push(word);
            if !classic {
                break;
            }
            continue;
        }
        let takes_value = match option(&word) {
            _ if word == "--" => {
                out.push(word);
                break;
            }
            Some((name, false)) => {
                match word.split_once('=').map(|(_, value)| value) {
                    None => out.push(format!("--{name}")),
                    Some("1" | "t" | "T" | "true" | "TRUE" | "True") => out.push(format!("--{name}")),
                    Some("0" | "f" | "F" | "false" | "FALSE" | "False") => {}
                    // Not a boolean: clap refuses it.
                    Some(value) => out.push(format!("--{name}={value}")),
                }
                false
            }
            Some((_, true)) => {
                let takes_value = !word.contains('=');
                out.push(if word.starts_with("--") { word } else { format!("-{word}") });
                takes_value
            }
            None => {
                let takes_value = SHORT_WITH_VALUE.contains(&word.as_str());
                out.push(word);
                takes_value
            }
        };
        if takes_value {
            out.extend(words.next());
        }
    }
    out.extend(words);
    // `-v` was the version in classic Swarm.
    if let Some(word) = out.get_mut(1).filter(|word| *word == "-v") {
        *word = "--version".into();
    }
    out
}

/// The long option that `word` is, with one dash or two, and whether a value follows it.
fn option(word: &str) -> Option<(&'static str, bool)> {
    let rest = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    let name = rest.split('=').next().unwrap_or_default();
    LONG.iter().find(|(long, _)| *long == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_is_enough_for_long_options_of_the_original() {
        for (typed, expected) in [
            ("herder -experimental manage -cluster-opt a=b x", "herder --experimental manage --cluster-opt a=b x"),
            ("herder manage -H tcp://a:1 -f health -c swarm", "herder manage -H tcp://a:1 -f health -c swarm"),
            ("herder manage -engine-refresh-max-interval=5s x", "herder manage --engine-refresh-max-interval=5s x"),
            ("herder manage --strategy spread x", "herder manage --strategy spread x"),
            ("herder -v", "herder --version"),
            (
                "herder registrator -ip 1.2.3.4 -retry-attempts -1 -internal=true consul://c",
                "herder registrator --ip 1.2.3.4 --retry-attempts -1 --internal consul://c",
            ),
            (
                "herder registrator -useIpFromLabel=a --cleanup=false -H tcp://e:1 x",
                "herder registrator --useIpFromLabel=a -H tcp://e:1 x",
            ),
            ("herder render -template a:b -once", "herder render --template a:b --once"),
            ("herder -l debug manage -replication", "herder -l debug manage --replication"),
            ("herder -l debug -experimental manage -tls x", "herder -l debug --experimental manage --tls x"),
            ("herder -log-level DEBUG -experimental m x", "herder --log-level DEBUG --experimental m x"),
            ("herder -l=debug -debug manage x", "herder -l=debug --debug manage x"),
            ("herder -l manage -experimental manage x", "herder -l manage --experimental manage x"),
            ("herder manage --strategy -tls x", "herder manage --strategy -tls x"),
            ("herder manage -replication-ttl -20s x", "herder manage --replication-ttl -20s x"),
            ("herder manage -tls=true -replication=false x", "herder manage --tls x"),
            ("herder -debug=1 manage --tls=maybe x", "herder --debug manage --tls=maybe x"),
            ("herder --debug up -debug", "herder --debug up -debug"),
            ("herder lab exec h1 ls -help", "herder lab exec h1 ls -help"),
            ("herder manage -- -debug", "herder manage -- -debug"),
        ] {
            let words = typed.split(' ').map(str::to_owned);
            assert_eq!(normalize(words).join(" "), expected);
        }
    }
}
