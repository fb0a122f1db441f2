//! `POST /v2/targets/{target}/stacks/{stack}/rename`.

use std::sync::Arc;

use herder_stacks::{OWN, rename, stack};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::asked::read;
use super::listed::if_match;
use super::problem::Problem;
use super::v2::{ATTEMPTS_MAX, Answered, author, ok, swarm_of};
use crate::{ApiError, Call, Front, swarm};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedRename {
    name: String,
}

/// Gives a stack another name, and tells which names its objects keep.
pub(crate) async fn rename_stack(front: &Arc<Front>, mut call: Call) -> Answered {
    let AskedRename { name } = read(&mut call).await?;
    let (target, old) = (call.hole("target"), call.hole("stack"));
    if target != OWN {
        let detail = format!(
            "target {target} cannot rename services: deploy the files there as {name}, then remove stack {old}"
        );
        return Err(Problem::new(StatusCode::CONFLICT, "refused", detail));
    }
    let swarm = swarm_of(front)?;
    let (by, id) = (author(&call), swarm::new_id());
    let mut attempts = 1;
    loop {
        let view = swarm::read(swarm).await?;
        if_match(&call.parts.headers, "stack", stack(&view, OWN, &old).map(|it| it.version))?;
        let renamed = rename(&view, &old, &name, &by, id.clone())?;
        match swarm.commit(renamed.changes).await {
            Ok(view) => {
                let revision = stack(&view, OWN, &name).map_or(0, |it| it.record.revision);
                return ok(&json!({
                    "name": name, "former": old, "revision": revision, "pins": renamed.pins, "dropped": renamed.dropped,
                }));
            }
            Err(swarm::NotWritten::Conflict(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
            Err(swarm::NotWritten::Conflict(conflict)) => return Err(ApiError::conflict(conflict.to_string()).into()),
            Err(swarm::NotWritten::Failed(error)) => return Err(error.into()),
        }
    }
}
