//! The documents of the stack API, made of its routes, and the pages that show them.

use bytes::Bytes;
use herder_pool::full;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::v2::{Answered, ok};
use crate::Call;
use crate::routes::STACKS;

/// One operation of a document.
struct Described {
    method: &'static str,
    path: &'static str,
    /// The name in generated clients.
    id: &'static str,
    summary: &'static str,
    /// The definition of the body; empty if there is none.
    body: &'static str,
}

const fn op(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    body: &'static str,
) -> Described {
    Described { method, path, id, summary, body }
}

/// The calls of MasterMind's Service Manager, by the names that its clients were generated from.
static V1: &[Described] = &[
    op("POST", "/v1/stack", "deploy_stack", "Deploys a stack", "Stack"),
    op("POST", "/v1/stack/{name}", "get_stack", "Tells how a stack is", "Stack"),
    op("POST", "/v1/stack/delete/{name}", "delete_stack", "Removes a stack; its volumes stay", "Stack"),
    op("POST", "/v1/swarm", "swarm_status", "Lists the nodes of a swarm", "Swarm"),
    op("GET", "/v1/network", "get_networks", "Lists networks", "Swarm"),
    op("POST", "/v1/get_networks", "get_networks_alternative", "Lists networks", "Swarm"),
    op("POST", "/v1/network", "create_network", "Creates an overlay network", "Network"),
    op("POST", "/v1/create_network", "create_network_alternative", "Creates an overlay network", "Network"),
    op("DELETE", "/v1/network/delete", "delete_network", "Removes a network", "Network"),
    op("GET", "/v1/volume", "get_volumes", "Lists volumes", "Swarm"),
    op("POST", "/v1/get_volumes", "get_volumes_alternative", "Lists volumes", "Swarm"),
    op("POST", "/v1/volume", "create_volume", "Creates a volume", "Volume"),
    op("POST", "/v1/create_volume", "create_volume_alternative", "Creates a volume", "Volume"),
    op("DELETE", "/v1/volume/delete", "delete_volume", "Removes a volume", "Volume"),
];

static V2: &[Described] = &[
    op("GET", "/v2/targets", "list_targets", "Lists targets", ""),
    op("POST", "/v2/targets", "create_target", "Keeps a target by name", "Target"),
    op("GET", "/v2/targets/{target}", "get_target", "Shows a target; credentials are never shown", ""),
    op("PUT", "/v2/targets/{target}", "update_target", "Changes a target", "Target"),
    op("PATCH", "/v2/targets/{target}", "patch_target", "Changes some members of a target", "TargetPatch"),
    op("DELETE", "/v2/targets/{target}", "delete_target", "Forgets a target that has no stacks", ""),
    op("POST", "/v2/targets/{target}/check", "check_target", "Connects to a target and tells each step", ""),
    op("GET", "/v2/targets/{target}/nodes", "list_nodes", "Lists the nodes of a target", ""),
    op("GET", "/v2/targets/{target}/networks", "list_networks", "Lists the networks of a target", ""),
    op("POST", "/v2/targets/{target}/networks", "create_network", "Creates a network", "Network"),
    op("DELETE", "/v2/targets/{target}/networks/{name}", "delete_network", "Removes a network", ""),
    op("GET", "/v2/targets/{target}/volumes", "list_volumes", "Lists the volumes of a target", ""),
    op("POST", "/v2/targets/{target}/volumes", "create_volume", "Creates a volume", "Volume"),
    op("DELETE", "/v2/targets/{target}/volumes/{name}", "delete_volume", "Removes a volume", ""),
    op("GET", "/v2/targets/{target}/stacks", "list_stacks", "Lists stacks", ""),
    op("POST", "/v2/targets/{target}/stacks", "create_stack", "Deploys a stack", "Deploy"),
    op("GET", "/v2/targets/{target}/stacks/{stack}", "get_stack", "Shows a stack with its services", ""),
    op("PUT", "/v2/targets/{target}/stacks/{stack}", "deploy_stack", "Deploys a stack", "Deploy"),
    op("DELETE", "/v2/targets/{target}/stacks/{stack}", "delete_stack", "Removes a stack; its volumes stay", ""),
    op(
        "POST",
        "/v2/targets/{target}/stacks/{stack}/plan",
        "plan_stack",
        "Tells what a deployment would change",
        "Deploy",
    ),
    op("GET", "/v2/targets/{target}/stacks/{stack}/services", "list_services", "Lists the services of a stack", ""),
    op("GET", "/v2/targets/{target}/stacks/{stack}/tasks", "list_tasks", "Lists the tasks of a stack", ""),
    op("GET", "/v2/targets/{target}/stacks/{stack}/logs", "get_logs", "Gives what the tasks of a stack say", ""),
    op("GET", "/v2/targets/{target}/stacks/{stack}/endpoints", "list_endpoints", "Tells where a stack is reached", ""),
    op("GET", "/v2/targets/{target}/stacks/{stack}/events", "follow_stack", "Tells the events of a stack", ""),
    op("GET", "/v2/targets/{target}/stacks/{stack}/revisions", "list_revisions", "Lists revisions", ""),
    op("GET", "/v2/targets/{target}/stacks/{stack}/revisions/{number}", "get_revision", "Shows a revision", ""),
    op(
        "POST",
        "/v2/targets/{target}/stacks/{stack}/rollback",
        "rollback_stack",
        "Deploys an earlier revision",
        "Rollback",
    ),
    op(
        "POST",
        "/v2/targets/{target}/stacks/{stack}/rename",
        "rename_stack",
        "Gives a stack another name; its tasks go on",
        "Rename",
    ),
    op(
        "POST",
        "/v2/targets/{target}/stacks/{stack}/services/{service}/scale",
        "scale_service",
        "Sets the number of tasks",
        "Scale",
    ),
    op(
        "POST",
        "/v2/targets/{target}/stacks/{stack}/services/{service}/restart",
        "restart_service",
        "Replaces all tasks of a service",
        "",
    ),
    op("GET", "/v2/operations", "list_operations", "Lists operations", ""),
    op("GET", "/v2/operations/{operation}", "get_operation", "Shows an operation", ""),
    op("DELETE", "/v2/operations/{operation}", "cancel_operation", "Ends an operation and undoes it", ""),
    op("GET", "/v2/operations/{operation}/events", "follow_operation", "Tells the news of an operation", ""),
    op("GET", "/v2/metrics", "get_metrics", "Gives figures of operations and targets, for Prometheus", ""),
    op("POST", "/v2/compose/check", "check_files", "Tells the faults of files, with places", "Deploy"),
    op("POST", "/v2/compose/config", "get_config", "Gives the canonical file", "Deploy"),
    op("POST", "/v2/compose/variables", "list_variables", "Lists the variables that files read", "Deploy"),
];

/// The content of a good answer.
fn answer(id: &str) -> Value {
    match id {
        "follow_operation" | "follow_stack" => json!({"text/event-stream": {"schema": {"type": "string"}}}),
        "get_logs" | "get_metrics" => json!({"text/plain": {"schema": {"type": "string"}}}),
        _ => json!({"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}),
    }
}

/// Parameters in the query of operations, by the names of these.
const QUERIES: [(&str, &[&str]); 10] = [
    ("follow_stack", &["since"]),
    ("plan_stack", &["against"]),
    ("delete_stack", &["timeout", "volumes", "queue"]),
    ("deploy_stack", &["queue"]),
    ("create_stack", &["queue"]),
    ("rollback_stack", &["queue"]),
    ("list_operations", &["stack", "target", "limit", "after", "filter"]),
    ("get_logs", &["service", "follow", "tail", "since", "timestamps", "format"]),
    ("list_stacks", &["limit", "after", "filter"]),
    ("list_targets", &["limit", "after", "filter"]),
];

/// The names in the holes of a path.
fn holes(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|it| it.strip_prefix('{')?.strip_suffix('}'))
}

/// The paths of a document: each operation made by `operation`. Only routes that the door has are in it.
fn paths(all: &[Described], base: &str, operation: impl Fn(&Described) -> Value) -> Value {
    let mut paths = Map::new();
    let is_there = |it: &&Described| STACKS.iter().any(|route| route.is(it.method, it.path));
    for described in all.iter().filter(is_there) {
        let path = described.path.strip_prefix(base).unwrap_or(described.path);
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[described.method.to_lowercase()] = operation(described);
    }
    Value::Object(paths)
}

fn schema(properties: Value, required: &[&str]) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// `GET /v1/swagger.json`: Swagger 2.0, as generators of the original's time read it.
pub(crate) async fn swagger(call: Call) -> Answered {
    let host = call.parts.headers.get(header::HOST).and_then(|it| it.to_str().ok()).unwrap_or_default();
    ok(&swagger_document(host))
}

fn swagger_document(host: &str) -> Value {
    let answer = json!({"$ref": "#/definitions/Answer"});
    let operation = |it: &Described| {
        let named = holes(it.path).map(|name| json!({"name": name, "in": "path", "required": true, "type": "string"}));
        let mut parameters: Vec<Value> = named.collect();
        parameters
            .push(json!({"name": "body", "in": "body", "schema": {"$ref": format!("#/definitions/{}", it.body)}}));
        json!({
            "operationId": it.id, "summary": it.summary, "parameters": parameters,
            "consumes": ["application/json"], "produces": ["application/json"],
            "responses": {"200": {"description": "It was done", "schema": answer},
                "201": {"description": "It was made", "schema": answer},
                "400": {"description": "It cannot be done", "schema": answer}},
        })
    };
    let text = json!({"type": "string"});
    let objects = json!({"type": "array", "items": {"type": "object"}});
    let engine = json!({"engine-url": text, "ca-cert": text, "cert": text, "cert-key": text});
    let with = |more: Value| {
        let mut all = engine.clone();
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
            all.extend(more);
        }
        all
    };
    let stack = with(json!({
        "name": text, "compose-file": text, "compose-vars": text,
        "external_files": {"type": "array", "items": {"type": "object"}},
    }));
    json!({
        "swagger": "2.0",
        "info": {"title": "MasterMind Service Manager", "version": "1", "description": "The calls of MasterMind's Service Manager, answered by herder."},
        "host": host,
        "basePath": "/v1",
        "schemes": ["http", "https"],
        "paths": paths(V1, "/v1", operation),
        "definitions": {
            "Stack": schema(stack, &["name", "engine-url"]),
            "Swarm": schema(engine.clone(), &["engine-url"]),
            "Network": schema(with(json!({"name": text})), &["name", "engine-url"]),
            "Volume": schema(with(json!({"name": text})), &["name", "engine-url"]),
            // As it is without `compat`, which makes texts of the last members.
            "Answer": schema(json!({
                "status": {"type": "integer"}, "message": text, "detail": text,
                "services": {"type": "array", "items": text}, "errors": objects,
                "stack_status": objects, "swarm_status": {"type": "object"}, "networks": objects, "volumes": objects,
            }), &[]),
        },
    })
}

/// `GET /v2/openapi.json`: OpenAPI 3.1.
pub(crate) async fn openapi(_: Call) -> Answered {
    ok(&openapi_document())
}

fn openapi_document() -> Value {
    let operation = |it: &Described| {
        let named = holes(it.path).map(|name| {
            let mut parameter = json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
            if name == "target" {
                parameter["example"] = "own".into();
            }
            parameter
        });
        let queries = QUERIES.iter().filter(|(id, _)| *id == it.id).flat_map(|(_, names)| *names);
        let queries = queries.map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}));
        let parameters: Vec<Value> = named.chain(queries).collect();
        let json_of =
            |name: &str| json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}});
        let mut operation = json!({
            "operationId": it.id, "summary": it.summary, "parameters": parameters,
            "responses": {
                "200": {"description": "It is done", "content": answer(it.id)},
                "201": {"description": "It is made", "content": answer(it.id)},
                "202": {"description": "It is under way", "content": answer(it.id)},
                "default": {"description": "A refusal", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}},
            },
        });
        if !it.body.is_empty() {
            operation["requestBody"] = json!({"content": json_of(it.body)});
        }
        if it.body == "Deploy" {
            let any = json!({"schema": {"type": "string", "format": "binary"}});
            operation["requestBody"]["content"]["multipart/form-data"] = json!({"schema": {"type": "object"}});
            operation["requestBody"]["content"]["application/x-tar"] = any;
        }
        operation
    };
    let text = json!({"type": "string"});
    let texts = json!({"type": "array", "items": text});
    let options = schema(
        json!({
            "prune": {"type": "boolean", "default": true},
            "timeout": {"type": "integer", "description": "Seconds", "default": 600},
            "keep": {"type": "boolean", "default": false},
            "resolve": {"type": "string", "enum": ["always", "changed", "never"], "default": "always"},
            "supersede": {"type": "boolean", "default": false},
        }),
        &[],
    );
    let deploy = schema(
        json!({
            "name": text,
            "files": {"type": "object", "additionalProperties": true, "description": "Paths and their texts, or {\"base64\": …}",
                "example": {"compose.yaml": "services:\n  web:\n    image: nginx\n"}},
            "main": texts, "directory": text, "environment": {"type": "object", "additionalProperties": true}, "env_files": texts, "profiles": texts,
            "options": {"$ref": "#/components/schemas/Options"},
        }),
        &["files"],
    );
    json!({
        "openapi": "3.1.0",
        "info": {"title": "herder: the stack API", "version": env!("CARGO_PKG_VERSION")},
        "servers": [{"url": "/"}],
        "paths": paths(V2, "", operation),
        "components": {"schemas": {
            "Answer": {"type": "object", "additionalProperties": true},
            "Deploy": deploy,
            "Options": options,
            "Target": schema(json!({
                "name": text, "kind": {"type": "string", "enum": ["swarm", "engine"]}, "address": text, "labels": {"type": "object", "additionalProperties": text},
                "tls": schema(json!({"ca": text, "cert": text, "key": text}), &["ca", "cert", "key"]),
            }), &["address"]),
            "TargetPatch": schema(json!({
                "kind": {"type": "string", "enum": ["swarm", "engine"]}, "address": text,
                "labels": {"type": "object", "additionalProperties": text},
                "tls": schema(json!({"ca": text, "cert": text, "key": text}), &["ca", "cert", "key"]),
            }), &[]),
            "Network": schema(json!({"name": text, "driver": text, "attachable": {"type": "boolean"},
                "options": {"type": "object", "additionalProperties": text}, "labels": {"type": "object", "additionalProperties": text}}), &["name"]),
            "Volume": schema(json!({"name": text, "driver": text, "options": {"type": "object", "additionalProperties": text},
                "labels": {"type": "object", "additionalProperties": text}}), &["name"]),
            "Rollback": schema(json!({"revision": {"type": "integer", "default": 0}, "options": {"$ref": "#/components/schemas/Options"}}), &[]),
            "Rename": schema(json!({"name": text}), &["name"]),
            "Scale": schema(json!({"replicas": {"type": "integer"}}), &["replicas"]),
            "Problem": schema(json!({"title": text, "status": {"type": "integer"}, "code": text, "detail": text, "errors": {"type": "array", "items": {}}}), &[]),
        }},
    })
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>herder: the stack API</title><link rel="stylesheet" href="ui/swagger-ui.css"></head>
<body><div id="ui"></div><script src="ui/swagger-ui-bundle.js"></script><script src="ui/start.js"></script></body>
</html>
"#;

/// Starts Swagger UI with the document beside the page.
const START: &str = r##"window.ui = SwaggerUIBundle({
  url: location.pathname.startsWith("/v1/") ? "/v1/swagger.json" : "/v2/openapi.json",
  dom_id: "#ui", deepLinking: true, validatorUrl: null,
});
"##;

/// swagger-ui-dist 5.31.0, compressed: see the license beside it.
static BUNDLE: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui-bundle.js.gz");
static STYLE: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui.css.gz");

/// Swagger UI writes styles into elements; all else comes from this door.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /v1/ui/`, `GET /v2/ui/`, and their files.
pub(crate) async fn ui(call: Call) -> Answered {
    let base = if call.path.starts_with("/v1") { "/v1/ui/" } else { "/v2/ui/" };
    let (kind, bytes, is_compressed) = match call.hole("file").as_str() {
        "" | "index.html" => {
            ("text/html; charset=utf-8", Bytes::from(PAGE.replace("\"ui/", &format!("\"{base}"))), false)
        }
        "start.js" => ("text/javascript", Bytes::from_static(START.as_bytes()), false),
        "swagger-ui-bundle.js" => ("text/javascript", Bytes::from_static(BUNDLE), true),
        "swagger-ui.css" => ("text/css", Bytes::from_static(STYLE), true),
        other => {
            return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no file {other} here")));
        }
    };
    let mut reply = Response::new(full(bytes));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_doors_have_the_same_routes() {
        for (all, base) in [(V1, "/v1/"), (V2, "/v2/")] {
            for described in all {
                let is_there = STACKS.iter().any(|it| it.is(described.method, described.path));
                assert!(is_there, "the door has no {} {}", described.method, described.path);
            }
            let is_page = |path: &str| path.contains("/ui") || path.ends_with(".json");
            for (method, path) in
                STACKS.iter().map(crate::router::Route::named).filter(|(_, path)| path.starts_with(base))
            {
                let is_described = all.iter().any(|it| (it.method, it.path) == (method, path));
                assert!(is_described || is_page(path), "the document has no {method} {path}");
            }
        }
        let document = swagger_document("h:1");
        assert_eq!(document["paths"]["/stack/{name}"]["post"]["operationId"], "get_stack");
        assert_eq!(openapi_document()["paths"]["/v2/operations"]["get"]["operationId"], "list_operations");
    }
}
