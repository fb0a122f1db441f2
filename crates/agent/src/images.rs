//! Transfer of images to the node.
//!
//! What is there is used: a start waits for no registry. Clients pin a tag to a digest when a service is declared, and another
//! digest is another image, so this loses nothing; a tag that could not be pinned is what the node has under it. Two cases ask a
//! registry: the image is missing and no other node has it; or the service came with credentials (`--with-registry-auth`) and a
//! tag, so that there is a registry that knows better. In the latter case the node's own image is used if the registry does not
//! answer in time.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use herder_docker::Body;
use herder_docker::{Decoder, EngineError};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::call::{Engine, escaped};

/// Maximum time until an engine begins to answer a pull of a missing image. It answers when the registry has sent the
/// manifest: a second or two, but a busy registry or one behind a slow proxy takes its time, and an engine that is
/// refused tries other endpoints first. An engine without a way out gives up by itself, after 15 s for each endpoint.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// The same, where the node has the image already.
const NEWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Time without progress after which a pull has failed. Unpacking a large layer on a slow disk takes a minute.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// Gives the engine of this node images from elsewhere than a registry.
pub trait Images: Send + Sync + fmt::Debug {
    /// Brings an image, by the name by which the engine shall know it. `false`: nobody has it.
    fn bring<'b>(&'b self, image: &'b str) -> BoxFuture<'b, Result<bool, String>>;
}

/// A source without images of other nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoImages;

impl Images for NoImages {
    fn bring<'b>(&'b self, _: &'b str) -> BoxFuture<'b, Result<bool, String>> {
        std::future::ready(Ok(false)).boxed()
    }
}

/// Pending arrival of an image. The reason of a failure comes from the engine when a container is created.
type Coming = Shared<BoxFuture<'static, ()>>;

/// Images on their way to the node: many tasks may wait for the same.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    under_way: Mutex<HashMap<String, Coming>>,
}

impl Arrivals {
    /// Does `work` for an image, or waits for the same work of another task.
    async fn once(&self, image: &str, work: impl Future<Output = ()> + Send + 'static) {
        let coming = {
            let mut under_way = self.under_way.lock();
            under_way.entry(image.to_owned()).or_insert_with(|| work.boxed().shared()).clone()
        };
        coming.clone().await;
        let mut under_way = self.under_way.lock();
        if under_way.get(image).is_some_and(|other| other.ptr_eq(&coming)) {
            under_way.remove(image);
        }
    }

    /// The node lacks the image.
    pub(crate) async fn bring(&self, node: &crate::life::Node, image: &str, auth: &str) {
        let (engine, images) = (node.engine.clone(), node.images.clone());
        let (name, auth) = (image.to_owned(), auth.to_owned());
        let work = async move {
            // It may have come since it was found missing.
            if engine.get(format!("/images/{}/json", escaped(&name))).done().await.is_ok() {
                return;
            }
            match images.bring(&name).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => warn!(image = name, error, "another node's image did not come; the registry is asked"),
            }
            match pull(&engine, &name, &auth, ANSWER_TIME_MAX).await {
                Ok(()) => info!(image = name, "pulled"),
                Err(error) => warn!(image = name, %error, "cannot pull"),
            }
        };
        self.once(image, work).await;
    }

    /// The node may have the image; the registry may have a newer one.
    pub(crate) async fn renew(&self, node: &crate::life::Node, image: &str, auth: &str) {
        let engine = node.engine.clone();
        let (name, auth) = (image.to_owned(), auth.to_owned());
        let work = async move {
            if let Err(error) = pull(&engine, &name, &auth, NEWER_TIME_MAX).await {
                warn!(image = name, %error, "cannot pull; using the image that is here");
            }
        };
        self.once(image, work).await;
    }
}

/// True if the registry is asked although the image may be there.
pub(crate) fn may_be_newer(image: &str, auth: &str) -> bool {
    !auth.is_empty() && !image.contains('@') && !image.starts_with("sha256:")
}

/// `name:tag@digest` → name, and digest or else tag.
fn parts(image: &str) -> (&str, &str) {
    let (named, digest) = image.split_once('@').map_or((image, None), |(named, digest)| (named, Some(digest)));
    let after_slash = named.rfind('/').map_or(0, |slash| slash + 1);
    let colon = named[after_slash..].find(':').map(|colon| after_slash + colon);
    let (name, tag) = colon.map_or((named, "latest"), |colon| (&named[..colon], &named[colon + 1..]));
    (name, digest.unwrap_or(tag))
}

/// Pulls an image. The engine must answer within `answer_time_max`; then the pull may take as long as it makes
/// progress.
async fn pull(engine: &Engine, image: &str, auth: &str, answer_time_max: Duration) -> Result<(), EngineError> {
    let (name, tag) = parts(image);
    let path = format!("/images/create?fromImage={}&tag={}", escaped(name), escaped(tag));
    let response = engine.post(path).registry_auth(auth).limit(answer_time_max).open().await?;
    follow(response.into_body()).await.map_err(|message| EngineError::Answer { status: 500, message })
}

async fn follow(mut body: Body) -> Result<(), String> {
    let mut decoder = Decoder::default();
    loop {
        let frame = timeout(SILENCE_MAX, body.frame()).await;
        let frame = frame.map_err(|_| format!("no progress for {} s", SILENCE_MAX.as_secs()))?;
        let Some(frame) = frame else { return Ok(()) };
        decoder.push(frame.map_err(|error| error.to_string())?.data_ref().map_or(&[][..], |data| data));
        while let Some(line) = decoder.next()? {
            if let Some(error) = line["error"].as_str() {
                return Err(error.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_the_engine_wants_them() {
        for (image, expected) in [
            ("busybox:1", ("busybox", "1")),
            ("busybox", ("busybox", "latest")),
            ("host:5000/a/b", ("host:5000/a/b", "latest")),
            ("host:5000/a:2", ("host:5000/a", "2")),
            ("a:2@sha256:ab", ("a", "sha256:ab")),
            ("a@sha256:ab", ("a", "sha256:ab")),
        ] {
            assert_eq!(parts(image), expected, "{image}");
        }
    }

    #[test]
    fn a_registry_is_asked_for_what_may_be_newer() {
        assert!(may_be_newer("app:1", "e30="));
        assert!(!may_be_newer("app:1", ""));
        assert!(!may_be_newer("app:1@sha256:ab", "e30="));
    }
}
