//! Lists and versions of resources: `limit`, `after`, `filter`, `ETag`, `If-Match`.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::problem::Problem;
use super::v2::{Answered, ok};
use crate::{Call, Reply};

/// Entries of a list that come in one answer where the client names no number.
const LIST_MAX: usize = 1000;

/// A list: what `filter` asks for, from `after` on, with at most `limit` entries.
pub(crate) fn paged(call: &Call, mut all: Vec<Value>, key: &str) -> Answered {
    let limit = match call.query.get("limit") {
        None => LIST_MAX,
        Some(text) => text.parse().map_err(|_| Problem::bad_request(format!("limit: `{text}` is no number")))?,
    };
    if let Some(filter) = call.query.get("filter") {
        let conditions = conditions(filter)?;
        all.retain(|item| conditions.iter().all(|(path, value)| fits(item, path, value)));
    }
    if let Some(after) = call.query.get("after")
        && let Some(at) = all.iter().position(|it| it[key] == after)
    {
        all.drain(..=at);
    }
    let more = all.len() > limit;
    all.truncate(limit);
    ok(&json!({"items": all, "more": more}))
}

/// The conditions of `filter=state=active,labels.env=prod`: paths of members and their values.
fn conditions(filter: &str) -> Result<Vec<(Vec<&str>, &str)>, Problem> {
    let condition = |text| {
        let wrong = || Problem::bad_request(format!("filter: `{text}` is not MEMBER=VALUE"));
        let (path, value) = str::split_once(text, '=').ok_or_else(wrong)?;
        Ok((path.split('.').collect(), value))
    };
    filter.split(',').map(condition).collect()
}

/// True if a member has this value. A number, a truth value or null counts as it is written in JSON.
fn fits(item: &Value, path: &[&str], value: &str) -> bool {
    let member = path.iter().fold(item, |item, name| &item[*name]);
    let written = member.to_string();
    member.as_str().unwrap_or(&written) == value
}

/// An answer with the version of what it shows.
pub(crate) fn tagged(mut reply: Reply, version: Option<u64>) -> Reply {
    if let Some(Ok(tag)) = version.map(|version| HeaderValue::from_str(&format!("\"{version}\""))) {
        reply.headers_mut().insert(header::ETAG, tag);
    }
    reply
}

/// Refuses a write whose `If-Match` names another version.
pub(crate) fn if_match(headers: &HeaderMap, what: &str, version: Option<u64>) -> Result<(), Problem> {
    let Some(wanted) = headers.get(header::IF_MATCH).and_then(|it| it.to_str().ok()) else { return Ok(()) };
    let present = version.map_or_else(|| "none".to_owned(), |version| format!("\"{version}\""));
    if wanted == present || (wanted == "*" && version.is_some()) {
        return Ok(());
    }
    let detail = format!("the {what}'s version is {present}, not {wanted}; read it again");
    Err(Problem::new(StatusCode::PRECONDITION_FAILED, "version_mismatch", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_keeps_items_with_these_values() {
        let items = [
            json!({"name": "a", "state": "active", "revision": 3, "labels": {"env": "prod"}}),
            json!({"name": "b", "state": "failed", "revision": 3, "error": null}),
        ];
        let check = |filter: &str, expected: &str| {
            let conditions = conditions(filter).map_err(|problem| problem.detail);
            let kept = conditions.map(|conditions| {
                let kept = items.iter().filter(|item| conditions.iter().all(|(path, value)| fits(item, path, value)));
                kept.filter_map(|item| item["name"].as_str()).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(kept.unwrap_or_else(|refused| refused), expected, "{filter}");
        };
        check("state=active", "a");
        check("revision=3", "a b");
        check("revision=3,labels.env=prod", "a");
        check("error=null", "a b");
        check("name=c", "");
        check("name", "filter: `name` is not MEMBER=VALUE");
    }
}
