//! The vote page: two buttons; a cookie keeps voters apart.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::net::TcpStream;
use std::time::SystemTime;

use crate::http::{self, Request};
use crate::{hostname, setting, wire};

pub(crate) fn run() -> io::Result<()> {
    let queue = setting("QUEUE", "queue:7001");
    http::serve(move |request, stream| answer(&queue, &request, stream))
}

fn answer(queue: &str, request: &Request, stream: &mut TcpStream) -> io::Result<()> {
    let voter = voter(request).unwrap_or_else(fresh_voter);
    let cookie = format!("Set-Cookie: voter_id={voter}; Path=/; SameSite=Lax\r\n");
    match (request.method.as_str(), chosen(&request.body)) {
        ("GET", _) => http::reply(stream, "200 OK", "text/html; charset=utf-8", &cookie, &page(None)),
        ("POST", Some(vote)) => match wire::ask(queue, &format!("PUSH {voter} {vote}")) {
            Ok(answer) if answer == "OK" => {
                http::reply(stream, "200 OK", "text/html; charset=utf-8", &cookie, &page(Some(vote)))
            }
            Ok(answer) => {
                http::reply(stream, "503 Service Unavailable", "text/plain", "", &format!("queue: {answer}\n"))
            }
            Err(error) => {
                http::reply(stream, "503 Service Unavailable", "text/plain", "", &format!("queue {queue}: {error}\n"))
            }
        },
        ("POST", None) => {
            http::reply(stream, "400 Bad Request", "text/plain", "", "expected the form field vote=a or vote=b\n")
        }
        _ => http::reply(stream, "405 Method Not Allowed", "text/plain", "Allow: GET, POST\r\n", ""),
    }
}

/// `vote=a` or `vote=b` of the form.
fn chosen(body: &str) -> Option<&'static str> {
    let value = body.split('&').find_map(|pair| pair.trim().strip_prefix("vote="))?;
    ["a", "b"].into_iter().find(|option| *option == value)
}

fn voter(request: &Request) -> Option<String> {
    let cookies = request.headers.get("cookie")?;
    let id = cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix("voter_id="))?;
    let plain = !id.is_empty() && id.len() <= 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| id.to_owned())
}

fn fresh_voter() -> String {
    format!("{:x}", RandomState::new().hash_one(SystemTime::now()))
}

fn page(vote: Option<&str>) -> String {
    let (a, b) = (setting("OPTION_A", "Cats"), setting("OPTION_B", "Dogs"));
    let mark = |option: &str| if vote == Some(option) { " ✓" } else { "" };
    format!(
        r#"<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{a} vs {b}</title>
<style>body{{font:18px system-ui;margin:10vh auto;max-width:26rem;text-align:center}}
button{{display:block;width:100%;padding:1.2rem;margin:1rem 0;font-size:1.6rem;border:0;border-radius:.5rem;color:#fff;cursor:pointer}}
[value=a]{{background:#1aa3c4}}[value=b]{{background:#0b6e8a}}footer{{color:#667}}</style>
<h1>{a} vs {b}</h1><form method="post"><button name="vote" value="a">{a}{}</button><button name="vote" value="b">{b}{}</button></form>
<footer>Served by container {}</footer></html>
"#,
        mark("a"),
        mark("b"),
        hostname()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_options_are_votes() {
        for (body, expected) in
            [("vote=a", Some("a")), ("x=1&vote=b", Some("b")), ("vote=c", None), ("vote=a b", None), ("", None)]
        {
            assert_eq!(chosen(body), expected, "{body}");
        }
    }
}
