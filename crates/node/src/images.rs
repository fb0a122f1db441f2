//! Images for tasks, from other nodes of the pool.

use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use herder_agent::Images;
use herder_front::Front;

/// Brings what any other node has.
#[derive(Debug)]
pub struct FromOthers {
    front: Weak<Front>,
    here: String,
}

impl FromOthers {
    pub fn new(front: &Arc<Front>, here: &str) -> FromOthers {
        FromOthers { front: Arc::downgrade(front), here: here.to_owned() }
    }
}

impl Images for FromOthers {
    fn bring<'b>(&'b self, image: &'b str) -> BoxFuture<'b, Result<bool, String>> {
        Box::pin(async move {
            let Some(front) = self.front.upgrade() else { return Ok(false) };
            front.bring_image(image, &self.here).await.map_err(|error| error.to_string())
        })
    }
}
