//! `herder cert`: certificates of the ingress, and the resolvers that they are from.

use std::fs::read_to_string;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use herder_cli::{CertExport, CertImport, CertShow, CertVerb};
use http::Method;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::door::Door;
use crate::ingress::{list, put, text};

const PATH: &str = "/herder/certificates";
/// An authority takes some seconds; with DNS some minutes.
const RENEW_TIME_MAX: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(300);
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

pub(crate) async fn run(asked: CertVerb) -> anyhow::Result<()> {
    match asked {
        CertVerb::Ls(asked) => {
            let answer = Door::of(&asked.door)?.ask(Method::GET, PATH).await?;
            if asked.format == "json" {
                anstream::println!("{answer}");
            } else {
                anstream::println!("{}", table(&answer));
            }
            Ok(())
        }
        CertVerb::Show(asked) => show(asked).await,
        CertVerb::Import(asked) => import(asked).await,
        CertVerb::Export(asked) => export(asked).await,
        CertVerb::Renew(asked) => renew(&Door::of(&asked.door)?, &asked.name).await,
        CertVerb::Authority(asked) => {
            let answer = Door::of(&asked.door)?.ask(Method::GET, "/herder/ingress/authority").await?;
            anstream::print!("{}", text(&answer["Certificate"]));
            Ok(())
        }
        CertVerb::Rm(asked) => {
            Door::of(&asked.door)?.ask(Method::DELETE, &format!("{PATH}/{}", asked.name)).await.map(drop)
        }
    }
}

/// Reads `directory=letsencrypt,email=ops@example.com`: the resolver's name, and its settings.
pub(crate) fn resolver(given: &str) -> anyhow::Result<(String, Value)> {
    let mut members = Map::new();
    let mut name = "default".to_owned();
    for part in given.split(',') {
        let (key, value) =
            part.split_once('=').with_context(|| format!("--resolver {given}: {part:?} is no KEY=VALUE"))?;
        let value = match (key, value) {
            ("name", _) => {
                name = value.to_owned();
                continue;
            }
            ("directory", "letsencrypt") => LETS_ENCRYPT.to_owned(),
            ("directory", "letsencrypt-staging") => LETS_ENCRYPT_STAGING.to_owned(),
            ("root", file) => read_to_string(file).with_context(|| format!("--resolver: cannot read {file}"))?,
            ("directory" | "email" | "challenge" | "hook" | "eab-id" | "eab-secret" | "fallback", _) => {
                value.to_owned()
            }
            _ => bail!(
                "--resolver {given}: {key} is not known; there are name, directory, email, challenge, root, hook, eab-id, eab-secret, fallback"
            ),
        };
        members.insert(key.replace('-', "_"), json!(value));
    }
    members.entry("challenge").or_insert_with(|| json!("http-01"));
    Ok((name, Value::Object(members)))
}

fn date(seconds: &Value) -> String {
    let seconds = seconds.as_i64().filter(|it| *it > 0).and_then(|it| jiff::Timestamp::from_second(it).ok());
    seconds.map_or_else(|| "-".to_owned(), |it| it.strftime("%Y-%m-%d %H:%M").to_string())
}

fn table(answer: &Value) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["NAME", "HOSTS", "SOURCE", "STATE", "ENDS"]);
    for it in answer.as_array().map(Vec::as_slice).unwrap_or_default() {
        let source = match text(&it["resolver"]).as_str() {
            "" => text(&it["source"]),
            resolver => resolver.to_owned(),
        };
        table.add_row([text(&it["Name"]), list(&it["names"]), source, text(&it["state"]), date(&it["not_after"])]);
    }
    table
}

/// Finds a certificate by its name.
async fn one(door: &Door, name: &str) -> anyhow::Result<Value> {
    let answer = door.ask(Method::GET, PATH).await?;
    let mut all = answer.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let found = all.find(|it| it["Name"].as_str().is_some_and(|it| it.eq_ignore_ascii_case(name)) || it["ID"] == name);
    found.cloned().with_context(|| format!("there is no certificate {name}; `herder cert ls` shows all"))
}

async fn show(asked: CertShow) -> anyhow::Result<()> {
    let it = one(&Door::of(&asked.door)?, &asked.name).await?;
    if asked.format == "json" {
        anstream::println!("{it}");
        return Ok(());
    }
    let lines = [
        ("Name", text(&it["Name"])),
        ("Hosts", list(&it["names"])),
        ("Source", text(&it["source"])),
        ("Resolver", text(&it["resolver"])),
        ("State", text(&it["state"])),
        ("Begins", date(&it["not_before"])),
        ("Ends", date(&it["not_after"])),
        ("Renewal", date(&it["renew_at"])),
        ("Failures", it["failures"].as_u64().filter(|it| *it > 0).map(|it| it.to_string()).unwrap_or_default()),
        ("Last error", text(&it["last_error"])),
        (
            "Next try",
            if it["next_try"].as_i64().unwrap_or_default() > 0 { date(&it["next_try"]) } else { String::new() },
        ),
    ];
    for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        anstream::println!("{name:<12}{value}");
    }
    Ok(())
}

async fn import(asked: CertImport) -> anyhow::Result<()> {
    let read = |path: &Path| read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let value = json!({"chain": read(&asked.chain)?, "key": read(&asked.key)?});
    let answer = put(&Door::of(&asked.door)?, &format!("{PATH}/{}", asked.name), &value).await?;
    anstream::println!("{}", list(&answer["Names"]));
    Ok(())
}

async fn export(asked: CertExport) -> anyhow::Result<()> {
    let answer = Door::of(&asked.door)?.ask(Method::GET, &format!("{PATH}/{}/key", asked.name)).await?;
    if let Some(path) = &asked.key {
        // Another one's file stays as it is.
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut it| it.write_all(text(&answer["Key"]).as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    match &asked.chain {
        Some(path) => {
            std::fs::write(path, text(&answer["Chain"])).with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => anstream::print!("{}", text(&answer["Chain"])),
    }
    Ok(())
}

/// Asks for a new certificate, and waits until it is there or was refused.
async fn renew(door: &Door, name: &str) -> anyhow::Result<()> {
    let before = one(door, name).await?;
    door.ask(Method::POST, &format!("{PATH}/{name}/renew")).await?;
    let until = Instant::now() + RENEW_TIME_MAX;
    while Instant::now() < until {
        sleep(LOOK).await;
        let it = one(door, name).await?;
        if it["chain"] != before["chain"] && it["state"] == "valid" {
            anstream::println!("{name} ends {}", date(&it["not_after"]));
            return Ok(());
        }
        if it["failures"] != before["failures"] && it["state"] == "failed" {
            bail!("{name} was not issued: {}", text(&it["last_error"]));
        }
    }
    bail!(
        "{name} was not issued within {} minutes; `herder cert show {name}` tells how far it is",
        RENEW_TIME_MAX.as_secs() / 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_from_one_text() {
        let check = |given: &str, expected: &str| {
            let said = match resolver(given) {
                Ok((name, value)) => format!("{name} {value}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(said, expected, "{given}");
        };
        check("directory=own", r#"default {"directory":"own","challenge":"http-01"}"#);
        check(
            "name=le,directory=letsencrypt,email=a@b,challenge=tls-alpn-01",
            r#"le {"directory":"https://acme-v02.api.letsencrypt.org/directory","email":"a@b","challenge":"tls-alpn-01"}"#,
        );
        check(
            "directory=https://ca/,eab-id=1,eab-secret=s",
            r#"default {"directory":"https://ca/","eab_id":"1","eab_secret":"s","challenge":"http-01"}"#,
        );
        check("own", r#"--resolver own: "own" is no KEY=VALUE"#);
        check(
            "mail=a@b",
            "--resolver mail=a@b: mail is not known; there are name, directory, email, challenge, root, hook, eab-id, eab-secret, fallback",
        );
    }
}
