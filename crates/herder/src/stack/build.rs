//! Images of services with `build`, made by an engine of the cluster before the stack is deployed.
//!
//! The context is sent through the endpoint; a node builds it, the one that has the image of the time before where there is one, for
//! the sake of its cache. A service runs its image by id, and nodes that lack it fetch it from one that has it: no registry is needed.

mod context;

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow, bail};
use herder_compose::Node;
use herder_docker::{Body, Decoder, empty};
use herder_front::encode_query;
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::time::timeout;

use super::files::{Files, Refused};
use crate::door::Door;

/// Time without a line of a build after which it has failed. A large layer takes minutes.
const SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(1800);

/// Keys of `build` that the engine's own builder cannot carry out.
const BUILDKIT_ONLY: [&str; 9] = [
    "additional_contexts",
    "cache_to",
    "entitlements",
    "no_cache_filter",
    "privileged",
    "provenance",
    "sbom",
    "secrets",
    "ssh",
];

/// A service to build.
struct Build<'a> {
    service: &'a str,
    build: &'a Node,
    /// The name under which the builder's node keeps the image.
    tag: String,
    platform: Option<String>,
}

/// Builds the images of all services with `build`; the files name them by id from here on.
pub(super) async fn all(
    door: &Door,
    files: &mut Files,
    stack: Option<&str>,
    builder: Option<&str>,
) -> anyhow::Result<()> {
    let mut images = BTreeMap::new();
    for build in wanted(files, stack)? {
        eprintln!("building {}", build.service);
        let id = one(door, &build, files, builder).await.with_context(|| format!("building {}", build.service))?;
        eprintln!("built {}: {id}", build.service);
        images.insert(build.service.to_owned(), id);
    }
    files.name_images(&images)
}

/// Names the images as they would be built, for plans; they come back by service.
pub(super) fn named(files: &mut Files, stack: Option<&str>) -> anyhow::Result<BTreeMap<String, String>> {
    let images: BTreeMap<String, String> =
        wanted(files, stack)?.into_iter().map(|build| (build.service.to_owned(), build.tag)).collect();
    files.name_images(&images)?;
    Ok(images)
}

/// The services to build; refused with everything that cannot be built.
fn wanted<'f>(files: &'f Files, stack: Option<&str>) -> anyhow::Result<Vec<Build<'f>>> {
    let stack = stack.unwrap_or(&files.project.name);
    let mut wanted = Vec::new();
    let mut refused = String::new();
    for (service, node) in files.project.services() {
        let Some(build) = node.get("build").filter(|it| !it.is_null()) else { continue };
        let keys = build.entries().filter(|(_, value)| !value.is_null() && value.as_bool() != Some(false));
        let beyond: Vec<&str> = keys.map(|(key, _)| key).filter(|key| BUILDKIT_ONLY.contains(key)).collect();
        let platforms: Vec<String> =
            build.get("platforms").into_iter().flat_map(Node::elements).filter_map(Node::scalar_text).collect();
        if !beyond.is_empty() || platforms.len() > 1 {
            let beyond = if beyond.is_empty() { "several platforms".to_owned() } else { beyond.join(", ") };
            refused += &format!(
                "services.{service}.build: {beyond} cannot be carried out by the engines' own builder; build and push the image \
                 first, and give its name as `image:`\n"
            );
            continue;
        }
        let own = node.get("image").and_then(Node::as_str).map(str::to_owned);
        let tag = own.unwrap_or_else(|| format!("{}-{}", stack.to_lowercase(), service.to_lowercase()));
        let platform = node.get("platform").and_then(Node::as_str).map(str::to_owned);
        wanted.push(Build { service, build, tag, platform: platform.or(platforms.into_iter().next()) });
    }
    if refused.is_empty() { Ok(wanted) } else { Err(Refused::of(refused).into()) }
}

/// Builds one image and returns its id.
async fn one(door: &Door, build: &Build<'_>, files: &Files, builder: Option<&str>) -> anyhow::Result<String> {
    let source = build.build.get("context").and_then(Node::as_str).unwrap_or(files.directory());
    let is_remote = source.contains("://") || source.starts_with("git@");
    let text = |key: &str| build.build.get(key).and_then(Node::scalar_text);
    let (body, dockerfile) = if is_remote {
        (empty(), text("dockerfile"))
    } else {
        let (source, dockerfile, inline) = (source.to_owned(), text("dockerfile"), text("dockerfile_inline"));
        let packed =
            tokio::task::spawn_blocking(move || context::pack(&source, dockerfile.as_deref(), inline.as_deref()));
        let (archive, dockerfile) = packed.await??;
        (context::body(archive), Some(dockerfile))
    };
    let mut query = query(build, files.environment(), builder);
    query.extend(dockerfile.map(|it| ("dockerfile", it)));
    if is_remote {
        query.push(("remote", source.to_owned()));
    }
    let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", encode_query(value))).collect();
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/build?{}", query.join("&")))
        .header(header::CONTENT_TYPE, "application/x-tar")
        .body(body)?;
    let response = door.send_within(request, SILENCE_MAX).await?;
    if !response.status().is_success() {
        return Err(door.refusal(response).await);
    }
    follow(response.into_body()).await
}

/// The parameters of a build.
fn query(
    build: &Build<'_>,
    environment: &BTreeMap<String, String>,
    builder: Option<&str>,
) -> Vec<(&'static str, String)> {
    let node = build.build;
    let text = |key: &str| node.get(key).and_then(Node::scalar_text).filter(|it| !it.is_empty());
    let list = |key: &str| -> Vec<String> {
        node.get(key).into_iter().flat_map(Node::elements).filter_map(Node::scalar_text).collect()
    };
    let texts = |key: &str| -> BTreeMap<String, String> {
        let entries = node.get(key).into_iter().flat_map(Node::entries);
        entries.map(|(key, value)| (key.to_owned(), value.scalar_text().unwrap_or_default())).collect()
    };
    let mut query = vec![("t", build.tag.clone()), ("rm", "1".into()), ("forcerm", "1".into())];
    query.extend(list("tags").into_iter().map(|tag| ("t", tag)));
    // An argument without a value is one of the environment.
    let arguments = node.get("args").into_iter().flat_map(Node::entries);
    let mut arguments: BTreeMap<String, String> = arguments
        .filter_map(|(key, value)| {
            let value = if value.is_null() { environment.get(key).cloned() } else { value.scalar_text() };
            Some((key.to_owned(), value?))
        })
        .collect();
    match builder {
        Some(name) => arguments.insert("constraint:node".into(), format!("={name}")),
        None => arguments.insert("affinity:image".into(), format!("=~{}", build.tag)),
    };
    query.push(("buildargs", json!(arguments).to_string()));
    query.push(("labels", json!(texts("labels")).to_string()));
    for (key, name) in [("target", "target"), ("network", "networkmode"), ("shm_size", "shmsize")] {
        query.extend(text(key).map(|value| (name, value)));
    }
    query.extend(build.platform.clone().map(|platform| ("platform", platform)));
    for (key, name) in [("no_cache", "nocache"), ("pull", "pull")] {
        if node.get(key).and_then(Node::as_bool) == Some(true) {
            query.push((name, "1".into()));
        }
    }
    let hosts: Vec<String> = list("extra_hosts").iter().map(|host| host.replacen('=', ":", 1)).collect();
    if !hosts.is_empty() {
        query.push(("extrahosts", hosts.join(",")));
    }
    if !list("cache_from").is_empty() {
        query.push(("cachefrom", json!(list("cache_from")).to_string()));
    }
    query
}

/// Prints the output of a build and returns the image's id.
async fn follow(mut body: Body) -> anyhow::Result<String> {
    let mut decoder = Decoder::default();
    let mut id = None;
    loop {
        let frame = timeout(SILENCE_MAX, body.frame()).await.context("the builder says nothing any more")?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| anyhow!("the answer broke off: {error}"))?;
        decoder.push(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(line) = decoder.next().map_err(|error| anyhow!("{error}"))? {
            if let Some(error) = line["error"].as_str() {
                bail!("{error}");
            }
            if let Some(text) = line["stream"].as_str() {
                eprint!("{text}");
            }
            id = line["aux"]["ID"].as_str().map(str::to_owned).or(id);
        }
    }
    id.context("the builder does not say what it has built")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_build_gives_an_id_or_its_error() {
        let check = async |text: &'static str, expected: Result<&str, &str>| {
            let outcome = follow(herder_docker::full(text)).await.map_err(|error| error.to_string());
            assert_eq!(outcome.as_deref().map_err(String::as_str), expected);
        };
        check("{\"stream\":\"\"}\n{\"aux\":{\"ID\":\"sha256:ab\"}}\n", Ok("sha256:ab")).await;
        check("{\"error\":\"exit 1\"}\n", Err("exit 1")).await;
        check("{\"stream\":\"\"}", Err("the builder does not say what it has built")).await;
    }
}
