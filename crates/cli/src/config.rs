//! The configuration file of `up` and `manage`: the same names as flags, below flags and the environment.
//!
//! Keys of all verbs stand at the top; those of a verb in its table:
//!
//! ```toml
//! log-level = "info"
//!
//! [up]
//! listen = ["tcp://0.0.0.0:2376"]
//! tlsverify = true
//! label = { zone = "a", disk = "ssd" }
//! ```
//!
//! A key becomes the flag of its name, unless the flag was typed or its environment variable is set.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Cli;

/// The file that is read where no other one is named, if it is there.
pub const DEFAULT_FILE: &str = "/etc/herder/herder.toml";

/// The verbs that have a table.
const VERBS: [&str; 2] = ["up", "manage"];

/// Flags that say what to do and not how to be; they are no keys.
const NO_KEYS: [&str; 5] = ["config", "print_config", "print_unit", "help", "version"];

/// A name that is less like another one is no slip of the hand.
const LIKENESS_MIN: f64 = 0.8;

/// Reason why a configuration file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    Read { path: PathBuf, reason: String },
    #[error("{}, line {line}: {reason}", path.display())]
    Wrong { path: PathBuf, line: usize, reason: String },
}

/// A configuration file that is in its form: each key is a flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    path: PathBuf,
    keys: Vec<Key>,
}

/// A command line with what a file says besides.
#[derive(Debug)]
pub struct Applied {
    pub cli: Cli,
    matches: ArgMatches,
    /// Without the file.
    typed: ArgMatches,
}

/// A key and its values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    /// Empty for what all verbs have.
    verb: &'static str,
    /// Id of the argument, as clap has it.
    id: String,
    line: usize,
    values: Values,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Values {
    Switch(bool),
    Texts(Vec<String>),
}

impl Config {
    /// Reads `path`, or the default file if there is none given. A default file that is not there is an empty one.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(file) {
            Ok(text) => Config::parse(file, &text),
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
            Err(error) => Err(ConfigError::Read { path: file.to_owned(), reason: error.to_string() }),
        }
    }

    /// Reads the text of a file. All of it is checked but the meaning of values.
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let wrong = |at: usize, reason: String| ConfigError::Wrong { path: path.to_owned(), line: line_of(at), reason };
        let table = DeTable::parse(text)
            .map_err(|error| wrong(error.span().map_or(0, |it| it.start), error.message().to_owned()))?;
        let cli = Cli::command();
        let mut keys = Vec::new();
        for (name, value) in table.get_ref() {
            let verb = VERBS.into_iter().find(|verb| name.get_ref() == verb);
            let (Some(verb), DeValue::Table(table)) = (verb, value.get_ref()) else {
                let key = key("", &cli, name, value, VERBS);
                keys.push(key.map(|it| it.at(line_of(name.span().start))).map_err(|it| wrong(name.span().start, it))?);
                continue;
            };
            let command = cli.find_subcommand(verb).unwrap_or(&cli);
            for (name, value) in table {
                let key = key(verb, command, name, value, []);
                keys.push(key.map(|it| it.at(line_of(name.span().start))).map_err(|it| wrong(name.span().start, it))?);
            }
        }
        Ok(Config { path: path.to_owned(), keys })
    }

    /// Returns whether the file has settings for this verb.
    pub fn has(&self, verb: &str) -> bool {
        self.keys.iter().any(|key| key.verb == verb)
    }

    /// The words of a command line with those of the file among them. `words` were parsed before, as `matches`.
    fn among(&self, words: &[String], matches: &ArgMatches) -> Vec<String> {
        let Some((verb, of_verb)) = matches.subcommand() else { return words.to_vec() };
        let cli = Cli::command();
        let Some(command) = cli.find_subcommand(verb) else { return words.to_vec() };
        let is_verb = |word: &String| word == verb || command.get_all_aliases().any(|alias| alias == word);
        let at = words.iter().skip(1).position(is_verb).map_or(words.len(), |at| at + 2);
        let flags = |of: &'static str, command: &Command, matches: &ArgMatches| -> Vec<String> {
            let given = |key: &&Key| {
                let source = matches.value_source(&key.id);
                !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
            };
            let here = self.keys.iter().filter(|key| key.verb == of).filter(given);
            here.flat_map(|key| key.words(command)).collect()
        };
        let verb = VERBS.into_iter().find(|it| *it == verb).unwrap_or_default();
        let (before, after) = words.split_at(at);
        let mut all: Vec<String> = before[..1].to_vec();
        all.extend(flags("", &cli, matches));
        all.extend_from_slice(&before[1..]);
        if !verb.is_empty() {
            all.extend(flags(verb, command, of_verb));
        }
        all.extend_from_slice(after);
        all
    }

    /// The command line with what the file says besides, parsed.
    pub fn apply(&self, words: &[String]) -> Result<Applied, clap::Error> {
        let typed = Cli::command().try_get_matches_from(words)?;
        let matches = Cli::command().try_get_matches_from(self.among(words, &typed))?;
        Ok(Applied { cli: Cli::from_arg_matches(&matches)?, matches, typed })
    }

    /// The settings that are in force, as a configuration file, each with where it comes from. Secrets are left out.
    pub fn effective(&self, applied: &Applied) -> String {
        let cli = Cli::command();
        let Applied { matches, typed, .. } = applied;
        let mut out = String::new();
        self.section(&mut out, "", &cli, matches, typed);
        if let (Some((verb, matches)), Some((_, typed))) = (matches.subcommand(), typed.subcommand())
            && let (Some(verb), Some(command)) = (VERBS.into_iter().find(|it| *it == verb), cli.find_subcommand(verb))
        {
            let _ = writeln!(out, "\n[{verb}]");
            self.section(&mut out, verb, command, matches, typed);
        }
        out
    }

    fn section(&self, out: &mut String, verb: &str, command: &Command, matches: &ArgMatches, typed: &ArgMatches) {
        for arg in arguments(command) {
            let id = arg.get_id().as_str();
            let Some(raw) = matches.get_raw(id) else { continue };
            let source = match typed.value_source(id) {
                Some(ValueSource::EnvVariable) => "environment",
                Some(ValueSource::CommandLine) => "command line",
                _ if self.keys.iter().any(|key| key.verb == verb && key.id == id) => "file",
                _ => "default",
            };
            let texts: Vec<String> = raw.map(|it| it.to_string_lossy().into_owned()).collect();
            // Written to a `String`, which takes everything.
            let _ = if arg.is_hide_env_values_set() {
                writeln!(out, "# {} is set, and not shown ({source})", name_of(arg))
            } else {
                writeln!(out, "{} = {} # {source}", name_of(arg), shown(arg, &texts))
            };
        }
    }

    /// Checks that what the file says for a verb can be carried out.
    pub fn check(&self, verb: &str) -> anyhow::Result<()> {
        let Applied { cli, .. } = self.apply(&["herder".to_owned(), verb.to_owned()])?;
        match cli.verb {
            crate::Verb::Up(up) => up.settings().map(drop),
            crate::Verb::Manage(manage) => manage.settings().map(drop),
            _ => Ok(()),
        }
    }

    /// The verbs that have something in the file.
    pub fn verbs(&self) -> impl Iterator<Item = &'static str> {
        VERBS.into_iter().filter(|verb| self.has(verb))
    }

    /// Returns the path of the file; empty if none was read.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Key {
    fn at(self, line: usize) -> Key {
        Key { line, ..self }
    }

    /// Returns the configuration as flags.
    fn words(&self, command: &Command) -> Vec<String> {
        let Some(arg) = arguments(command).find(|arg| arg.get_id() == self.id.as_str()) else { return Vec::new() };
        match &self.values {
            Values::Switch(false) => Vec::new(),
            Values::Switch(true) => vec![format!("--{}", name_of(arg))],
            Values::Texts(texts) if arg.is_positional() => texts.clone(),
            Values::Texts(texts) => texts.iter().map(|text| format!("--{}={text}", name_of(arg))).collect(),
        }
    }
}

/// The arguments that can be keys.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !NO_KEYS.contains(&arg.get_id().as_str()))
}

/// The name of a key: that of the flag, or of what stands without one.
fn name_of(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().to_string(), str::to_owned)
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn takes_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Finds the flag that a key means, and reads its values.
fn key<const N: usize>(
    verb: &'static str,
    command: &Command,
    name: &Spanned<toml::de::DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
    tables: [&str; N],
) -> Result<Key, String> {
    let name: &str = name.get_ref();
    let Some(arg) = arguments(command)
        .find(|arg| name_of(arg) == name || arg.get_all_aliases().is_some_and(|all| all.contains(&name)))
    else {
        let known: Vec<String> = arguments(command).map(name_of).chain(tables.map(str::to_owned)).collect();
        let likely = known.iter().map(|it| (strsim::jaro_winkler(it, name), it));
        let likely = likely.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
        let hint = likely.map_or_else(String::new, |(_, it)| format!("; did you mean `{it}`?"));
        let place = if verb.is_empty() { "".to_owned() } else { format!(" in [{verb}]") };
        return Err(format!("unknown key `{name}`{place}{hint}"));
    };
    let values = values(arg, value.get_ref()).map_err(|expected| format!("`{name}` must be {expected}"))?;
    Ok(Key { verb, id: arg.get_id().to_string(), line: 0, values })
}

/// The values of a key, or what they must be instead.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Values, &'static str> {
    match value {
        DeValue::Boolean(on) if is_switch(arg) => Ok(Values::Switch(*on)),
        _ if is_switch(arg) => Err("true or false"),
        DeValue::Array(items) if takes_many(arg) => {
            let texts = items.iter().map(|item| text(item.get_ref())).collect::<Option<Vec<String>>>();
            texts.map(Values::Texts).ok_or("a list of texts")
        }
        DeValue::Table(table) if takes_many(arg) => {
            let pair = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &toml::de::DeString<'_> = key.get_ref();
                Some(format!("{key}={}", text(value.get_ref())?))
            };
            table.iter().map(pair).collect::<Option<Vec<String>>>().map(Values::Texts).ok_or("a table of texts")
        }
        other => match text(other) {
            Some(text) => Ok(Values::Texts(vec![text])),
            None if takes_many(arg) => Err("a text or a list of texts"),
            None => Err("a text or a number"),
        },
    }
}

fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Values as the file has them: what JSON escapes in a text, TOML reads.
fn shown(arg: &Arg, texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| serde_json::Value::from(text.as_str()).to_string()).collect();
    match texts {
        [text] if is_switch(arg) => text.clone(),
        [_] if !takes_many(arg) => quoted.concat(),
        _ => format!("[{}]", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("h.toml"), text)
    }

    fn applied(text: &str, line: &str) -> (Cli, String) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let config = parse(text).expect("a file");
        let applied = config.apply(&words).unwrap_or_else(|error| panic!("{error}"));
        let effective = config.effective(&applied);
        (applied.cli, effective)
    }

    const FILE: &str = r#"
log-level = "debug"

[up]
listen = ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]
strategy = "binpack"
no-multicast = true
label = { zone = "a", rank = 1 }

[manage]
discovery = "10.0.0.1:2375"
engine-failure-retry = 5
host = "tcp://127.0.0.1:3"
"#;

    #[test]
    fn keys_are_flags_below_the_command_line() {
        let (cli, effective) = applied(FILE, "herder up --strategy random --name n1");
        let crate::Verb::Up(up) = cli.verb else { panic!("another verb") };
        assert_eq!(cli.global.log_level, "debug");
        assert_eq!(up.listen, ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]);
        assert_eq!((up.strategy.as_str(), up.no_multicast, up.name.as_deref()), ("random", true, Some("n1")));
        assert_eq!(up.label, ["rank=1", "zone=a"]);
        for line in [
            "log-level = \"debug\" # file",
            "[up]",
            "strategy = \"random\" # command line",
            "listen = [\"tcp://127.0.0.1:1\", \"tcp://127.0.0.1:2\"] # file",
            "socket = \"/run/herder.sock\" # default",
            "no-multicast = true # file",
            "tls = false # default",
        ] {
            assert!(effective.lines().any(|it| it == line), "{line}\n{effective}");
        }
        let again = parse(&effective).expect("what is printed can be read");
        let words = ["herder", "up"].map(str::to_owned);
        let applied = again.apply(&words).expect("applied");
        assert!(again.effective(&applied).contains("name = \"n1\" # file"));
    }

    #[test]
    fn flags_that_were_typed_take_the_place_of_a_list_and_aliases_are_verbs() {
        let (cli, _) = applied(FILE, "herder -l warn up -H unix:///x --");
        let crate::Verb::Up(up) = cli.verb else { panic!("another verb") };
        assert_eq!(
            (up.listen.as_slice(), cli.global.log_level.as_str()),
            (["unix:///x".to_owned()].as_slice(), "warn")
        );
        let (cli, _) = applied(FILE, "herder m --cors");
        let crate::Verb::Manage(manage) = cli.verb else { panic!("another verb") };
        assert_eq!(manage.discovered.discovery.as_deref(), Some("10.0.0.1:2375"));
        assert_eq!(
            (manage.engine_failure_retry, manage.host.as_slice()),
            (5, ["tcp://127.0.0.1:3".to_owned()].as_slice())
        );
        assert!(manage.api_enable_cors);
        let (cli, _) = applied(FILE, "herder manage 10.9.9.9:1");
        let crate::Verb::Manage(manage) = cli.verb else { panic!("another verb") };
        assert_eq!(manage.discovered.discovery.as_deref(), Some("10.9.9.9:1"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            ("a = ", "h.toml, line 1: "),
            ("[up]\nlisten = 1\nlissten = 2", "h.toml, line 3: unknown key `lissten` in [up]; did you mean `listen`?"),
            ("[up]\nzzz = 2", "h.toml, line 2: unknown key `zzz` in [up]"),
            ("\n[upp]\nlisten = \"x\"", "h.toml, line 2: unknown key `upp`; did you mean `up`?"),
            ("loglevel = \"x\"", "h.toml, line 1: unknown key `loglevel`; did you mean `log-level`?"),
            ("[up]\ntls = \"yes\"", "h.toml, line 2: `tls` must be true or false"),
            ("[up]\nname = [\"a\"]", "h.toml, line 2: `name` must be a text or a number"),
            ("[up]\nlisten = [true]", "h.toml, line 2: `listen` must be a list of texts"),
            ("[up]\nprint-unit = true", "h.toml, line 2: unknown key `print-unit` in [up]"),
            ("[manage]\nconfig = \"x\"", "h.toml, line 2: unknown key `config` in [manage]"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = Config::load(Some(Path::new("/nowhere.toml"))).expect_err("not there").to_string();
        assert!(error.starts_with("cannot read the configuration file /nowhere.toml: "), "{error}");
    }

    #[test]
    fn values_are_checked_as_those_of_flags() {
        let check = |text: &str, verb: &str, expected: &str| {
            let said =
                parse(text).expect("a file").check(verb).map_or_else(|error| error.to_string(), |()| "ok".into());
            assert!(said.contains(expected), "{said}");
        };
        check(FILE, "up", "ok");
        check(FILE, "manage", "ok");
        check("log-level = \"loud\"", "up", "invalid value 'loud' for '--log-level");
        check("[up]\ntls = true", "up", "--tlscert and --tlskey must be provided when using --tls");
        check(
            "[manage]\nheartbeat = \"1ms\"\ndiscovery = \"a:1\"",
            "manage",
            "--heartbeat should be at least one second",
        );
    }
}
