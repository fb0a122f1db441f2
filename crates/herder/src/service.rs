//! `herder service scale` and `herder service update`: change a service, and with `--watch` follow its tasks until they
//! match.

mod progress;
mod watch;

pub(crate) use watch::Events;

use anyhow::{Context as _, bail};
use herder_cli::{ServiceArgs, ServiceUpdate, ServiceVerb};
use herder_docker::{classify, full};
use http::{Method, Request, header};
use serde_json::{Value, json};

use crate::door::Door;

/// Attempts at a change when the service was written meanwhile.
const ATTEMPTS_MAX: u32 = 5;

pub(crate) async fn run(asked: ServiceArgs) -> anyhow::Result<()> {
    match asked.verb {
        ServiceVerb::Scale(scale) => {
            let door = Door::of(&scale.door)?;
            let targets: Vec<(String, Edit)> = scale
                .targets
                .iter()
                .map(|it| (it.service.clone(), Edit { replicas: Some(it.replicas), ..Edit::default() }))
                .collect();
            declare(&door, &targets, scale.watch.watch, scale.watch.timeout, "scaled").await
        }
        ServiceVerb::Update(update) => {
            let door = Door::of(&update.door)?;
            let edit = Edit::of(&update)?;
            let (watch, timeout) = (update.watch.watch, update.watch.timeout);
            declare(&door, &[(update.service, edit)], watch, timeout, "updated").await
        }
    }
}

async fn declare(
    door: &Door,
    targets: &[(String, Edit)],
    watch: bool,
    timeout: Option<std::time::Duration>,
    word: &str,
) -> anyhow::Result<()> {
    // All are looked up before the first one is changed.
    let mut ids = Vec::new();
    for (name, edit) in targets {
        let service = inspect(door, name).await?;
        edit.apply(service["Spec"].clone()).with_context(|| format!("service {name}"))?;
        ids.push(service["ID"].as_str().unwrap_or_default().to_owned());
    }
    // Listened to before anything changes, so that nothing is missed.
    let events = if watch { Some(watch::Events::open(door, None).await?) } else { None };
    for ((name, edit), id) in targets.iter().zip(&ids) {
        change(door, id, edit).await.with_context(|| format!("service {name}"))?;
        if !watch {
            match edit.replicas.filter(|_| word == "scaled") {
                Some(replicas) => anstream::println!("{name} scaled to {replicas}"),
                None => anstream::println!("{name} {word}"),
            }
        }
    }
    let Some(events) = events else { return Ok(()) };
    let followed = watch::follow(door, events, &ids);
    let Some(limit) = timeout else { return followed.await };
    match tokio::time::timeout(limit, followed).await {
        Ok(outcome) => outcome,
        Err(_) => {
            bail!("service did not converge within {limit:?}; `herder why {}` shows what tasks wait for", targets[0].0)
        }
    }
}

pub(crate) async fn inspect(door: &Door, name: &str) -> anyhow::Result<Value> {
    // Ids and names of swarm mode need no escaping; a door refuses others.
    door.ask(Method::GET, &format!("/services/{name}")).await
}

/// Reads the service, changes what is asked for and nothing else, and writes it.
async fn change(door: &Door, id: &str, edit: &Edit) -> anyhow::Result<()> {
    let mut attempts = 1;
    loop {
        let service = inspect(door, id).await?;
        let version = service["Version"]["Index"].as_u64().unwrap_or_default();
        let spec = edit.apply(service["Spec"].clone())?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/services/{id}/update?version={version}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(full(spec.to_string()))?;
        let response = door.send(request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        let refusal = door.refusal(response).await;
        if !classify::is_out_of_date(&refusal.to_string()) || attempts == ATTEMPTS_MAX {
            return Err(refusal);
        }
        attempts += 1;
    }
}

/// Changes to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Edit {
    replicas: Option<u64>,
    image: Option<String>,
    /// Names and values.
    env: Vec<(String, String)>,
    env_rm: Vec<String>,
    force: bool,
}

impl Edit {
    fn of(asked: &ServiceUpdate) -> anyhow::Result<Edit> {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => bail!("--env `{text}` must be NAME=VALUE"),
        };
        let edit = Edit {
            replicas: asked.replicas,
            image: asked.image.clone(),
            env: asked.env.iter().map(pair).collect::<anyhow::Result<_>>()?,
            env_rm: asked.env_rm.clone(),
            force: asked.force,
        };
        if edit == Edit::default() {
            bail!("nothing to update: say --image, --env, --env-rm, --replicas or --force");
        }
        Ok(edit)
    }

    /// The specification as it shall be. What is not spoken of stays, known or not.
    fn apply(&self, mut spec: Value) -> anyhow::Result<Value> {
        if let Some(replicas) = self.replicas {
            if spec["Mode"]["Replicated"].is_null() {
                bail!("only a replicated service has a number of replicas");
            }
            spec["Mode"]["Replicated"]["Replicas"] = replicas.into();
        }
        let template = &mut spec["TaskTemplate"];
        if let Some(image) = &self.image {
            template["ContainerSpec"]["Image"] = image.as_str().into();
        }
        if !self.env.is_empty() || !self.env_rm.is_empty() {
            let old = template["ContainerSpec"]["Env"].as_array().cloned().unwrap_or_default();
            let name = |it: &Value| it.as_str().and_then(|it| it.split('=').next()).unwrap_or_default().to_owned();
            let goes = |it: &Value| self.env_rm.contains(&name(it)) || self.env.iter().any(|(key, _)| *key == name(it));
            let kept = old.into_iter().filter(|it| !goes(it));
            let added = self.env.iter().map(|(name, value)| json!(format!("{name}={value}")));
            template["ContainerSpec"]["Env"] = kept.chain(added).collect();
        }
        if self.force {
            template["ForceUpdate"] = (template["ForceUpdate"].as_u64().unwrap_or_default() + 1).into();
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_changes_what_it_names_and_nothing_else() {
        let spec = json!({
            "Name": "web", "Other": 7, "Mode": {"Replicated": {"Replicas": 1}},
            "TaskTemplate": {"ContainerSpec": {"Image": "a", "Env": ["A=1", "B=2", "C"]}},
        });
        let check = |edit: Edit, pointer: &str, expected: Value| {
            let after = edit.apply(spec.clone()).expect("applied");
            assert_eq!(after.pointer(pointer), Some(&expected));
            let mut back = after;
            *back.pointer_mut(pointer).expect("there") = spec.pointer(pointer).cloned().unwrap_or_default();
            if spec.pointer(pointer).is_some() {
                assert_eq!(back, spec);
            }
        };
        let none = Edit::default();
        check(Edit { replicas: Some(3), ..none.clone() }, "/Mode/Replicated/Replicas", json!(3));
        check(Edit { image: Some("b".into()), ..none.clone() }, "/TaskTemplate/ContainerSpec/Image", json!("b"));
        check(Edit { force: true, ..none.clone() }, "/TaskTemplate/ForceUpdate", json!(1));
        let env = Edit { env: vec![("A".into(), "x=y".into())], env_rm: vec!["C".into()], ..none.clone() };
        check(env, "/TaskTemplate/ContainerSpec/Env", json!(["B=2", "A=x=y"]));
        let global = json!({"Mode": {"Global": {}}});
        Edit { replicas: Some(1), ..none }.apply(global).expect_err("a global service has none");
    }
}
