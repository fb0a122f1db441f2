//! Long options with one dash (`-experimental`, `-cluster-opt x`), as scripts for classic Swarm write them. Pure.

/// Words of options that may be written with one dash. Short options of one letter stay what they are.
const LONG: &[&str] = &[
    "addr",
    "advertise",
    "api-enable-cors",
    "cluster-driver",
    "cluster-opt",
    "container-name-refresh-filter",
    "cors",
    "debug",
    "delay",
    "discovery-opt",
    "engine-failure-retry",
    "engine-refresh-max-interval",
    "engine-refresh-min-interval",
    "engine-refresh-retry",
    "experimental",
    "filter",
    "heartbeat",
    "help",
    "host",
    "log-level",
    "refresh-on-node-filter",
    "replication",
    "replication-ttl",
    "strategy",
    "timeout",
    "tls",
    "tlscacert",
    "tlscert",
    "tlskey",
    "tlsverify",
    "ttl",
    "version",
];

/// The verbs to which this applies; others come from herder itself and are written with two dashes.
const VERBS: &[&str] = &["create", "c", "join", "j", "list", "l", "manage", "m"];

/// Puts the second dash in front of long options that have one. Words after `--` are left alone.
pub fn normalize(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut out = Vec::new();
    let (mut global, mut classic, mut ended) = (true, true, false);
    for (index, word) in arguments.into_iter().enumerate() {
        ended |= word == "--";
        if index > 0 && global && !word.starts_with('-') && !word.is_empty() {
            // The first bare word may be the value of a global option; a verb decides.
            classic = VERBS.contains(&word.as_str()) || !word.chars().all(|c| c.is_ascii_lowercase());
            global = !classic || !VERBS.contains(&word.as_str());
        }
        let name = word.strip_prefix('-').map(|rest| rest.split('=').next().unwrap_or_default());
        let single = index > 0 && !ended && classic && name.is_some_and(|name| LONG.contains(&name));
        out.push(if single { format!("-{word}") } else { word });
    }
    // `-v` was the version in classic Swarm.
    if let Some(word) = out.get_mut(1).filter(|word| *word == "-v") {
        *word = "--version".into();
    }
    out
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
            ("herder -l debug manage -replication", "herder -l debug manage --replication"),
            ("herder lab exec h1 ls -help", "herder lab exec h1 ls -help"),
            ("herder manage -- -debug", "herder manage -- -debug"),
        ] {
            let words = typed.split(' ').map(str::to_owned);
            assert_eq!(normalize(words).join(" "), expected);
        }
    }
}
