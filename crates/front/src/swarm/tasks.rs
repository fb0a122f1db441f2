//! `/tasks`.

use std::sync::Arc;

use herder_decide::swarm::{list, lookup};
use herder_decide::versions::Version;
use herder_model::swarm::Task;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Swarm, body, read};
use crate::{ApiError, Call, Reply, call};

/// Tasks have cluster volumes since this version. Here, none of them.
const VOLUMES: Version = Version { major: 1, minor: 42 };

fn shown(task: &Task, call: &Call) -> Value {
    let mut task = json!(task);
    if call.version.as_deref().and_then(Version::parse).is_none_or(|client| client >= VOLUMES) {
        task["Volumes"] = Value::Null;
    }
    task
}

pub(crate) async fn all(swarm: &Arc<dyn Swarm>, call: Call) -> Result<Reply, ApiError> {
    let filters = body::filters(&call.query)?;
    let tasks = list::tasks(&read(swarm).await?, &filters)?;
    let shown: Vec<Value> = tasks.iter().map(|task| shown(task, &call)).collect();
    Ok(call::json(StatusCode::OK, &shown))
}

pub(crate) async fn inspect(swarm: &Arc<dyn Swarm>, call: Call, id: String) -> Result<Reply, ApiError> {
    let view = read(swarm).await?;
    let task = list::task(&view, lookup::task(&view, &id)?);
    Ok(call::json(StatusCode::OK, &shown(&task, &call)))
}
