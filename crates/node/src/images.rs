//! Images for tasks, from other nodes of the pool.

use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use herder_agent::Images;
use herder_place::Placer;

/// Fetches images for tasks from other nodes of the pool.
#[derive(Debug)]
pub struct FromOthers {
    placer: Weak<Placer>,
    here: String,
}

impl FromOthers {
    pub fn new(placer: &Arc<Placer>, here: &str) -> FromOthers {
        FromOthers { placer: Arc::downgrade(placer), here: here.to_owned() }
    }
}

impl Images for FromOthers {
    fn bring<'b>(&'b self, image: &'b str) -> BoxFuture<'b, Result<bool, String>> {
        Box::pin(async move {
            let Some(placer) = self.placer.upgrade() else { return Ok(false) };
            placer.bring_image(image, &self.here).await.map_err(|error| error.to_string())
        })
    }
}
