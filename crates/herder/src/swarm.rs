//! `herder swarm init`: a swarm with settings that Docker's own command does not have.

use herder_cli::{SwarmInit, SwarmVerb};
use herder_docker::full;
use herder_model::swarm::InitRequest;
use http::header::CONTENT_TYPE;
use http::{Method, Request};

use crate::door::Door;

pub(crate) async fn run(verb: SwarmVerb) -> anyhow::Result<()> {
    let SwarmVerb::Init(asked) = verb;
    let door = Door::of(&asked.door)?;
    let body = serde_json::to_vec(&request(&asked))?;
    let request = Request::builder().method(Method::POST).uri("/swarm/init").header(CONTENT_TYPE, "application/json");
    let response = door.send(request.body(full(body))?).await?;
    if !response.status().is_success() {
        return Err(door.refusal(response).await);
    }
    let node = door.read(response).await?;
    anstream::println!("Swarm initialized: current node ({}) is now a manager.", node.as_str().unwrap_or_default());
    Ok(())
}

fn request(asked: &SwarmInit) -> InitRequest {
    InitRequest {
        advertise_addr: asked.advertise_addr.clone(),
        data_path_addr: asked.data_path_addr.clone(),
        data_path_port: asked.data_path_port,
        default_addr_pool: Some(asked.default_addr_pool.clone()).filter(|it| !it.is_empty()),
        encrypt_networks: asked.encrypt,
        ..InitRequest::default()
    }
}
