//! `POST /containers/create`: read once, then placed.

use std::sync::Arc;

use herder_place::create::{order, place_and_create};

use herder_pool::EngineError;

use crate::{ApiError, Call, Front, Reply};

pub(crate) async fn create(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let body = call.json().await?;
    if body.is_null() {
        return Err(ApiError::bad_request("the request body is empty: expected a JSON object with at least `Image`"));
    }
    let mut order = order(&front.placer, call.query.get("name"), body)?;
    order.query = call.query.0.iter().filter(|(key, _)| key != "name").cloned().collect();
    order.version = call.version.take();
    // In a task of its own: a client that goes away does not leave a container that nobody has counted.
    let task = tokio::spawn(place_and_create(front.placer.clone(), order));
    let created = task.await.map_err(|error| ApiError::internal(format!("the create was broken off: {error}")))?;
    let created = created.map_err(malformed)?;
    Ok(crate::call::raw_json(created.status, created.answer))
}
/// Older engines answer 500 to a body that is no create request; it is the client's mistake.
fn malformed(error: ApiError) -> ApiError {
    match error.plain() {
        ApiError::Engine(EngineError::Answer { status: 500, message })
            if message.starts_with("json: ") || message.starts_with("invalid character ") =>
        {
            ApiError::bad_request(message.clone())
        }
        _ => error,
    }
}
