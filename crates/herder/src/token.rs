//! `herder token`: what others need to join the pool of this host's node.

use anyhow::{Context as _, bail};
use herder_cli::Token;
use herder_wire::identity::Identity;
use http::Method;

use crate::door::Door;

/// Prints the join code that this host's node keeps; the node need not run.
pub(crate) fn print(asked: &Token) -> anyhow::Result<()> {
    let folder = asked.state.display();
    let identity = Identity::load(&asked.state)?;
    let identity =
        identity.with_context(|| format!("no node has its state in {folder}; start one with `herder up`"))?;
    if !identity.shared.has_join_code() {
        bail!("this pool is a swarm: `docker swarm join-token worker` on a manager prints the command to join");
    }
    show(asked, &identity.join_code()?.to_string());
    Ok(())
}

/// Has the node behind the door make a new code, and prints it.
pub(crate) async fn rotate(asked: &Token) -> anyhow::Result<()> {
    let door = Door::of(&asked.door)?;
    let answer = door.ask(Method::POST, "/herder/token/rotate").await?;
    // Not shown if it is anything else: it may be secret.
    let code = answer["token"].as_str().with_context(|| format!("{} answers without a join code", door.host))?;
    show(asked, code);
    Ok(())
}

fn show(asked: &Token, code: &str) {
    if asked.format == "json" {
        anstream::println!("{}", serde_json::json!({ "token": code }));
    } else {
        anstream::println!("{code}");
    }
}
