//! Requests that could be understood in two ways, each in `smuggling.txt`. A row has what the client is answered, and
//! what the task behind sees.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::edge::{Edge, PATIENCE, backends, state};

const NEXT: &str = "GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

type Log = Arc<Mutex<Vec<String>>>;

/// A task that writes down each request with its framing and its body. It reads as strictly as RFC 9112 wants
/// it.
async fn strict(edge: &Edge, log: Log) {
    edge.task("t", move |stream| {
        let log = log.clone();
        async move {
            let mut stream = BufReader::new(stream);
            loop {
                let mut head = Vec::new();
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await? == 0 {
                        return Ok(());
                    }
                    if line == "\r\n" {
                        break;
                    }
                    head.push(line.trim_end().to_owned());
                }
                let of = |name: &str| {
                    let all = head.iter().skip(1).filter_map(|it| it.split_once(": "));
                    all.filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, it)| it.to_owned()).collect::<Vec<_>>()
                };
                let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
                assert!(lengths.len() + codings.len() < 2, "one framing: {head:?}");
                assert_eq!(of("host"), ["a"]);
                let mut body = Vec::new();
                if let Some(length) = lengths.first() {
                    body.resize(length.parse().expect("a length"), 0);
                    stream.read_exact(&mut body).await?;
                } else if !codings.is_empty() {
                    loop {
                        let mut size = String::new();
                        stream.read_line(&mut size).await?;
                        let Ok(count) = usize::from_str_radix(size.trim(), 16) else { return Ok(()) };
                        let mut chunk = vec![0; count + 2];
                        stream.read_exact(&mut chunk).await?;
                        body.extend_from_slice(&chunk[..count]);
                        if count == 0 {
                            assert_eq!(chunk, b"\r\n", "no trailers");
                            break;
                        }
                    }
                }
                let framing = lengths.first().or(codings.first()).cloned().unwrap_or_else(|| "none".to_owned());
                let line = head.first().cloned().unwrap_or_default();
                log.lock().push(format!("{line} [{framing}] {:?}", String::from_utf8_lossy(&body)));
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
            }
        }
    })
    .await;
}

fn bytes(text: &str) -> Vec<u8> {
    let text = text.replace("\\r", "\r").replace("\\n", "\n").replace("\\t", "\t");
    let mut parts = text.split("\\x");
    let mut all = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        all.push(u8::from_str_radix(&part[..2], 16).expect("a byte"));
        all.extend_from_slice(&part.as_bytes()[2..]);
    }
    all
}

#[tokio::test]
async fn no_request_is_understood_in_two_ways() {
    let mut edge = Edge::new();
    let log = Log::default();
    strict(&edge, log.clone()).await;
    let routes = json!({"a": {"rule": "Host(`a`)", "service": "a"}});
    edge.apply(state(routes, json!({}), json!({"a": {"pass_host": true, "backends": backends(&[("t", "serving")])}})));
    let mut wrong = Vec::new();
    for case in include_str!("smuggling.txt").lines().filter(|it| !it.is_empty() && !it.starts_with('#')) {
        let mut parts = case.splitn(3, " | ");
        let (Some(name), Some(request), Some(expected)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("{case}")
        };
        log.lock().clear();
        let mut stream = TcpStream::connect(edge.at("web")).await.expect("it listens");
        let mut sent = bytes(request);
        sent.extend_from_slice(NEXT.as_bytes());
        // A connection that was refused already may not take the rest.
        let _ = stream.write_all(&sent).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time");
        let answer = String::from_utf8_lossy(&answer);
        let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).filter_map(|it| it.get(..3)).collect();
        let seen = log.lock().clone();
        let (statuses, seen) = (statuses.join(" "), seen.join(" ; "));
        let found = if seen.is_empty() { statuses.clone() } else { format!("{statuses} -> {seen}") };
        let is_right = match expected {
            "bad" => !statuses.contains("200") && !seen.contains("/x ") && !seen.contains("/next"),
            _ => found == expected.replace(" +next", ""),
        };
        if !is_right || found.contains("smuggled") {
            wrong.push(format!("{name}: {found}\n    not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A frame of HTTP/2 in the only stream.
fn frame(kind: u8, flags: u8, stream: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], body].concat()
}

/// Asks over HTTP/2 with these fields as they are, and a body: the status, or `reset`.
async fn ask_h2(edge: &Edge, fields: &str, body: &str) -> String {
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    let mut block = Vec::new();
    for field in fields.split('|') {
        let (name, value) = field.split_once('=').expect("a field");
        let (name, value) = (bytes(name), bytes(value));
        // Literal, not indexed, not compressed (RFC 7541, 6.2.2).
        for (at, text) in [&name, &value].into_iter().enumerate() {
            block.extend_from_slice(&[0][at..]);
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend_from_slice(text);
        }
    }
    let mut stream = TcpStream::connect(edge.at("web")).await.expect("it listens");
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(4, 0, 0, &[]));
    sent.extend(frame(1, if body.is_empty() { END_HEADERS | END_STREAM } else { END_HEADERS }, 1, &block));
    if !body.is_empty() {
        sent.extend(frame(0, END_STREAM, 1, body.as_bytes()));
    }
    let _ = stream.write_all(&sent).await;
    let answered = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return "reset".to_owned();
            }
            let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            if stream.read_exact(&mut body).await.is_err() {
                return "reset".to_owned();
            }
            match (head[3], body.first()) {
                (1, Some(0x88)) => return "200".to_owned(),
                (1, Some(0x8c)) => return "400".to_owned(),
                (1, other) => return format!("another status {other:?}"),
                (3 | 7, _) => return "reset".to_owned(),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, answered).await.expect("an answer in time")
}

#[tokio::test]
async fn nothing_comes_out_of_http2_that_frames_a_request_anew() {
    let mut edge = Edge::new();
    let log = Log::default();
    strict(&edge, log.clone()).await;
    let routes = json!({"a": {"rule": "Host(`a`)", "service": "a"}});
    edge.apply(state(routes, json!({}), json!({"a": {"pass_host": true, "backends": backends(&[("t", "serving")])}})));
    let good = ":method=POST|:scheme=http|:authority=a|:path=/x";
    for (fields, body, expected) in [
        ("", "", "200 POST /x HTTP/1.1 [none]"),
        ("", "abc", "200 POST /x HTTP/1.1 [chunked]"),
        ("|content-length=3", "abc", "200 POST /x HTTP/1.1 [3]"),
        ("|content-length=2", "abc", "reset"),
        ("|content-length=4", "abc", "reset"),
        ("|content-length=3|content-length=4", "abc", "reset"),
        ("|transfer-encoding=chunked", "0\r\n\r\n", "reset"),
        ("|connection=keep-alive", "", "reset"),
        ("|Upper=x", "", "reset"),
        ("|x=1\\r\\nhost: b", "", "reset"),
        ("|x=1\\x00", "", "reset"),
        ("|x y=1", "", "reset"),
        ("|host=b", "", "400"),
        ("|host=a", "", "200 POST /x HTTP/1.1 [none]"),
        ("|:path=/y", "", "reset"),
    ] {
        log.lock().clear();
        let answer = ask_h2(&edge, &format!("{good}{fields}"), body).await;
        let seen =
            log.lock().iter().map(|it| it.split(" \"").next().unwrap_or_default().to_owned()).collect::<Vec<_>>();
        let found = format!("{answer} {}", seen.join("; ")).trim().to_owned();
        assert_eq!(found, expected, "{fields} {body:?}");
    }
    for path in ["/x HTTP/1.1\\r\\nhost: b", "x", "/x\\x00", ""] {
        let answer = ask_h2(&edge, &format!(":method=GET|:scheme=http|:authority=a|:path={path}"), "").await;
        assert!(answer == "reset" || answer == "400", "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let mut edge = Edge::new();
    edge.echo("t").await;
    let routes = json!({"a": {"rule": "Host(`a`)", "service": "a"}});
    edge.apply(state(routes, json!({}), json!({"a": {"pass_host": true, "backends": backends(&[("t", "serving")])}})));
    let fields = |count: usize| (0..count).map(|at| format!("x-{at}: 1\n")).collect::<String>();
    for (fields, expected) in [
        (format!("x: {}\n", "a".repeat(60_000)), "200"),
        (format!("x: {}\n", "a".repeat(70_000)), "431"),
        (fields(90), "200"),
        (fields(101), "431"),
    ] {
        let answer = super::edge::ask(edge.at("web"), &format!("GET /x HTTP/1.1\nhost: a\n{fields}")).await;
        assert_eq!(super::edge::status(&answer), expected, "{} bytes", fields.len());
    }
    let target = format!("GET /{} HTTP/1.1\nhost: a\n", "a".repeat(70_000));
    let answer = super::edge::ask(edge.at("web"), &target).await;
    assert!(["414", "431"].contains(&super::edge::status(&answer)), "{answer}");
}
