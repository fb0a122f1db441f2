//! `/herder/ingress` and `/herder/certificates`: the settings of the ingress, what it routes, and its certificates.

use std::sync::Arc;

use herder_decide::swarm::control::{create_resource, remove_resource, resource, update_resource};
use herder_decide::{endpoints, ingress};
use herder_model::swarm::{
    AUTHORITY_KIND, BackendState, CERTIFICATE_KIND, CertificateRecord, INGRESS_ID, INGRESS_KIND, IngressSettings,
    OWN_AUTHORITY, Resource, ResourceError, ServedCertificate, View, Word,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Swarm, body, change, new_id, read};
use crate::{ApiError, Call, Front, Reply, call};

fn the_swarm(front: &Front) -> Result<&Arc<dyn Swarm>, ApiError> {
    front.swarm().ok_or_else(|| ApiError::not_found("this node can be in no swarm"))
}

fn word(kind: &str) -> Result<Word, ApiError> {
    Word::new(kind).map_err(|error| ApiError::internal(error.to_string()))
}

fn wrong(error: &ResourceError) -> ApiError {
    ApiError::bad_request(error.to_string())
}

/// `GET /herder/ingress`: settings, routes, services with their tasks, and problems.
pub(crate) async fn show(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    Ok(call::json(StatusCode::OK, &shown(front).await?))
}

pub(crate) async fn shown(front: &Front) -> Result<Value, ApiError> {
    let view = read(the_swarm(front)?).await?;
    let nodes = front.pool.nodes();
    let plain = endpoints::plain(nodes.iter().map(AsRef::as_ref));
    let Some((state, problems)) = ingress::table(&view, &plain) else {
        return Ok(json!({"Enabled": false}));
    };
    let nodes: Vec<&str> = view
        .nodes
        .values()
        .filter(|it| ingress::listens(&state.settings, it))
        .map(|it| it.node.description.hostname.as_str())
        .collect();
    let problems: Vec<Value> = problems
        .iter()
        .map(|it| json!({"Service": it.service, "Label": it.label, "Text": it.text, "Line": it.to_string()}))
        .collect();
    let routes: Vec<Value> = state
        .routes
        .iter()
        .map(|(name, it)| {
            let backends = state.services.get(&it.service).map(|it| &it.backends);
            let count = |state| backends.map_or(0, |all| all.values().filter(|it| it.state == state).count());
            json!({
                "Name": name, "Rule": it.rule, "Entrypoints": it.entrypoints, "Priority": it.priority,
                "Middlewares": it.middlewares, "Service": it.service, "Tls": it.tls,
                "Serving": count(BackendState::Serving), "Draining": count(BackendState::Draining),
            })
        })
        .collect();
    Ok(json!({
        "Enabled": true, "Settings": state.settings, "Nodes": nodes, "Routes": routes, "Services": state.services,
        "Problems": problems,
    }))
}

/// `PUT /herder/ingress`: the settings, whole.
pub(crate) async fn enable(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let swarm = the_swarm(front)?;
    let value = body::value(&mut call).await?;
    let settings: IngressSettings =
        serde_json::from_value(value).map_err(|error| ApiError::bad_request(format!("ingress settings: {error}")))?;
    if let Some(why) = ingress::fault(&settings) {
        return Err(ApiError::bad_request(why));
    }
    let kind = word(INGRESS_KIND)?;
    let made = Resource::new(kind, INGRESS_ID, INGRESS_ID, &settings).map_err(|error| wrong(&error))?;
    change(swarm, true, |view| match present(view, kind, INGRESS_ID) {
        Some(known) => update_resource(view, known.meta.version.index, made.clone()),
        None => create_resource(view, made.clone()),
    })
    .await?;
    Ok(call::json(StatusCode::OK, &json!({"Enabled": true})))
}

/// `DELETE /herder/ingress`: no node listens any more.
pub(crate) async fn disable(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let kind = word(INGRESS_KIND)?;
    change(the_swarm(front)?, true, |view| remove_resource(view, kind, INGRESS_ID)).await?;
    Ok(call::json(StatusCode::OK, &json!({"Enabled": false})))
}

fn present<'v>(view: &'v View, kind: Word, id: &str) -> Option<&'v Arc<Resource>> {
    view.resources.get(&kind)?.get(id)
}

/// `GET /herder/certificates`: all of them, without their keys.
pub(crate) async fn certificates(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    Ok(call::json(StatusCode::OK, &Value::Array(listed(front).await?)))
}

pub(crate) async fn listed(front: &Front) -> Result<Vec<Value>, ApiError> {
    let view = read(the_swarm(front)?).await?;
    let kind = word(CERTIFICATE_KIND)?;
    let mut all: Vec<Value> = view
        .resources_of(kind)
        .filter_map(|it| {
            let mut value: Value = it.read().ok()?;
            let members = value.as_object_mut()?;
            members.remove("key");
            // Its key, and how far it is, is the leader's.
            members.remove("order");
            members.insert("ID".to_owned(), json!(it.id));
            members.insert("Name".to_owned(), json!(it.name));
            members.insert("UpdatedAt".to_owned(), json!(it.meta.updated_at));
            Some(value)
        })
        .collect();
    all.sort_by(|a, b| a["Name"].as_str().cmp(&b["Name"].as_str()));
    Ok(all)
}

/// `PUT /herder/certificates/{name}`: `{"chain": PEM, "key": PEM}`, imported under this name.
pub(crate) async fn import(front: &Arc<Front>, mut call: Call) -> Result<Reply, ApiError> {
    let swarm = the_swarm(front)?;
    let name = call.hole("name");
    let value = body::value(&mut call).await?;
    let given: ServedCertificate =
        serde_json::from_value(value).map_err(|error| ApiError::bad_request(format!("certificate: {error}")))?;
    let facts = herder_tls::certs::facts(&given.chain, &given.key)
        .map_err(|why| ApiError::bad_request(format!("certificate {name}: {why}")))?;
    let (names, not_before, not_after) = (facts.names, facts.not_before, facts.not_after);
    let record = CertificateRecord {
        names: names.clone(),
        chain: given.chain,
        key: given.key,
        source: "import".to_owned(),
        state: "valid".to_owned(),
        not_before,
        not_after,
        ..CertificateRecord::default()
    };
    let kind = word(CERTIFICATE_KIND)?;
    let id = new_id();
    change(swarm, true, |view| {
        let known = view.resources_of(kind).find(|it| it.name == name);
        let made = match known {
            Some(known) => {
                let mut changed = Resource::clone(known);
                changed.set(&record).map(|()| changed)
            }
            None => Resource::new(kind, &id, &name, &record),
        };
        let made = made.map_err(|error| {
            herder_decide::swarm::Refusal::new(herder_decide::swarm::Code::InvalidArgument, error.to_string())
        })?;
        match known {
            Some(known) => update_resource(view, known.meta.version.index, made),
            None => create_resource(view, made),
        }
    })
    .await?;
    Ok(call::json(StatusCode::OK, &json!({"Name": name, "Names": names, "NotAfter": not_after})))
}

/// Finds a certificate by its name.
fn certificate(view: &View, name: &str) -> Result<(Resource, CertificateRecord), ApiError> {
    let known = resource(view, word(CERTIFICATE_KIND)?, name)?;
    let record = known.read().map_err(|error| wrong(&error))?;
    Ok((known.clone(), record))
}

/// `GET /herder/certificates/{name}/key`: the chain and the key.
pub(crate) async fn export(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let name = call.hole("name");
    let (_, record) = certificate(&read(the_swarm(front)?).await?, &name)?;
    if record.chain.is_empty() {
        return Err(ApiError::not_found(format!("certificate {name} was not issued yet: {}", record.last_error)));
    }
    Ok(call::json(StatusCode::OK, &json!({"Name": name, "Chain": record.chain, "Key": record.key})))
}

/// `POST /herder/certificates/{name}/renew`: a new one is asked for now.
pub(crate) async fn renew(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let (swarm, name) = (the_swarm(front)?, call.hole("name"));
    let (_, record) = certificate(&read(swarm).await?, &name)?;
    if record.source == "import" {
        let text = format!("certificate {name} was imported: import a new one with `herder cert import`");
        return Err(ApiError::bad_request(text));
    }
    let kind = word(CERTIFICATE_KIND)?;
    change(swarm, true, |view| {
        let known = resource(view, kind, &name)?;
        let mut changed = known.clone();
        // Any time that is over.
        changed.set(&json!({"renew_at": 1, "next_try": 0})).map_err(|error| {
            herder_decide::swarm::Refusal::new(herder_decide::swarm::Code::InvalidArgument, error.to_string())
        })?;
        update_resource(view, known.meta.version.index, changed)
    })
    .await?;
    Ok(call::json(StatusCode::OK, &json!({"Name": name})))
}

/// `GET /herder/ingress/authority`: the certificate of the swarm's own authority, for those that shall trust it.
pub(crate) async fn authority(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let view = read(the_swarm(front)?).await?;
    let known = resource(&view, word(AUTHORITY_KIND)?, OWN_AUTHORITY)
        .map_err(|_| ApiError::not_found("no certificate was signed by an authority of this swarm yet"))?;
    let value: Value = known.read().map_err(|error| wrong(&error))?;
    Ok(call::json(StatusCode::OK, &json!({"Certificate": value["cert"]})))
}

/// `DELETE /herder/certificates/{name}`
pub(crate) async fn remove(front: &Arc<Front>, call: Call) -> Result<Reply, ApiError> {
    let (kind, name) = (word(CERTIFICATE_KIND)?, call.hole("name"));
    change(the_swarm(front)?, true, |view| remove_resource(view, kind, &name)).await?;
    Ok(call::json(StatusCode::OK, &json!({"Name": name})))
}
