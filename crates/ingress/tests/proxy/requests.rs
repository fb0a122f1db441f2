//! Requests go where they should, and none is lost.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::edge::{Edge, PATIENCE, ask, backends, head, state, status};

#[tokio::test]
async fn requests_go_where_rules_say_with_the_headers_of_a_proxy() {
    let mut edge = Edge::new();
    edge.echo("a1").await;
    edge.echo("b1").await;
    edge.apply(state(
        json!({
            "a": {"rule": "Host(`a`)", "service": "a", "priority": 9},
            "b": {"rule": "Host(`a`) && PathPrefix(`/b`)", "service": "b", "priority": 20, "middlewares": ["strip"]},
            "none": {"rule": "Host(`none`)", "service": "none", "priority": 9},
        }),
        json!({"strip": {"kind": "stripprefix", "prefixes": ["/b"]}}),
        json!({
            "a": {"pass_host": true, "backends": backends(&[("a1", "serving")])},
            "b": {"pass_host": true, "backends": backends(&[("b1", "serving")])},
            "none": {"backends": backends(&[("n1", "down")])},
        }),
    ));
    let answer = edge.ask("GET /x?y=1 HTTP/1.1\nhost: a\nx-forwarded-for: 6.6.6.6\nx-request-id: r1\n").await;
    for part in [
        "\r\na1\nGET /x?y=1 HTTP/1.1",
        "host: a\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-request-id: r1",
        "x-forwarded-proto: http",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    assert!(!answer.contains("6.6.6.6"), "{answer}");
    assert!(edge.ask("GET /b/y HTTP/1.1\nhost: a\n").await.contains("b1\nGET /y HTTP/1.1"));
    assert_eq!(status(&edge.ask("GET /%62/y HTTP/1.1\nhost: a\n").await), "200");
    assert!(edge.ask("GET /%62/y HTTP/1.1\nhost: a\n").await.contains("b1\n"), "no other route by percent signs");
    let posted = edge.ask("POST /p HTTP/1.1\nhost: a\ncontent-length: 0\n").await;
    assert!(posted.contains("a1\nPOST /p"), "{posted}");
    assert_eq!(status(&edge.ask("GET / HTTP/1.1\nhost: other\n").await), "404");
    let none = edge.ask("GET / HTTP/1.1\nhost: none\naccept: application/json\n").await;
    assert!(none.contains("503") && none.contains("{\"status\":503"), "{none}");
    assert_eq!(status(&edge.ask("GET /herder/ready HTTP/1.1\nhost: other\n").await), "200");
}

#[tokio::test]
async fn requests_that_could_be_understood_in_two_ways_are_refused() {
    let mut edge = Edge::new();
    edge.echo("a1").await;
    let routes = json!({"a": {"rule": "Host(`a`)", "service": "a"}});
    edge.apply(state(routes, json!({}), json!({"a": {"pass_host": true, "backends": backends(&[("a1", "serving")])}})));
    for (request, expected) in [
        ("GET / HTTP/1.1\n", "400"),
        ("GET / HTTP/1.1\nhost: a\nhost: b\n", "400"),
        ("GET http://b/ HTTP/1.1\nhost: a\n", "400"),
        ("GET http://a/ HTTP/1.1\nhost: a\n", "200"),
        ("GET /../x HTTP/1.1\nhost: a\n", "400"),
        ("GET /%2e%2e/x HTTP/1.1\nhost: a\n", "400"),
        ("GET / HTTP/1.1\nhost: a\nx: 1\n folded\n", "400"),
        ("POST / HTTP/1.1\nhost: a\ncontent-length: 3\ncontent-length: 4\n", "400"),
        ("POST / HTTP/1.1\nhost: a\ntransfer-encoding: gzip\n", "400"),
        ("POST / HTTP/1.1\nhost: a\ncontent-length: -1\n", "400"),
        ("CONNECT a:80 HTTP/1.1\nhost: a:80\n", "405"),
        ("GET / HTTP/1.1\nhost: a\nbad name: x\n", "400"),
    ] {
        assert_eq!(status(&edge.ask(request).await), expected, "{request}");
    }
    let many: String = (0..200).map(|it| format!("x{it}: 1\n")).collect();
    assert_eq!(status(&edge.ask(&format!("GET / HTTP/1.1\nhost: a\n{many}")).await), "431");
    // Two framings: the chunks count, the length goes no further.
    let mut stream = TcpStream::connect(edge.at("web")).await.expect("it listens");
    let smuggled = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n";
    stream.write_all(smuggled.as_bytes()).await.expect("written");
    let mut answer = String::new();
    let _ = timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer in time");
    assert!(status(&answer) == "400" || !answer.contains("content-length: 5"), "{answer}");
}

#[tokio::test]
async fn a_task_that_cannot_be_reached_is_passed_over() {
    let mut edge = Edge::new();
    edge.echo("good").await;
    let service = json!({"s": {"pass_host": true, "backends": backends(&[("dead", "serving"), ("good", "serving")])}});
    edge.apply(state(json!({"r": {"rule": "Host(`a`)", "service": "s"}}), json!({}), service));
    for _ in 0..10 {
        assert!(edge.ask("GET / HTTP/1.1\nhost: a\n").await.contains("good\n"));
    }
    // Nothing of a body that was not sent is lost.
    for _ in 0..4 {
        let mut stream = TcpStream::connect(edge.at("web")).await.expect("it listens");
        let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
        assert!(answer.ends_with("hello"), "{answer}");
    }
    // Nobody left: the client is told.
    edge.tasks.0.lock().clear();
    let service = json!({"s": {"backends": backends(&[("dead", "serving")])}});
    edge.apply(state(json!({"r": {"rule": "Host(`a`)", "service": "s"}}), json!({}), service));
    assert_eq!(status(&edge.ask("GET / HTTP/1.1\nhost: a\n").await), "502");
}

#[tokio::test]
async fn a_draining_task_ends_what_it_has_and_gets_nothing_new() {
    let mut edge = Edge::new();
    let (go, gone) = tokio::sync::watch::channel(false);
    edge.task("old", move |mut stream| {
        let mut gone = gone.clone();
        async move {
            head(&mut stream).await?;
            let _ = gone.wait_for(|it| *it).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold").await
        }
    })
    .await;
    edge.echo("new").await;
    let routes = json!({"r": {"rule": "Host(`a`)", "service": "s"}});
    let service = |states: &[(&str, &str)]| json!({"s": {"pass_host": true, "backends": backends(states)}});
    edge.apply(state(routes.clone(), json!({}), service(&[("old", "serving")])));
    let at = edge.at("web");
    let slow = tokio::spawn(async move { ask(at, "GET / HTTP/1.1\nhost: a\n").await });
    let mut applied = edge.ingress.applied();
    // The request is with the task when it is counted as busy.
    loop {
        edge.apply(state(routes.clone(), json!({}), service(&[("old", "draining"), ("new", "serving")])));
        if applied.borrow_and_update().busy.contains("old") {
            break;
        }
        edge.apply(state(routes.clone(), json!({}), service(&[("old", "serving")])));
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        assert!(edge.ask("GET / HTTP/1.1\nhost: a\n").await.contains("new\n"));
    }
    assert_eq!(applied.borrow_and_update().version, edge.version);
    go.send_replace(true);
    assert!(slow.await.expect("it ends").ends_with("old"));
    timeout(PATIENCE, applied.wait_for(|it| it.busy.is_empty())).await.expect("in time").expect("told");
}

#[tokio::test]
async fn a_websocket_outlives_changes_of_the_table() {
    let mut edge = Edge::new();
    edge.task("ws", |mut stream| async move {
        let head = head(&mut stream).await?.unwrap_or_default();
        assert!(head.contains("upgrade: websocket"), "{head}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await?;
        let mut bytes = [0; 16];
        loop {
            let count = stream.read(&mut bytes).await?;
            if count == 0 {
                return stream.write_all(b"bye").await;
            }
            stream.write_all(&bytes[..count]).await?;
        }
    })
    .await;
    let service = json!({"s": {"pass_host": true, "backends": backends(&[("ws", "serving")])}});
    let routes = |name: &str| json!({name: {"rule": "Host(`a`)", "service": "s"}});
    edge.apply(state(routes("r"), json!({}), service.clone()));
    let mut stream = TcpStream::connect(edge.at("web")).await.expect("it listens");
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .await
        .expect("written");
    let answer = head(&mut stream).await.expect("a head").unwrap_or_default();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    for round in 0..3 {
        edge.apply(state(routes(&format!("r{round}")), json!({}), service.clone()));
        stream.write_all(b"ping").await.expect("written");
        let mut bytes = [0; 4];
        timeout(PATIENCE, stream.read_exact(&mut bytes)).await.expect("in time").expect("read");
        assert_eq!(&bytes, b"ping");
    }
    // Each side has its own end.
    stream.shutdown().await.expect("closed");
    let mut rest = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut rest)).await.expect("in time").expect("read");
    assert_eq!(rest, "bye");
}

#[tokio::test]
async fn a_client_comes_back_to_its_task_by_cookie() {
    let mut edge = Edge::new();
    edge.echo("one").await;
    edge.echo("two").await;
    let service = |states: &[(&str, &str)]| json!({"s": {"pass_host": true, "sticky": {"name": "id"}, "backends": backends(states)}});
    let routes = json!({"r": {"rule": "Host(`a`)", "service": "s"}});
    edge.apply(state(routes.clone(), json!({}), service(&[("one", "serving"), ("two", "serving")])));
    let first = edge.ask("GET / HTTP/1.1\nhost: a\n").await;
    let cookie = first.lines().find_map(|it| it.strip_prefix("set-cookie: ")).expect("a cookie");
    let cookie = cookie.split(';').next().expect("a value").to_owned();
    let task = if first.contains("\none\n") { "one" } else { "two" };
    for _ in 0..4 {
        let again = edge.ask(&format!("GET / HTTP/1.1\nhost: a\ncookie: x=1; {cookie}\n")).await;
        assert!(again.contains(&format!("\n{task}\n")) && !again.contains("set-cookie"), "{again}");
    }
    let other = if task == "one" { "two" } else { "one" };
    edge.apply(state(routes, json!({}), service(&[(task, "draining"), (other, "serving")])));
    let moved = edge.ask(&format!("GET / HTTP/1.1\nhost: a\ncookie: {cookie}\n")).await;
    assert!(moved.contains(&format!("\n{other}\n")) && moved.contains("set-cookie: id="), "{moved}");
}

#[tokio::test]
async fn middlewares_refuse_redirect_and_change_what_passes() {
    let mut edge = Edge::new();
    edge.echo("a1").await;
    let route = |host: &str, middlewares: Value| json!({"rule": format!("Host(`{host}`)"), "service": "a", "middlewares": middlewares});
    edge.apply(state(
        json!({
            "tls": route("tls", json!(["tls"])), "auth": route("auth", json!(["auth"])), "few": route("few", json!(["few"])),
            "inner": route("inner", json!(["inner"])), "add": route("add", json!(["add", "say"])), "odd": route("odd", json!(["odd"])),
            "zip": route("zip", json!(["zip"])),
        }),
        json!({
            "tls": {"kind": "redirectscheme", "scheme": "https", "permanent": true},
            "auth": {"kind": "basicauth", "users": ["alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="], "realm": "club", "remove": true},
            "few": {"kind": "ratelimit", "average": 1, "period_ms": 3_600_000, "burst": 2},
            "inner": {"kind": "ipallowlist", "ranges": ["10.0.0.0/8"]},
            "add": {"kind": "addprefix", "prefix": "/api"},
            "say": {"kind": "headers", "request": {"x-in": "1"}, "response": {"x-out": "2"}},
            "odd": {"kind": "of a later release"},
            "zip": {"kind": "compress", "min_bytes": 1},
        }),
        json!({"a": {"pass_host": true, "backends": backends(&[("a1", "serving")])}}),
    ));
    let redirected = edge.ask("GET /x HTTP/1.1\nhost: tls\n").await;
    assert!(
        redirected.starts_with("HTTP/1.1 301") && redirected.contains("location: https://tls/x\r\n"),
        "{redirected}"
    );
    let asked = edge.ask("GET / HTTP/1.1\nhost: auth\n").await;
    assert!(asked.starts_with("HTTP/1.1 401") && asked.contains("www-authenticate: Basic realm=\"club\""), "{asked}");
    let let_in = edge.ask("GET / HTTP/1.1\nhost: auth\nauthorization: Basic YWxpY2U6cGFzc3dvcmQ=\n").await;
    assert!(let_in.starts_with("HTTP/1.1 200") && !let_in.contains("authorization"), "{let_in}");
    assert_eq!(status(&edge.ask("GET / HTTP/1.1\nhost: auth\nauthorization: Basic YWxpY2U6eA==\n").await), "401");
    let mut few = Vec::new();
    for _ in 0..3 {
        few.push(status(&edge.ask("GET / HTTP/1.1\nhost: few\n").await).to_owned());
    }
    assert_eq!(few, ["200", "200", "429"]);
    assert_eq!(status(&edge.ask("GET / HTTP/1.1\nhost: inner\n").await), "403");
    let changed = edge.ask("GET /x HTTP/1.1\nhost: add\n").await;
    assert!(
        changed.contains("GET /api/x ") && changed.contains("x-in: 1") && changed.contains("x-out: 2\r\n"),
        "{changed}"
    );
    assert_eq!(status(&edge.ask("GET / HTTP/1.1\nhost: odd\n").await), "503");
    let mut stream = TcpStream::connect(edge.at("web")).await.expect("it listens");
    let request = b"GET / HTTP/1.1\r\nhost: zip\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time").expect("read");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("content-encoding: gzip") && !text.contains("GET /"), "{text}");
}

#[tokio::test]
async fn tcp_goes_by_entrypoint_with_the_clients_address_in_front() {
    let mut edge = Edge::new();
    edge.task("db", |mut stream| async move {
        stream.write_all(b"hello ").await?;
        let mut bytes = [0; 256];
        let count = stream.read(&mut bytes).await?;
        stream.write_all(&bytes[..count]).await
    })
    .await;
    edge.apply(json!({
        "settings": {"entrypoints": {"sql": {"address": "127.0.0.1:0"}}},
        "routes": {"tcp/r": {"carries": "tcp", "rule": "HostSNI(`*`)", "service": "tcp/s"}},
        "services": {"tcp/s": {"proxy_protocol": 1, "backends": backends(&[("db", "serving")])}},
    }));
    let mut stream = TcpStream::connect(edge.at("sql")).await.expect("it listens");
    let own = stream.local_addr().expect("an address").port();
    // The server speaks first.
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time").expect("read");
    assert!(answer.starts_with(&format!("hello PROXY TCP4 127.0.0.1 127.0.0.1 {own} ")), "{answer}");
}

#[tokio::test]
async fn udp_packets_come_back_to_their_client() {
    let mut edge = Edge::new();
    let task = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    edge.tasks.0.lock().insert("dns".to_owned(), task.local_addr().expect("an address"));
    tokio::spawn(async move {
        let mut bytes = [0; 64];
        while let Ok((count, from)) = task.recv_from(&mut bytes).await {
            let _ = task.send_to(&[b"re:", &bytes[..count]].concat(), from).await;
        }
    });
    edge.apply(json!({
        "settings": {"entrypoints": {"dns": {"address": "127.0.0.1:0/udp"}}},
        "routes": {"udp/r": {"carries": "udp", "service": "udp/s"}},
        "services": {"udp/s": {"backends": backends(&[("dns", "serving")])}},
    }));
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let mut bytes = [0; 64];
    for text in ["one", "two"] {
        client.send_to(text.as_bytes(), edge.at("dns")).await.expect("sent");
        let count = timeout(PATIENCE, client.recv(&mut bytes)).await.expect("in time").expect("an answer");
        assert_eq!(String::from_utf8_lossy(&bytes[..count]), format!("re:{text}"));
    }
}

#[tokio::test]
async fn tasks_may_want_tls_and_figures_tell_of_requests() {
    let mut edge = Edge::new();
    let made = rcgen::generate_simple_self_signed(vec!["any".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config.expect("a certificate and its key")));
    edge.task("t", move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await?;
            let mut head = [0; 1000];
            let count = stream.read(&mut head).await?;
            assert!(count > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await?;
            stream.shutdown().await
        }
    })
    .await;
    let service = json!({"s": {"pass_host": true, "scheme": "https", "backends": backends(&[("t", "serving")])}});
    let mut declared = state(json!({"r": {"rule": "Host(`a`)", "service": "s"}}), json!({}), service);
    declared["settings"]["metrics"] = json!("127.0.0.1:0");
    edge.apply(declared);
    assert!(edge.ask("GET / HTTP/1.1\nhost: a\n").await.ends_with("secret"));
    let figures = ask(edge.at("(metrics)"), "GET /metrics HTTP/1.1\nhost: x\n").await;
    let requests = r#"herder_ingress_requests_total{route="r",service="s",code_class="2xx"} 1"#;
    for line in [requests, "herder_ingress_table_version 1", r#"herder_ingress_inflight{service="s"} 0"#] {
        assert!(figures.contains(line), "{line} in {figures}");
    }
    assert_eq!(status(&ask(edge.at("(metrics)"), "GET / HTTP/1.1\nhost: x\n").await), "404");
}
