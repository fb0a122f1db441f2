//! Services that middlewares ask beside the one that a route leads to: who may pass, and pages of errors.

use std::collections::BTreeMap;

use herder_model::swarm::{Carried, Upstream};
use serde_json::Value;

use super::labels::Middleware;
use super::middleware::Middleware as Kind;
use crate::endpoints::ServiceEndpoints;

type Services = BTreeMap<(Carried, String), Upstream>;

/// Says which services these middlewares mean, by the names of the table. One whose service is not there cannot be used; these are
/// returned with the reason.
pub(super) fn resolve(
    middlewares: &mut BTreeMap<String, Middleware>,
    services: &Services,
    declared: &[&ServiceEndpoints],
) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for (name, middleware) in middlewares.iter_mut() {
        let Middleware::Is(value) = middleware else { continue };
        match resolved(value, services, declared) {
            Ok(None) => {}
            Ok(Some(resolved)) => *value = resolved,
            Err(text) => {
                *middleware = Middleware::Broken;
                wrong.push((name.clone(), text));
            }
        }
    }
    wrong
}

/// The name of the service that a middleware asks.
pub(super) fn asked(value: &Value) -> Option<&str> {
    value["service"].as_str().filter(|it| asks(value) && !it.is_empty())
}

/// Returns whether a middleware asks a service.
pub(super) fn asks(value: &Value) -> bool {
    ["forwardauth", "errors"].contains(&value["kind"].as_str().unwrap_or_default())
}

fn resolved(value: &Value, services: &Services, declared: &[&ServiceEndpoints]) -> Result<Option<Value>, String> {
    let Ok(mut kind) = serde_json::from_value::<Kind>(value.clone()) else { return Ok(None) };
    match &mut kind {
        Kind::Errors { service, .. } => {
            let name = service.split('@').next().unwrap_or_default().to_owned();
            if !services.contains_key(&(Carried::Http, name.clone())) {
                return Err(format!("errors: the service {name} is not there or cannot be used"));
            }
            *service = name;
        }
        Kind::ForwardAuth(auth) => {
            let Some((_, host, port)) = auth.host() else { return Ok(None) };
            let is_it = |of: &ServiceEndpoints| {
                let stack = of.labels.get("com.docker.stack.namespace");
                of.name == host || stack.is_some_and(|it| of.name == format!("{it}_{host}"))
            };
            let mut means = declared.iter().filter(|it| is_it(it)).peekable();
            let is_outside = host.contains(['.', ':', '[']);
            let is_service = means.peek().is_some();
            let ids: Vec<&str> = means.map(|it| it.id.as_str()).collect();
            let found = services.iter().find(|((carries, _), it)| {
                *carries == Carried::Http && it.port == port && it.of.iter().any(|of| ids.contains(&of.as_str()))
            });
            match found {
                Some(((_, name), _)) => auth.service.clone_from(name),
                None if is_service => {
                    return Err(format!(
                        "forwardauth: no label says that the service {host} takes requests at port {port}: give it \
                         traefik.http.services.NAME.loadbalancer.server.port={port}"
                    ));
                }
                None if is_outside => {}
                None => return Err(format!("forwardauth: {host} is no service with labels, and no host outside")),
            }
        }
        _ => return Ok(None),
    }
    serde_json::to_value(kind).map(Some).map_err(|error| error.to_string())
}
