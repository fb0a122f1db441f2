//! Golden cases: files and options in, canonical values or diagnostics out.
//!
//! `tests/cases/*.txt` have two notations. `service*.txt`: the body of one service (its image is added), then `=>` and the
//! keys that the body names as canonical JSON, or the diagnostics. All others: `=== name`, files as `--- path`, options as
//! `--- options` (`files`, `profiles`, `name`, `env K=V`, `show PATH`), then `=>` and the shown values, one a line.
//! `UPDATE=1 cargo test -p herder-compose --test golden` writes the answers; read the difference before you commit it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use herder_compose::{Options, Project, Sources, Step, load};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn files_become_what_is_written_down() {
    let mut wrong = String::new();
    let mut count = 0;
    for path in cases() {
        let text = std::fs::read_to_string(&path).unwrap();
        let is_table = path.file_name().unwrap().to_string_lossy().starts_with("service");
        let answered: String = if is_table { table(&text) } else { stories(&text) };
        count += answered.matches("=>\n").count();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &answered).unwrap();
        }
        for (line, (was, is)) in (1..).zip(text.lines().zip(answered.lines())) {
            if was != is {
                let _ = writeln!(wrong, "{}:{line}\n  written: {was}\n  is:      {is}", path.display());
                break;
            }
        }
        if text.lines().count() != answered.lines().count() {
            let _ = writeln!(wrong, "{}: has another number of lines", path.display());
        }
    }
    assert!(wrong.is_empty() || std::env::var_os("UPDATE").is_some(), "{wrong}");
    assert!(count >= 400, "{count} cases; the issue asks for 400");
}

/// Answers each body of a table of services.
fn table(text: &str) -> String {
    let mut answered = String::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        let body = block.split("\n=>").next().unwrap_or(block);
        let _ = write!(answered, "{body}\n=>\n{}\n\n", service(body));
    }
    answered
}

fn service(body: &str) -> String {
    if body.starts_with('#') && !body.contains('\n') {
        return String::new();
    }
    let yaml: String = body.lines().fold(String::new(), |text, line| text + "    " + line + "\n");
    let image = if body.lines().any(|line| line.starts_with("image:")) { "" } else { "    image: i\n" };
    let file = format!(
        "services:\n  a:\n{yaml}{image}  b: {{image: i}}\nnetworks: {{n: {{}}, m: {{}}}}\nvolumes: {{v: {{}}}}\n\
         secrets: {{s: {{file: s}}, t: {{file: t}}}}\nconfigs: {{c: {{file: c}}, d: {{file: d}}}}\n"
    );
    let sources = Sources::from([("/p/compose.yaml".to_owned(), Some(file.into_bytes()))]);
    let options = Options { environment: environment(), ..options() };
    match run(sources, &options) {
        Ok(project) => {
            let json = project.to_json();
            let a = &json["services"]["a"];
            let keys = body.lines().filter(|line| !line.starts_with([' ', '-', '#', '}', ']']));
            let mut shown: Vec<String> = keys
                .filter_map(|line| line.split(':').next())
                .map(|key| format!("{key}: {}", a.get(key).unwrap_or(&serde_json::Value::Null)))
                .collect();
            shown.dedup();
            shown.extend(project.diagnostics.iter().map(|it| format!("{it}{}", help(it))));
            shown.join("\n")
        }
        Err(text) => text,
    }
}

fn help(diagnostic: &herder_compose::Diagnostic) -> String {
    diagnostic.help.as_ref().map(|help| format!(" (help: {help})")).unwrap_or_default()
}

fn environment() -> BTreeMap<String, String> {
    BTreeMap::from([("HOME".into(), "/home/u".into()), ("SET".into(), "set".into()), ("EMPTY".into(), String::new())])
}

fn options() -> Options {
    Options { files: vec!["compose.yaml".into()], directory: "/p".into(), ..Options::default() }
}

/// Loads, with files that were not given as missing ones.
fn run(mut sources: Sources, options: &Options) -> Result<Box<Project>, String> {
    loop {
        match load(&sources, options) {
            Step::Need(files) => sources.extend(files.into_iter().map(|file| (file, None))),
            Step::Done(project) => return Ok(project),
            Step::Refused(diagnostics) => {
                let lines = diagnostics.iter().map(|it| {
                    let related = it.related.iter();
                    let related: String =
                        related.map(|it| format!(" [{}:{}:{}: {}]", it.file, it.line, it.column, it.message)).collect();
                    format!("{it}{}{related}", help(it))
                });
                return Err(lines.collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

/// Answers each story.
fn stories(text: &str) -> String {
    let mut answered = String::new();
    for story in text.split("=== ").skip(1) {
        let given = story.split("\n=>").next().unwrap_or(story).trim_end();
        let _ = write!(answered, "=== {given}\n=>\n{}\n\n", answer(given));
    }
    answered
}

fn answer(story: &str) -> String {
    let mut sources = Sources::new();
    let mut options = Options { environment: environment(), ..options() };
    let mut shown = Vec::new();
    for part in story.split("\n--- ").skip(1) {
        let (name, content) = part.split_once('\n').unwrap_or((part, ""));
        if name != "options" {
            let path = if name.starts_with('/') { name.to_owned() } else { format!("/p/{name}") };
            sources.insert(path, Some(format!("{content}\n").into_bytes()));
            continue;
        }
        for line in content.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let list = || rest.split(' ').map(str::to_owned).collect::<Vec<_>>();
            match word {
                "files" => options.files = list(),
                "profiles" => options.profiles = list(),
                "name" => options.name = Some(rest.into()),
                "directory" => options.directory = rest.into(),
                "env_files" => options.env_files = Some(list()),
                "env" => {
                    let (key, value) = rest.split_once('=').unwrap();
                    options.environment.insert(key.into(), value.into());
                }
                "show" => shown.extend(list()),
                _ => panic!("unknown option `{line}`"),
            }
        }
    }
    match run(sources, &options) {
        Ok(project) => {
            let json = project.to_json();
            let values = shown.iter().map(|path| {
                if path == "variables" {
                    return serde_json::to_string(&project.variables).unwrap();
                }
                let pointer = format!("/{}", path.replace('.', "/"));
                let value = if path == "." { Some(&json) } else { json.pointer(&pointer) };
                value.map_or_else(|| format!("{path}: nothing"), |value| format!("{path}: {value}"))
            });
            let mut lines: Vec<String> = values.collect();
            lines.extend(project.diagnostics.iter().map(|it| format!("{it}{}", help(it))));
            lines.join("\n")
        }
        Err(text) => text,
    }
}
