//! The voting application, the sample of the swarm tutorials, as one static program with six roles.
//!
//! `vote` → `queue` → `worker` → `store` ← `result`; `migrate` fills the store before the others start. Each role is a container of its own, from images that need no registry. Linked
//! statically, so that an image is one file.

#![expect(clippy::print_stdout, reason = "each part says on its standard output what it does")]

mod http;
mod migrate;
mod queue;
mod result;
mod store;
mod vote;
mod wire;
mod worker;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const USAGE: &str = "usage: voting vote|queue|worker|store|result|migrate, or voting check PORT (whether somebody listens here)
Environment: PORT to listen on (vote and result 80, queue 7001, store 7002), QUEUE and STORE as host:port,
OPTION_A and OPTION_B (Cats and Dogs), DATA for the store's file (/data/votes), STORE_KEY that the store asks for (none),
VOTES that migrate stores (lines of voter and vote).
Each may come from a file: NAME_FILE says which.";

/// Requests that are under way when the container is stopped may take so long to end.
const END_TIME: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let handled = ctrlc::set_handler(|| {
        thread::sleep(END_TIME);
        std::process::exit(0);
    });
    if let Err(error) = handled {
        eprintln!("voting: the signal to end is not handled: {error}");
    }
    let role = std::env::args().nth(1).unwrap_or_default();
    let outcome = match role.as_str() {
        "vote" => vote::run(),
        "queue" => queue::run(),
        "worker" => worker::run(),
        "store" => store::run(),
        "result" => result::run(),
        "migrate" => migrate::run(),
        "check" => wire::check(&std::env::args().nth(2).unwrap_or_default()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("voting {role}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns an environment variable, or the content of the file that `NAME_FILE` names (a secret or a config), or
/// `default`.
fn setting(name: &str, default: &str) -> String {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let file = || std::fs::read_to_string(given(&format!("{name}_FILE"))?).ok().map(|text| text.trim().to_owned());
    given(name).or_else(file).unwrap_or_else(|| default.to_owned())
}

/// The name of the container, as pages show it.
fn hostname() -> String {
    std::fs::read_to_string("/etc/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}
