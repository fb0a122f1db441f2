//! `/herder/ui/`: pages that show the ingress to browsers. They only read, have no script, and come anew every few seconds.

use std::fmt::Write as _;
use std::sync::Arc;

use herder_pool::full;
use http::{HeaderValue, Response, header};
use serde_json::Value;

use crate::{ApiError, Call, Front, Reply, swarm};

/// Path of the pages; links are relative to it.
const BASE: &str = "/herder/ui/";
/// Nothing is loaded, nothing is sent, and no other page shows these.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const PAGES: [(&str, &str); 3] = [("", "Routes"), ("certificates", "Certificates"), ("problems", "Problems")];
const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:0;color:#1d2733;background:#f6f7f9}\
    header{background:#1d3557;color:#fff;padding:.7em 1.5em;display:flex;gap:1.5em;align-items:baseline}\
    header b{font-size:1.2em}header a{color:#cfe0f5;text-decoration:none;padding-bottom:.2em}\
    header a.here{color:#fff;border-bottom:2px solid #fff}main{padding:1em 1.5em}table{border-collapse:collapse;width:100%;background:#fff}\
    th,td{text-align:left;padding:.45em .8em;border-bottom:1px solid #e3e7ec;vertical-align:top}\
    th{background:#eef1f5;font-weight:600}code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}\
    .good{color:#1a7f37}.bad{color:#b42318}.count{background:#b42318;color:#fff;border-radius:1em;padding:0 .5em;font-size:.85em}";

/// `GET /herder/ui/`: the routes.
pub(crate) async fn routes(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let shown = swarm::ingress::shown(front).await?;
    let mut rows = String::new();
    for it in list(&shown["Routes"]) {
        let (serving, draining) = (it["Serving"].as_u64().unwrap_or(0), it["Draining"].as_u64().unwrap_or(0));
        let class = if serving == 0 { "bad" } else { "good" };
        let leaving = if draining == 0 { String::new() } else { format!(" ({draining} draining)") };
        let tls = match (&it["Tls"], it["Tls"]["resolver"].as_str()) {
            (Value::Null, _) => "–".to_owned(),
            (_, None | Some("")) => "yes".to_owned(),
            (_, Some(resolver)) => escaped(resolver),
        };
        let _ = write!(
            rows,
            "<tr><td>{}<td><code>{}</code><td>{}<td>{tls}<td>{}<td>{}<td class={class}>{serving}{leaving}",
            escaped(text(&it["Name"])),
            escaped(text(&it["Rule"])),
            names(&it["Entrypoints"], "all"),
            names(&it["Middlewares"], "–"),
            escaped(text(&it["Service"])),
        );
    }
    let nodes = names(&shown["Nodes"], "none");
    let head = ["Route", "Rule", "Entrypoints", "TLS", "Middlewares", "Service", "Tasks"];
    let body = match shown["Enabled"] == true {
        true => format!("<p>Nodes that listen: {nodes}</p>{}", table(&head, &rows, "No service has routes.")),
        false => "<p>The ingress is not enabled. <code>herder ingress enable</code> lets nodes listen.</p>".to_owned(),
    };
    Ok(page("", &shown, &body))
}

/// `GET /herder/ui/certificates`.
pub(crate) async fn certificates(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let shown = swarm::ingress::shown(front).await?;
    let all = swarm::ingress::listed(front).await?;
    let mut rows = String::new();
    for it in &all {
        let class = if it["state"] == "valid" { "good" } else { "bad" };
        let ends = it["not_after"].as_i64().filter(|it| *it != 0).and_then(|it| jiff::Timestamp::from_second(it).ok());
        let _ = write!(
            rows,
            "<tr><td>{}<td>{}<td>{}<td class={class}>{}<td>{}<td>{}",
            escaped(text(&it["Name"])),
            names(&it["names"], "–"),
            escaped(Some(text(&it["resolver"])).filter(|it| !it.is_empty()).unwrap_or(text(&it["source"]))),
            escaped(text(&it["state"])),
            ends.map_or_else(|| "–".to_owned(), |it| it.to_string()),
            escaped(text(&it["last_error"])),
        );
    }
    let head = ["Name", "Hosts", "From", "State", "Ends", "Last error"];
    Ok(page("certificates", &shown, &table(&head, &rows, "There are no certificates.")))
}

/// `GET /herder/ui/problems`.
pub(crate) async fn problems(front: &Arc<Front>, _: Call) -> Result<Reply, ApiError> {
    let shown = swarm::ingress::shown(front).await?;
    let mut rows = String::new();
    for it in list(&shown["Problems"]) {
        let service = Some(text(&it["Service"])).filter(|it| !it.is_empty()).unwrap_or("–");
        let (label, why) = (escaped(text(&it["Label"])), escaped(text(&it["Text"])));
        let _ = write!(rows, "<tr><td>{}<td><code>{label}</code><td>{why}", escaped(service));
    }
    let none = "All labels can be used, and all certificates are there.";
    Ok(page("problems", &shown, &table(&["Service", "Label", "Problem"], &rows, none)))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn names(value: &Value, none: &str) -> String {
    let all: Vec<String> = list(value).iter().map(|it| escaped(text(it))).collect();
    if all.is_empty() { none.to_owned() } else { all.join(", ") }
}

/// Text as HTML shows it. What labels say comes from strangers.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            it => out.push(it),
        }
    }
    out
}

fn table(head: &[&str], rows: &str, none: &str) -> String {
    if rows.is_empty() {
        return format!("<p>{none}</p>");
    }
    let head: String = head.iter().map(|it| format!("<th>{it}")).collect();
    format!("<table><thead><tr>{head}<tbody>{rows}</table>")
}

fn page(here: &str, shown: &Value, body: &str) -> Reply {
    let problems = list(&shown["Problems"]).len();
    let mut links = String::new();
    for (at, title) in PAGES {
        let class = if at == here { " class=here" } else { "" };
        let count = match (at, problems) {
            ("problems", 1..) => format!(" <span class=count>{problems}</span>"),
            _ => String::new(),
        };
        let _ = write!(links, "<a href=\"{BASE}{at}\"{class}>{title}{count}</a>");
    }
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>herder: ingress</title><meta http-equiv=refresh content=5>\
         <meta name=viewport content=\"width=device-width\"><style>{STYLE}</style><header><b>herder</b>{links}</header><main>{body}</main></html>"
    );
    let mut reply = Response::new(full(html));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_page_shows_text_and_no_markup_of_strangers() {
        assert_eq!(
            escaped("<script>alert(\"a\" + 'b' & c)</script>"),
            "&lt;script&gt;alert(&quot;a&quot; + &#39;b&#39; &amp; c)&lt;/script&gt;"
        );
        assert_eq!(names(&json!(["a", "<b>"]), "none"), "a, &lt;b&gt;");
        assert_eq!(names(&json!([]), "none"), "none");
        let reply = page("problems", &json!({"Problems": [{}, {}]}), "<p>x</p>");
        assert!(
            reply.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text").contains("default-src 'none'")
        );
        let html = reply.into_body().collect().await.expect("a body").to_bytes();
        let html = String::from_utf8(html.to_vec()).expect("text");
        assert!(
            html.contains("<a href=\"/herder/ui/problems\" class=here>Problems <span class=count>2</span></a>"),
            "{html}"
        );
        assert!(html.contains("<main><p>x</p></main>") && !html.contains("<script"), "{html}");
    }
}
