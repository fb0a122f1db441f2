//! `…/stacks/{stack}/endpoints` and `/events`: where a stack is reached, and what becomes of its objects.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use herder_compose::STACK_LABEL;
use herder_deploy::{Api as _, escape};
use herder_docker::Decoder;
use herder_pool::BoxError;
use http::{HeaderValue, Response, header};
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use serde_json::{Value, json};

use super::listed::paged;
use super::v2::{Answered, api_of, docker_list, no_stack, of_stack, request_id};
use crate::{Call, Front};

/// Events that wait for the client to read.
const EVENTS_WAITING_MAX: usize = 64;

/// `GET …/stacks/{stack}/endpoints`: the ports of each service, its virtual addresses, and the addresses of its tasks that run.
pub(crate) async fn endpoints(front: &Arc<Front>, call: Call) -> Answered {
    let (target, stack) = (call.hole("target"), call.hole("stack"));
    let api = api_of(front, &target, &request_id(&call)).await?;
    let services = docker_list(&api, &format!("/services?{}", of_stack(&stack))).await?;
    if services.is_empty() {
        return Err(no_stack(&stack));
    }
    let tasks = docker_list(&api, &format!("/tasks?{}", of_stack(&stack))).await?;
    let nodes = docker_list(&api, "/nodes").await?;
    paged(&call, services.iter().map(|it| endpoint(it, &tasks, &nodes)).collect(), "service")
}

fn endpoint(service: &Value, tasks: &[Value], nodes: &[Value]) -> Value {
    let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let ports = each(&service["Endpoint"]["Ports"]).into_iter().map(|port| {
        json!({"target": port["TargetPort"], "published": port["PublishedPort"], "protocol": port["Protocol"],
            "mode": port["PublishMode"]})
    });
    let virtual_ips = each(&service["Endpoint"]["VirtualIPs"]).into_iter().map(|it| it["Addr"].clone());
    let serving = tasks.iter().filter(|task| {
        task["ServiceID"] == service["ID"] && task["DesiredState"] == "running" && task["Status"]["State"] == "running"
    });
    let serving = serving.map(|task| {
        let node = nodes.iter().find(|it| it["ID"] == task["NodeID"]);
        let addresses = each(&task["NetworksAttachments"]).into_iter().flat_map(|it| each(&it["Addresses"]));
        let host_ports = each(&task["Status"]["PortStatus"]["Ports"]).into_iter().map(|port| {
            json!({"target": port["TargetPort"], "published": port["PublishedPort"], "protocol": port["Protocol"]})
        });
        json!({
            "id": task["ID"], "slot": task["Slot"],
            "node": node.map_or(Value::Null, |it| it["Description"]["Hostname"].clone()),
            "node_address": node.map_or(Value::Null, |it| it["Status"]["Addr"].clone()),
            "addresses": addresses.collect::<Vec<_>>(), "ports": host_ports.collect::<Vec<_>>(),
        })
    });
    json!({
        "service": service["Spec"]["Name"], "ports": ports.collect::<Vec<_>>(),
        "virtual_ips": virtual_ips.collect::<Vec<_>>(), "tasks": serving.collect::<Vec<_>>(),
    })
}

/// `GET …/stacks/{stack}/events` sends the events of a stack as server-sent events. These are the events of its
/// services, networks, secrets, configs and containers, as the Docker API has them, from `Last-Event-ID` on, or
/// `since`.
pub(crate) async fn events(front: &Arc<Front>, call: Call) -> Answered {
    let (target, stack) = (call.hole("target"), call.hole("stack"));
    let last = call.parts.headers.get("last-event-id").and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    // Ids are times in nanoseconds; the one after the last is the next.
    let since = last.map(|it| it + 1).map(|it| format!("{}.{:09}", it / 1_000_000_000, it % 1_000_000_000));
    let since = since.or(call.query.get("since").map(str::to_owned));
    let query = since.map_or_else(String::new, |it| format!("?since={}", escape(&it)));
    let api = api_of(front, &target, &request_id(&call)).await?;
    let mut pieces = api.pieces(&format!("/events{query}")).await?;
    let (mut out, body) = Channel::<Bytes, BoxError>::new(EVENTS_WAITING_MAX);
    tokio::spawn(async move {
        let mut decoder = Decoder::default();
        while let Some(Ok(piece)) = pieces.next().await {
            decoder.push(&piece);
            while let Ok(Some(event)) = decoder.next() {
                let id = event["timeNano"].as_u64().unwrap_or(0);
                let text = format!("id: {id}\ndata: {event}\n\n");
                if is_of(&event, &stack) && out.send_data(text.into()).await.is_err() {
                    return;
                }
            }
        }
    });
    let mut reply = Response::new(body.boxed_unsync());
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

/// True if an event is of an object of a stack. Events of services and networks have no labels: their names tell.
fn is_of(event: &Value, stack: &str) -> bool {
    let attributes = &event["Actor"]["Attributes"];
    let is_declared = matches!(event["Type"].as_str(), Some("service" | "network" | "secret" | "config"));
    let prefix = format!("{stack}_");
    attributes[STACK_LABEL] == stack
        || (is_declared && attributes["name"].as_str().is_some_and(|name| name.starts_with(&prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_of_a_stack_by_label_or_name() {
        let check = |kind: &str, attributes: Value, expected: bool| {
            let event = json!({"Type": kind, "Actor": {"Attributes": attributes}});
            assert_eq!(is_of(&event, "shop"), expected, "{event}");
        };
        check("container", json!({STACK_LABEL: "shop", "name": "x"}), true);
        check("container", json!({"name": "shop_web.1"}), false);
        check("service", json!({"name": "shop_web"}), true);
        check("service", json!({"name": "shopping_web"}), false);
        check("network", json!({"name": "shop_default"}), true);
        check("node", json!({"name": "shop_1"}), false);
    }

    #[test]
    fn an_endpoint_has_ports_virtual_addresses_and_tasks_that_run() {
        let service = json!({"ID": "s", "Spec": {"Name": "shop_web"}, "Endpoint": {
            "Ports": [{"TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp", "PublishMode": "ingress"}],
            "VirtualIPs": [{"NetworkID": "n", "Addr": "10.0.1.2/24"}]}});
        let task = |id: &str, state: &str| {
            json!({"ID": id, "ServiceID": "s", "Slot": 1, "NodeID": "h", "DesiredState": "running", "Status": {"State": state},
                "NetworksAttachments": [{"Addresses": ["10.0.1.3/24"]}]})
        };
        let nodes = [json!({"ID": "h", "Description": {"Hostname": "h1"}, "Status": {"Addr": "10.1.0.1"}})];
        let expected = json!({
            "service": "shop_web",
            "ports": [{"target": 80, "published": 8080, "protocol": "tcp", "mode": "ingress"}],
            "virtual_ips": ["10.0.1.2/24"],
            "tasks": [{"id": "a", "slot": 1, "node": "h1", "node_address": "10.1.0.1", "addresses": ["10.0.1.3/24"],
                "ports": []}],
        });
        assert_eq!(endpoint(&service, &[task("a", "running"), task("b", "starting")], &nodes), expected);
    }
}
