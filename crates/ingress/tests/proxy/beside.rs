//! Services that are asked beside the one that a route leads to.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::edge::{Edge, PATIENCE, backends, head, state, status};

/// An ingress with a service that lets in whoever has the cookie `let=in`, and tells what it was asked.
async fn guarded() -> Edge {
    let mut edge = Edge::new();
    edge.echo("web").await;
    edge.task("gate", |mut stream| async move {
        while let Some(head) = head(&mut stream).await? {
            let asked = head.replace("\r\n", "|");
            let answer = if head.contains("cookie: let=in") {
                "HTTP/1.1 204 No Content\r\nremote-user: alice\r\nremote-groups: a\r\nother: x\r\n\r\n".to_owned()
            } else {
                format!("HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: {}\r\n\r\n{asked}", asked.len())
            };
            stream.write_all(answer.as_bytes()).await?;
        }
        Ok(())
    })
    .await;
    let auth = json!({
        "kind": "forwardauth", "address": "http://gate:9091/verify?x=1", "service": "gate",
        "response_headers": ["remote-user"], "response_regex": "^Remote-G", "user_header": "remote-user",
    });
    edge.apply(state(
        json!({"r": {"rule": "Host(`a`)", "service": "web", "middlewares": ["auth"]}}),
        json!({"auth": auth}),
        json!({
            "web": {"pass_host": true, "backends": backends(&[("web", "serving")])},
            "gate": {"pass_host": true, "backends": backends(&[("gate", "serving")])},
        }),
    ));
    edge
}

#[tokio::test]
async fn another_service_says_who_may_pass() {
    let edge = guarded().await;
    let post = "POST /p?q=1 HTTP/1.1\nhost: a\nx-forwarded-uri: /else\nremote-user: root\ncontent-length: 0\n";
    let refused = edge.ask(post).await;
    assert_eq!(status(&refused), "302", "{refused}");
    assert!(refused.contains("location: http://gate:9091/login\r\n"), "{refused}");
    for part in [
        "GET /verify?x=1 HTTP/1.1|",
        "|host: gate:9091|",
        "|x-forwarded-method: POST|",
        "|x-forwarded-uri: /p?q=1|",
        "|x-forwarded-host: a|",
        "|x-forwarded-for: 127.0.0.1|",
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    assert!(!refused.contains("content-length: 0|"), "the question has no body: {refused}");
    let passed = edge.ask(&format!("{post}cookie: let=in\n")).await;
    for part in ["web\nPOST /p?q=1 HTTP/1.1", "remote-user: alice\r\n", "remote-groups: a\r\n"] {
        assert!(passed.contains(part), "{part} in {passed}");
    }
    assert!(!passed.contains("root") && !passed.contains("other: x"), "{passed}");
    // Without an answer nobody passes.
    let mut edge = edge;
    edge.apply(json!({"settings": {"entrypoints": {"web": {"address": "127.0.0.1:0"}}},
        "routes": {"r": {"rule": "Host(`a`)", "service": "web", "middlewares": ["auth"]}},
        "middlewares": {"auth": {"kind": "forwardauth", "address": "http://gate:9091/", "service": "gate"}},
        "services": {"web": {"backends": backends(&[("web", "serving")])}, "gate": {"backends": {}}}}));
    assert_eq!(status(&edge.ask("GET / HTTP/1.1\nhost: a\ncookie: let=in\n").await), "500");
}

#[tokio::test]
async fn another_service_has_the_pages_of_errors() {
    let mut edge = Edge::new();
    edge.echo("pages").await;
    edge.apply(state(
        json!({"r": {"rule": "Host(`a`)", "service": "web", "middlewares": ["errors"]}}),
        json!({"errors": {"kind": "errors", "status": [[404, 404], [500, 599]], "service": "pages", "query": "/{status}.html?u={url}"}}),
        json!({
            "web": {"backends": backends(&[("web", "down")])},
            "pages": {"pass_host": true, "backends": backends(&[("pages", "serving")])},
        }),
    ));
    let answer =
        edge.ask("POST /x HTTP/1.1\nhost: a\ncontent-length: 0\naccept: text/html\nauthorization: secret\n").await;
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(answer.contains("pages\nGET /503.html?u=http%3A%2F%2Fa%2Fx HTTP/1.1"), "{answer}");
    assert!(answer.contains("accept: text/html") && !answer.contains("secret"), "{answer}");
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let mut edge = Edge::new();
    edge.echo("web").await;
    edge.apply(state(
        json!({"r": {"rule": "Host(`a`)", "service": "web", "middlewares": ["limit"]}}),
        json!({"limit": {"kind": "buffering", "max_request_bytes": 5}}),
        json!({"web": {"pass_host": true, "backends": backends(&[("web", "serving")])}}),
    ));
    for (request, expected) in [
        ("content-length: 5\r\n\r\nhello", "200"),
        ("content-length: 6\r\n\r\nhello!", "413"),
        ("transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "200"),
        ("transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "413"),
    ] {
        let mut stream = TcpStream::connect(edge.at("web")).await.expect("it listens");
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{request}");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        // What is refused may be closed before all of it was read.
        let _ = timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time");
        assert_eq!(status(&answer), expected, "{request}");
        assert!(expected != "200" || answer.ends_with("hello"), "{answer}");
    }
}
