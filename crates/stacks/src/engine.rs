//! One Docker Engine without a swarm as a target: services are containers, and their labels keep what was declared.
//!
//! [`OneEngine`] answers the calls of the swarm API that a deployment makes, so that plans, operations and lists are the same
//! as for swarms. What an engine cannot do is refused before anything is changed ([`herder_deploy::able`]).

mod containers;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;

use herder_compose::STACK_LABEL;
use herder_deploy::{Answer, Api, Fault, Kind, Pieces, escape};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use shape::{FORMER, SERVICE_LABEL};

/// An engine to which bodies that are no JSON can be sent.
pub trait Raw: Api {
    /// Sends a body of this media type, and gives the status and the answer.
    fn raw(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: Vec<u8>,
    ) -> impl Future<Output = Result<(u16, Vec<u8>), Fault>> + Send;
}

/// Emulation of the swarm API on one engine that is in no swarm.
#[expect(missing_debug_implementations, reason = "it holds contents of secrets")]
pub struct OneEngine<A> {
    api: A,
    /// Secrets and configs of the deployment under way, by kind and name: an engine keeps none.
    files: Mutex<BTreeMap<(Kind, String), Value>>,
}

impl<A: Raw> OneEngine<A> {
    pub fn new(api: A) -> OneEngine<A> {
        OneEngine { api, files: Mutex::default() }
    }

    /// All containers with a label, the newest first.
    async fn labelled(&self, label: &str) -> Result<Vec<Value>, Fault> {
        let filters = escape(&json!({"label": [label]}).to_string());
        let answer = self.api.call(Method::GET, &format!("/containers/json?all=1&filters={filters}"), None).await?;
        let mut all = good(answer, "containers")?.as_array().cloned().unwrap_or_default();
        all.sort_by_key(|it| std::cmp::Reverse(it["Created"].as_i64()));
        Ok(all)
    }

    /// The containers of a service, without those that are kept for going back.
    async fn of_service(&self, name: &str) -> Result<Vec<Value>, Fault> {
        let mut all = self.labelled(&format!("{SERVICE_LABEL}={name}")).await?;
        all.retain(|it| !shape::is_former(it));
        Ok(all)
    }

    async fn services(&self, filters: &Value) -> Result<Answer, Fault> {
        let label = first(filters, "label").unwrap_or_else(|| SERVICE_LABEL.to_owned());
        let mut containers = self.labelled(&label).await?;
        containers.retain(|it| !shape::is_former(it));
        Ok(Answer { status: 200, body: shape::services(&containers).into() })
    }

    async fn service(&self, name: &str) -> Result<Answer, Fault> {
        let containers = self.of_service(name).await?;
        Ok(match shape::services(&containers).pop() {
            Some(body) => Answer { status: 200, body },
            None => missing(&format!("service {name} not found")),
        })
    }

    async fn tasks(&self, filters: &Value) -> Result<Answer, Fault> {
        let label = match first(filters, "service") {
            Some(service) => format!("{SERVICE_LABEL}={service}"),
            None => first(filters, "label").unwrap_or_else(|| SERVICE_LABEL.to_owned()),
        };
        let mut tasks = Vec::new();
        for container in self.labelled(&label).await?.iter().filter(|it| !shape::is_former(it)) {
            let id = container["Id"].as_str().unwrap_or_default();
            let answer = self.api.call(Method::GET, &format!("/containers/{id}/json"), None).await?;
            if answer.status == 200 {
                tasks.extend(shape::tasks(&answer.body));
            }
        }
        Ok(Answer { status: 200, body: tasks.into() })
    }

    /// Secrets or configs: those of the deployment under way, and those that containers have.
    async fn files(&self, kind: Kind) -> Result<Vec<Value>, Fault> {
        let containers = self.labelled(SERVICE_LABEL).await?;
        let mut all: BTreeMap<String, Value> =
            containers.iter().flat_map(shape::files_of).filter(|it| it.0 == kind).map(|it| (it.1, it.2)).collect();
        let given = self.files.lock();
        let given = given.iter().filter(|((it, _), _)| *it == kind);
        all.extend(given.map(|((_, name), body)| (name.clone(), shape::file(kind, body))));
        Ok(all.into_values().collect())
    }

    async fn file(&self, kind: Kind, name: &str) -> Result<Answer, Fault> {
        let found = self.files(kind).await?.into_iter().find(|it| it["Spec"]["Name"] == name);
        Ok(match found {
            Some(body) => Answer { status: 200, body },
            None => missing(&format!("{} {name} not found", kind.word())),
        })
    }

    async fn networks(&self, path: &str) -> Result<Answer, Fault> {
        let mut answer = self.api.call(Method::GET, path, None).await?;
        match &mut answer.body {
            Value::Array(all) => all.iter_mut().for_each(shape::network),
            one => shape::network(one),
        }
        Ok(answer)
    }

    async fn nodes(&self) -> Result<Answer, Fault> {
        let info = good(self.api.call(Method::GET, "/info", None).await?, "info")?;
        Ok(Answer { status: 200, body: json!([shape::node(&info)]) })
    }
}

/// The body of a good answer.
fn good(answer: Answer, what: &str) -> Result<Value, Fault> {
    if (200..300).contains(&answer.status) || answer.status == 304 {
        return Ok(answer.body);
    }
    let message = answer.body["message"].as_str().unwrap_or("no reason is given").to_owned();
    Err(Fault::Refused { what: what.to_owned(), status: answer.status, message })
}

fn missing(message: &str) -> Answer {
    Answer { status: StatusCode::NOT_FOUND.as_u16(), body: json!({"message": message}) }
}

/// The first value of a filter.
fn first(filters: &Value, key: &str) -> Option<String> {
    let value = &filters[key];
    let text = value.get(0).and_then(Value::as_str).map(str::to_owned);
    text.or_else(|| value.as_object().and_then(|it| it.keys().next().cloned()))
}

/// The path and the filters of a request.
fn parsed(path: &str) -> (&str, Value) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let filters = query.split('&').find_map(|it| it.strip_prefix("filters="));
    let filters = filters.map(unescaped).and_then(|text| serde_json::from_str(&text).ok());
    (path, filters.unwrap_or(Value::Null))
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, more)) = rest.split_first() {
        let number = more.get(..2).and_then(|it| u8::from_str_radix(std::str::from_utf8(it).ok()?, 16).ok());
        match (byte, number) {
            (b'%', Some(number)) => {
                bytes.push(number);
                rest = &more[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl<A: Raw> Api for OneEngine<A> {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Fault> {
        let (plain, filters) = parsed(path);
        let parts: Vec<&str> = plain.trim_matches('/').split('/').collect();
        let none = Value::Null;
        let sent = body.unwrap_or(&none);
        let kind = |text: &str| if text == "secrets" { Kind::Secret } else { Kind::Config };
        match (method.as_str(), parts.as_slice()) {
            ("GET", ["services"]) => self.services(&filters).await,
            ("GET", ["services", name]) => self.service(name).await,
            ("GET", ["tasks"]) => self.tasks(&filters).await,
            ("GET", ["nodes"]) => self.nodes().await,
            ("GET", ["networks"] | ["networks", _]) => self.networks(path).await,
            ("GET", [of @ ("secrets" | "configs")]) => {
                Ok(Answer { status: 200, body: self.files(kind(of)).await?.into() })
            }
            ("GET", [of @ ("secrets" | "configs"), name]) => self.file(kind(of), name).await,
            ("POST", [of @ ("secrets" | "configs"), "create"]) => {
                let name = sent["Name"].as_str().unwrap_or_default();
                self.content(kind(of), name, sent);
                Ok(Answer { status: 201, body: json!({"ID": name}) })
            }
            ("DELETE", [of @ ("secrets" | "configs"), name]) => {
                self.files.lock().remove(&(kind(of), (*name).to_owned()));
                Ok(Answer { status: 204, body: Value::Null })
            }
            ("POST", ["networks", "create"]) => self.api.call(method, path, Some(&shape::network_body(sent))).await,
            ("DELETE", ["networks", _]) => {
                let mut answer = self.api.call(method, path, None).await?;
                let message = answer.body["message"].as_str().unwrap_or_default();
                if message.contains("active endpoints") {
                    answer.body["message"] = format!("{message}: it is in use").into();
                }
                Ok(answer)
            }
            ("POST", ["services", "create"]) => self.create_service(sent).await,
            ("POST", ["services", name, "update"]) => self.update_service(name, sent).await,
            ("DELETE", ["services", name]) => self.remove_service(name).await,
            _ => self.api.call(method, path, body).await,
        }
    }

    async fn pieces(&self, path: &str) -> Result<Pieces, Fault> {
        let (plain, _) = parsed(path);
        let parts: Vec<&str> = plain.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["services", name, "logs"] => self.logs(name, path).await,
            _ => self.api.pieces(path).await,
        }
    }

    fn content(&self, kind: Kind, name: &str, body: &Value) {
        self.files.lock().insert((kind, name.to_owned()), body.clone());
    }

    async fn settle(&self, stack: &str) -> Result<(), Fault> {
        let all = self.labelled(&format!("{STACK_LABEL}={stack}")).await?;
        for container in all.iter().filter(|it| shape::is_former(it)) {
            self.remove(container["Id"].as_str().unwrap_or_default()).await?;
        }
        Ok(())
    }
}

/// The name under which a container is kept while its successor is not known to run.
fn former(name: &str) -> String {
    format!("{name}{FORMER}")
}
