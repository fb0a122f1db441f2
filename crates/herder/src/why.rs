//! `herder why`: why a task of a swarm is where it is, or why it waits.

use anyhow::Context as _;
use herder_cli::Why;
use http::Method;

use crate::door::Door;

pub(crate) async fn run(asked: Why) -> anyhow::Result<()> {
    let door = Door::of(&asked.door)?;
    // Ids and names of swarm mode need no escaping; a door refuses others.
    let answer = door.ask(Method::GET, &format!("/herder/why/{}", asked.subject)).await?;
    if asked.format == "json" {
        anstream::println!("{answer}");
    } else {
        let text = answer["text"].as_str().with_context(|| format!("{} answers without a text", door.host))?;
        anstream::println!("{}", text.trim_end());
    }
    Ok(())
}
