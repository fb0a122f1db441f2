//! Looks images up in their registry, so that all tasks of a service run the same one.

use std::time::Duration;

use futures_util::future::join_all;
use herder_compose::{Desired, DesiredService, IMAGE_LABEL};
use herder_deploy::{Api as _, Observed};
use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::door::Door;

/// The time for all look-ups together. A registry that is not there must not hold a deployment up.
const LOOK_UP_MAX: Duration = Duration::from_secs(8);

/// Replaces the images of services by their digests, where the registry knows them.
///
/// `when` is `always`, `changed` (only images that the file changed) or `never`. An image that no registry knows stays as
/// it is, and a warning says so, as Docker's client does.
pub(super) async fn resolve(door: &Door, desired: &mut Desired, observed: &Observed, when: &str) {
    let is_wanted = |service: &DesiredService| match when {
        "never" => false,
        "changed" => {
            let there = observed.services.iter().find(|it| it["Spec"]["Name"] == service.name.as_str());
            there.is_none_or(|there| there["Spec"]["Labels"][IMAGE_LABEL] != image_of(&service.spec))
        }
        _ => true,
    };
    let mut images: Vec<String> =
        desired.services.iter().filter(|it| is_wanted(it)).map(|it| image_of(&it.spec)).collect();
    images.sort_unstable();
    images.dedup();
    images.retain(|image| !image.contains('@') && !image.is_empty());
    let found = join_all(images.iter().map(|image| timeout(LOOK_UP_MAX, look_up(door, image)))).await;
    for (image, found) in images.iter().zip(found) {
        let Ok(Some(found)) = found else {
            eprintln!("warning: no registry knows {image}; each node runs the image that it has, which may differ");
            continue;
        };
        for service in desired.services.iter_mut().filter(|it| image_of(&it.spec) == *image) {
            let task = &mut service.spec["TaskTemplate"];
            task["ContainerSpec"]["Image"] = format!("{image}@{}", found.digest).into();
            if task["Placement"].get("Platforms").is_none() && !found.platforms.is_empty() {
                task["Placement"]["Platforms"] = json!(found.platforms);
            }
        }
    }
}

fn image_of(spec: &Value) -> String {
    spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned()
}

/// An image as its registry knows it.
struct Found {
    digest: String,
    platforms: Vec<Value>,
}

async fn look_up(door: &Door, image: &str) -> Option<Found> {
    let answer = door.call(Method::GET, &format!("/distribution/{image}/json"), None).await.ok()?;
    let digest = answer.body["Descriptor"]["digest"].as_str().filter(|_| answer.status == 200)?;
    let platforms = answer.body["Platforms"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|platform| json!({"Architecture": platform["architecture"], "OS": platform["os"]}));
    Some(Found { digest: digest.to_owned(), platforms: platforms.collect() })
}
