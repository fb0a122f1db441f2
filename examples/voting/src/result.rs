//! The result page: shows the counts and follows them by server-sent events.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::http::{self, Request};
use crate::{hostname, setting, store};

/// Interval at which the store is asked for the counts while a browser looks. As in the original application.
const POLL_PERIOD: Duration = Duration::from_secs(1);

pub(crate) fn run() -> io::Result<()> {
    let address = setting("STORE", "store:7002");
    http::serve(move |request, stream| answer(&address, &request, stream))
}

fn answer(address: &str, request: &Request, stream: &mut TcpStream) -> io::Result<()> {
    match request.path.as_str() {
        "/" => http::reply(stream, "200 OK", "text/html; charset=utf-8", "", &page()),
        "/scores" => match store::ask(address, "COUNT") {
            Ok(scores) => http::reply(stream, "200 OK", "application/json", "", &scores),
            Err(error) => {
                http::reply(stream, "503 Service Unavailable", "text/plain", "", &format!("store {address}: {error}\n"))
            }
        },
        "/events" => follow(address, stream),
        _ => http::reply(stream, "404 Not Found", "text/plain", "", "not found\n"),
    }
}

/// Sends the counts as they are and whenever they change, until the browser leaves.
fn follow(address: &str, stream: &mut TcpStream) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )?;
    let mut shown = String::new();
    loop {
        match store::ask(address, "COUNT") {
            Ok(scores) if scores != shown => {
                write!(stream, "event: scores\ndata: {scores}\n\n")?;
                shown = scores;
            }
            // A comment line finds out whether the browser is still there.
            Ok(_) => write!(stream, ": same\n\n")?,
            Err(error) => write!(stream, ": store {error}\n\n")?,
        }
        thread::sleep(POLL_PERIOD);
    }
}

fn page() -> String {
    let (a, b) = (setting("OPTION_A", "Cats"), setting("OPTION_B", "Dogs"));
    format!(
        r#"<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{a} vs {b}: result</title>
<style>body{{font:18px system-ui;margin:0;display:flex;flex-direction:column;height:100vh}}main{{flex:1;display:flex}}
main div{{display:grid;place-content:center;text-align:center;color:#fff;min-width:12rem;transition:flex-grow .5s;flex:1}}
#a{{background:#1aa3c4}}#b{{background:#0b6e8a}}b{{font-size:3rem;display:block}}footer{{padding:.5rem;text-align:center;color:#667}}</style>
<main><div id="a"><b>–</b>{a}</div><div id="b"><b>–</b>{b}</div></main><footer><span id="n">no votes yet</span> · served by container {}</footer>
<script>new EventSource("events").addEventListener("scores",e=>{{const s=JSON.parse(e.data),n=s.a+s.b;for(const k of"ab"){{const d=document.getElementById(k);
d.style.flexGrow=n?1+3*s[k]/n:1;d.firstChild.textContent=n?(100*s[k]/n).toFixed(1)+"%":"–"}}document.getElementById("n").textContent=n?n+(n==1?" vote":" votes"):"no votes yet"}})</script></html>
"#,
        hostname()
    )
}
