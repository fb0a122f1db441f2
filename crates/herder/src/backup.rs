//! `herder backup` and `herder restore`: all that a swarm's managers know, in one sealed file.

use std::fs::{self, File};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use herder_cli::{Backup as Asked, Restore};
use herder_docker::full;
use herder_store::{Backup, Key};
use http::{Method, Request};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::door::Door;

/// Environment variable with the key, in place of a file.
const KEY_VARIABLE: &str = "HERDER_BACKUP_KEY";

/// The door gives up a little earlier.
const RESTORE_WAIT_MAX: Duration = Duration::from_secs(130);

pub(crate) async fn write(asked: Asked) -> anyhow::Result<()> {
    let path = &asked.file;
    if path.is_dir() {
        bail!("{} is a folder: name the file to write", path.display());
    }
    let door = Door::of(&asked.door)?;
    let (key, is_new) = match &asked.key_file {
        Some(file) if file.exists() => (read_key(file)?, false),
        Some(_) | None => (Key::random(), true),
    };
    let target = if asked.stale { "/herder/backup?stale=1" } else { "/herder/backup" };
    let response = door.send(Request::builder().method(Method::POST).uri(target).body(full(key.text()))?).await?;
    if !response.status().is_success() {
        return Err(door.refusal(response).await);
    }
    let bytes = door.bytes(response).await?;
    let backup = Backup::open(&bytes, Some(&key)).with_context(|| format!("{} answers with no backup", door.host))?;
    // The key first: a file that nobody can open would look like a backup.
    if let Some(file) = asked.key_file.as_ref().filter(|_| is_new) {
        put(file, key.text().as_bytes()).with_context(|| format!("cannot write the key to {}", file.display()))?;
    }
    put(path, &bytes).with_context(|| format!("cannot write the backup to {}", path.display()))?;
    let read = fs::read(path).with_context(|| format!("cannot read {} again", path.display()))?;
    Backup::open(&read, Some(&key)).with_context(|| format!("{} was changed since it was written", path.display()))?;
    let shown = is_new && asked.key_file.is_none();
    if asked.format == "json" {
        let mut summary = summary(&backup);
        summary["File"] = json!(path);
        summary["Bytes"] = json!(bytes.len());
        if shown {
            summary["Key"] = json!(key.text());
        }
        anstream::println!("{summary}");
        return Ok(());
    }
    anstream::eprintln!("{}: {}, {} bytes", path.display(), sentence(&summary(&backup)), bytes.len());
    match &asked.key_file {
        Some(file) => {
            anstream::eprintln!("sealed with the key in {}; keep it elsewhere than the backup", file.display())
        }
        None => {
            anstream::eprintln!("sealed with this key, which is kept nowhere: without it nothing can be restored");
            anstream::println!("{}", key.text());
        }
    }
    Ok(())
}

pub(crate) async fn restore(asked: Restore) -> anyhow::Result<()> {
    let path = &asked.file;
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let door = Door::of(&asked.door)?;
    let key = match &asked.key_file {
        Some(file) => read_key(file)?,
        None => said_key()?,
    };
    // A file that is no good is told here; the node reads it once more.
    let backup = Backup::open(&bytes, Some(&key)).with_context(|| format!("{} cannot be used", path.display()))?;
    let target = if asked.force { "/herder/restore?force=1" } else { "/herder/restore" };
    let body = [key.text().as_bytes(), b"\n", &bytes].concat();
    let request = Request::builder().method(Method::POST).uri(target).body(full(body))?;
    let response = door.send_within(request, RESTORE_WAIT_MAX).await?;
    if !response.status().is_success() {
        return Err(door.refusal(response).await);
    }
    let mut answer = door.read(response).await?;
    if asked.format == "json" {
        answer["Backup"] = summary(&backup);
        anstream::println!("{answer}");
    } else {
        anstream::println!("restored {}", sentence(&summary(&backup)));
        anstream::print!("{}", next(&answer));
    }
    Ok(())
}

/// Returns the remaining steps after a restore.
fn next(answer: &Value) -> String {
    let node = answer["Node"].as_str().unwrap_or_default();
    let others: Vec<&str> = answer["Others"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text = format!("This node ({node}) is its only manager now.");
    if others.is_empty() {
        text += " Next:\n";
    } else {
        text += &format!(" It knows of {} more: {}. Next:\n", others.len(), others.join(", "));
    }
    let mut line = |command: &str, why: &str| text += &format!("  {command:<34}{why}\n");
    if answer["SamePool"] == true {
        line("docker node ls", "nodes of this pool that live come back by themselves, as workers");
    } else {
        line("docker swarm join-token worker", "for every other host: this pool has another CA than the swarm had,");
        line("", "so they must join again (`docker swarm leave --force` there first)");
    }
    line("docker node promote NODE NODE", "until there are three managers again");
    line("docker node rm --force NODE", "for each that is gone for good");
    line("docker service ls", "services run again as declared when the backup was made");
    text
}

fn summary(backup: &Backup) -> Value {
    let view = backup.view();
    json!({
        "Cluster": view.cluster.as_ref().map(|it| it.cluster.id.as_str()), "Index": view.index, "Nodes": view.nodes.len(),
        "Services": view.services.len(), "Tasks": view.tasks.len(), "Secrets": view.secrets.len(),
        "Configs": view.configs.len(),
    })
}

fn sentence(summary: &Value) -> String {
    let count = |key: &str, one: &str| {
        let count = summary[key].as_u64().unwrap_or_default();
        format!("{count} {one}{}", if count == 1 { "" } else { "s" })
    };
    format!(
        "swarm {} with {}, {}, {}, {}",
        summary["Cluster"].as_str().unwrap_or("without a name"),
        count("Nodes", "node"),
        count("Services", "service"),
        count("Secrets", "secret"),
        count("Configs", "config")
    )
}

fn read_key(file: &Path) -> anyhow::Result<Key> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read the key in {}", file.display()))?;
    let key = text.trim().parse::<Key>();
    key.with_context(|| format!("{} is no key file: expected SWMKEY-1-… alone", file.display()))
}

/// The key from the environment, a person or a pipe. Never from the command line, which every user of a host can read.
fn said_key() -> anyhow::Result<Key> {
    let said = match std::env::var(KEY_VARIABLE) {
        Ok(text) if !text.is_empty() => text,
        _ => {
            let hidden = Hidden::begin();
            if hidden.is_some() {
                anstream::eprint!("Key of the backup: ");
            }
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).context("cannot read the key from the input")?;
            line
        }
    };
    if said.trim().is_empty() {
        bail!("the key of the backup is needed: --key-file FILE, {KEY_VARIABLE}, or a line on the input");
    }
    said.trim().parse::<Key>().context("not the key of a backup: expected SWMKEY-1-…")
}

/// A terminal that does not show what is typed, until it is dropped.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn begin() -> Option<Hidden> {
        if !io::stdin().is_terminal() {
            return None;
        }
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(io::stdin()).ok()?;
        let mut hiding = before.clone();
        hiding.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hiding).ok()?;
        Some(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
        anstream::eprintln!();
    }
}

/// Writes a file that only its owner may read, whole or not at all.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_its_owners_alone_and_whole_or_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("b");
        for text in ["one", "two"] {
            put(&path, text.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        }
        put(&folder.path().join("no/b"), b"x").expect_err("no folder");
        put(folder.path(), b"x").expect_err("a folder");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "something is left behind");
    }

    #[test]
    fn what_to_do_next_depends_on_who_can_come_back() {
        let check = |answer: Value, expected: &[&str]| {
            let text = next(&answer);
            expected.iter().for_each(|it| assert!(text.contains(it), "{it}: {text}"));
        };
        check(
            json!({"Node": "n1", "Others": ["h2", "h3"], "SamePool": true}),
            &["(n1) is its only manager", "2 more: h2, h3", "docker node ls ", "node promote"],
        );
        check(
            json!({"Node": "n1", "Others": [], "SamePool": false}),
            &["now. Next:", "docker swarm join-token worker"],
        );
    }

    #[test]
    fn a_summary_counts_in_words() {
        let summary = json!({"Cluster": "c", "Nodes": 1, "Services": 2, "Secrets": 0, "Configs": 1});
        assert_eq!(sentence(&summary), "swarm c with 1 node, 2 services, 0 secrets, 1 config");
    }
}
