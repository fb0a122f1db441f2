//! `herder ingress`: what a door is asked, and how its answers are shown.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use herder_cli::{IngressEnable, IngressVerb};
use http::{Method, Request, header};
use serde_json::{Value, json};

use crate::door::Door;

const PATH: &str = "/herder/ingress";

pub(crate) async fn run(asked: IngressVerb) -> anyhow::Result<()> {
    match asked {
        IngressVerb::Enable(asked) => enable(asked).await,
        IngressVerb::Disable(asked) => Door::of(&asked.door)?.ask(Method::DELETE, PATH).await.map(drop),
        IngressVerb::Ls(asked) => {
            let answer = shown(&asked.door).await?;
            if asked.format == "json" {
                anstream::println!("{answer}");
            } else {
                anstream::println!("{}", routes(&answer));
            }
            Ok(())
        }
        IngressVerb::Check(asked) => {
            let answer = shown(&asked.door).await?;
            let problems = answer["Problems"].as_array().map(Vec::as_slice).unwrap_or_default();
            for problem in problems {
                anstream::println!("{}", text(&problem["Line"]));
            }
            match problems.len() {
                0 => anstream::println!("{} routes, no problems", answer["Routes"].as_array().map_or(0, Vec::len)),
                count => bail!("{count} problems in labels"),
            }
            Ok(())
        }
    }
}

async fn shown(door: &herder_cli::Door) -> anyhow::Result<Value> {
    let answer = Door::of(door)?.ask(Method::GET, PATH).await?;
    if answer["Enabled"] != true {
        bail!("the ingress is not enabled; `herder ingress enable` lets nodes listen");
    }
    Ok(answer)
}

async fn enable(asked: IngressEnable) -> anyhow::Result<()> {
    let mut given = asked.entrypoint.clone();
    if given.is_empty() {
        given = vec!["web=:80".to_owned(), "websecure=:443".to_owned()];
    }
    let mut entrypoints = BTreeMap::new();
    for text in &given {
        let (name, address) = text.split_once('=').with_context(|| format!("--entrypoint {text}: write NAME=:PORT"))?;
        entrypoints.insert(name, json!({"address": address, "proxy_protocol": asked.proxy_protocol}));
    }
    let resolvers = asked.resolver.iter().map(|it| crate::certificates::resolver(it));
    let resolvers = resolvers.collect::<anyhow::Result<BTreeMap<String, Value>>>()?;
    let settings = json!({
        "on": asked.on, "entrypoints": entrypoints, "exposed_by_default": asked.exposed_by_default,
        "trusted_proxies": asked.trusted_proxy, "access_log": asked.access_log, "resolvers": resolvers,
        "metrics": asked.metrics.unwrap_or_default(),
    });
    put(&Door::of(&asked.door)?, PATH, &settings).await.map(drop)
}

pub(crate) async fn put(door: &Door, path: &str, value: &Value) -> anyhow::Result<Value> {
    let request = Request::builder().method(Method::PUT).uri(path).header(header::CONTENT_TYPE, "application/json");
    let response = door.send(request.body(herder_docker::full(value.to_string()))?).await?;
    if !response.status().is_success() {
        return Err(door.refusal(response).await);
    }
    door.read(response).await
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn list(value: &Value) -> String {
    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(text).collect::<Vec<_>>().join(",")
}

fn routes(answer: &Value) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["ROUTE", "RULE", "ENTRYPOINTS", "TLS", "MIDDLEWARES", "SERVICE", "TASKS"]);
    for route in answer["Routes"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let on = list(&route["Entrypoints"]);
        let tls = match &route["Tls"] {
            Value::Null => "-".to_owned(),
            tls => match text(&tls["resolver"]).as_str() {
                "" => "yes".to_owned(),
                resolver => resolver.to_owned(),
            },
        };
        let draining = route["Draining"].as_u64().filter(|it| *it > 0).map(|it| format!(" ({it} draining)"));
        table.add_row([
            text(&route["Name"]),
            text(&route["Rule"]),
            if on.is_empty() { "all".to_owned() } else { on },
            tls,
            list(&route["Middlewares"]),
            text(&route["Service"]),
            format!("{}{}", route["Serving"], draining.unwrap_or_default()),
        ]);
    }
    table
}
