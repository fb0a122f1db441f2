//! Looks images up in their registry, so that all tasks of a service run the same one.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use herder_compose::{Desired, DesiredService, IMAGE_LABEL};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{Api, Observed};

/// The time for all look-ups together. A registry that is not there must not hold a deployment up.
const LOOK_UP_MAX: Duration = Duration::from_secs(8);

/// Images by their names with tags, as their registries know them; nothing for those that no registry knows.
pub type Images = BTreeMap<String, Option<Image>>;

/// An image as its registry knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    pub digest: String,
    #[serde(default)]
    pub platforms: Vec<Value>,
}

/// Looks the images of services up. `when` is `always`, `changed` (only images that the file changed) or `never`.
pub async fn look_up(api: &impl Api, desired: &Desired, observed: &Observed, when: &str) -> Images {
    let is_wanted = |service: &DesiredService| match when {
        "never" => false,
        "changed" => {
            let there = observed.services.iter().find(|it| it["Spec"]["Name"] == service.name.as_str());
            there.is_none_or(|there| there["Spec"]["Labels"][IMAGE_LABEL] != service.spec["Labels"][IMAGE_LABEL])
        }
        _ => true,
    };
    let mut images: Vec<String> =
        desired.services.iter().filter(|it| is_wanted(it)).map(|it| image_of(&it.spec)).collect();
    images.sort_unstable();
    images.dedup();
    // An id is the image itself: a cluster has built it.
    images.retain(|image| !image.contains('@') && !image.starts_with("sha256:") && !image.is_empty());
    let found = join_all(images.iter().map(|image| timeout(LOOK_UP_MAX, look_up_one(api, image)))).await;
    images.into_iter().zip(found).map(|(image, found)| (image, found.ok().flatten())).collect()
}

/// Replaces the images of services by the digests that were found. An image that no registry knows stays as it is.
pub fn set_digests(desired: &mut Desired, images: &Images) {
    for service in &mut desired.services {
        let image = image_of(&service.spec);
        let Some(Some(found)) = images.get(&image) else { continue };
        let task = &mut service.spec["TaskTemplate"];
        task["ContainerSpec"]["Image"] = format!("{image}@{}", found.digest).into();
        if task["Placement"].get("Platforms").is_none() && !found.platforms.is_empty() {
            task["Placement"]["Platforms"] = json!(found.platforms);
        }
    }
}

/// A warning for each image that no registry knows, as Docker's client gives it.
pub fn unknown(images: &Images) -> impl Iterator<Item = String> {
    let unknown = images.iter().filter(|(_, found)| found.is_none());
    unknown
        .map(|(image, _)| format!("no registry knows {image}; each node runs the image that it has, which may differ"))
}

fn image_of(spec: &Value) -> String {
    spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned()
}

async fn look_up_one(api: &impl Api, image: &str) -> Option<Image> {
    let answer = api.call(Method::GET, &format!("/distribution/{image}/json"), None).await.ok()?;
    let digest = answer.body["Descriptor"]["digest"].as_str().filter(|_| answer.status == 200)?;
    let platforms = answer.body["Platforms"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|platform| json!({"Architecture": platform["architecture"], "OS": platform["os"]}));
    Some(Image { digest: digest.to_owned(), platforms: platforms.collect() })
}
