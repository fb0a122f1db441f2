//! `POST /containers/prune` on every node at once.

use std::sync::Arc;

use herder_decide::swarm::container::LABEL_TASK;
use herder_pool::Engine;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::reread;
use crate::{ApiError, Call, Front, Reply, call, path};

pub(crate) async fn containers(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let filters = sparing_tasks(call.query.get("filters").unwrap_or_default());
    let path = format!("/containers/prune?filters={}", path::encode_query(&filters));
    let answers = front.healthy_engines().into_iter().map(|engine| prune_one(engine, path.clone()));
    let (mut parts, mut errors) = (Vec::new(), Vec::new());
    for answer in futures_util::future::join_all(answers).await {
        match answer {
            Ok(answer) => parts.push(answer),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::internal(errors.join("\n")));
    }
    Ok(call::json(StatusCode::OK, &merge(&parts)))
}

/// Extends the client's filters so that containers of a swarm's tasks stay. Those that do not run are prepared for
/// their turn in an update, or kept as history. Engines leave alone what has *all* labels that are named, so a client
/// that names others itself gets what it asks for; tasks that lose their containers get new ones.
fn sparing_tasks(filters: &str) -> String {
    let parsed = if filters.is_empty() { Some(json!({})) } else { serde_json::from_str(filters).ok() };
    match parsed {
        Some(Value::Object(mut parsed)) if !parsed.contains_key("label!") => {
            parsed.insert("label!".into(), json!([LABEL_TASK]));
            Value::Object(parsed).to_string()
        }
        // Its engines refuse what makes no sense.
        _ => filters.to_owned(),
    }
}

/// Prunes one engine and forgets what it deleted; the error begins with the node's name.
async fn prune_one(engine: Arc<Engine>, path: String) -> Result<Value, String> {
    let answer = engine.call(Method::POST, &path, None).await;
    let answer = answer.map_err(|error| format!("{}: {error}", engine.node().name))?;
    if let Some(ids) = answer["ContainersDeleted"].as_array() {
        for id in ids {
            reread(&engine, id.as_str().unwrap_or_default()).await;
        }
    }
    Ok(answer)
}

/// All that was deleted, and the sum of what that gave back.
fn merge(answers: &[Value]) -> Value {
    let (mut deleted, mut reclaimed) = (Vec::new(), 0u64);
    for answer in answers {
        deleted.extend(answer["ContainersDeleted"].as_array().into_iter().flatten().cloned());
        reclaimed += answer["SpaceReclaimed"].as_u64().unwrap_or(0);
    }
    json!({ "ContainersDeleted": deleted, "SpaceReclaimed": reclaimed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_tasks_are_left_alone() {
        let label = r#"{"label!":["com.docker.swarm.task.id"]}"#;
        assert_eq!(sparing_tasks(""), label);
        assert_eq!(sparing_tasks("{}"), label);
        assert_eq!(sparing_tasks(r#"{"until":["1h"]}"#), r#"{"until":["1h"],"label!":["com.docker.swarm.task.id"]}"#);
        assert_eq!(sparing_tasks(r#"{"label!":["a"]}"#), r#"{"label!":["a"]}"#);
        assert_eq!(sparing_tasks("nonsense"), "nonsense");
    }

    #[test]
    fn what_was_deleted_is_summed_up() {
        let merged = merge(&[
            json!({"ContainersDeleted": ["a"], "SpaceReclaimed": 5}),
            json!({"ContainersDeleted": null, "SpaceReclaimed": 0}),
            json!({"ContainersDeleted": ["b"], "SpaceReclaimed": 7}),
        ]);
        assert_eq!(merged, json!({"ContainersDeleted": ["a", "b"], "SpaceReclaimed": 12}));
    }
}
