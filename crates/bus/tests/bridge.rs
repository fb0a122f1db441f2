//! Conversations with bridges: the frames of clients, and every frame that they receive.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use herder_bus::bridge::{Bridge, Dialect, Limits, Rules, Session, tcp};
use herder_bus::memory::Mesh;
use herder_bus::{Bus, Settings};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// Rules of the bridges in these tests.
const RULES: &str = r#"{"inbound": [{"addressRegex": "test\\..*"}, {"address": "strict", "match": {"ok": true}}],
    "outbound": [{"addressRegex": "test\\..*"}]}"#;

fn bridge(limits: Limits) -> Arc<Bridge> {
    let bus = Mesh::new(10).bus("n1", Settings::default());
    Bridge::new(bus, Rules::parse(RULES).expect("rules"), limits)
}

/// A service at `test.echo` that answers with what it got, at `test.fail` that does not want to, and at `test.silent`.
fn services(bus: &Arc<Bus>) {
    let mut inbox = bus.inbox();
    for address in ["test.echo", "test.fail", "test.silent"] {
        inbox.register(address).expect("an address");
    }
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let message = inbox.recv().await;
            match &*message.address {
                "test.echo" => {
                    let (headers, body) = ((*message.headers).clone(), (*message.body).clone());
                    message.reply(headers, body);
                }
                "test.fail" => message.fail(7, "no"),
                _ => kept.push(message),
            }
        }
    });
}

/// Plays a conversation: `>` is sent, `<` is received until nothing more comes. `REPLY` stands for the last reply
/// address received.
async fn play(dialect: Dialect, script: &str) {
    let bridge = bridge(Limits { reply_time: Duration::from_secs(1), handlers: 4, ..Limits::default() });
    services(&bridge.bus);
    let mut session = Session::new(bridge, dialect);
    let (mut heard, mut reply) = (Vec::new(), String::new());
    let mut expected = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let Some(text) = line.strip_prefix("> ") else {
            let frame: Value = serde_json::from_str(line.strip_prefix("< ").expect("a direction")).expect(line);
            expected.push(frame);
            continue;
        };
        assert_eq!(heard, std::mem::take(&mut expected), "before {line}");
        heard.clear();
        heard.extend(session.take(text.replace("REPLY", &reply).as_bytes()));
        while let Ok(frame) = tokio::time::timeout(Duration::from_millis(100), session.next()).await {
            heard.push(frame);
        }
        for frame in &mut heard {
            if let Some(name) = frame.get_mut("replyAddress") {
                reply = name.as_str().unwrap_or_default().to_owned();
                *name = json!("REPLY");
            }
        }
    }
    assert_eq!(heard, expected, "in the end");
}

#[tokio::test(start_paused = true)]
async fn the_tcp_bridge_speaks_as_that_of_vertx() {
    play(
        Dialect::Tcp,
        r#"
        > {"type":"ping"}
        < {"type":"pong"}
        > {"type":"register","address":"test.a"}
        > {"type":"register","address":"test.a","headers":{}}
        > {"type":"send","address":"test.a","body":{"x":1},"headers":{"k":"v","timeout":"100"}}
        < {"type":"message","address":"test.a","headers":{"k":"v"},"body":{"x":1},"send":true}
        > {"type":"publish","address":"test.a"}
        < {"type":"message","address":"test.a","headers":{},"send":false}
        > {"type":"send","address":"test.echo","body":[1],"replyAddress":"mine"}
        < {"type":"message","address":"mine","headers":{},"body":[1],"send":true}
        > {"type":"send","address":"test.a","body":"q","replyAddress":"mine"}
        < {"type":"message","address":"test.a","replyAddress":"REPLY","headers":{},"body":"q","send":true}
        > {"type":"send","address":"REPLY","body":"answer"}
        < {"type":"message","address":"mine","headers":{},"body":"answer","send":true}
        > {"type":"send","address":"REPLY","body":"twice"}
        < {"type":"err","message":"access_denied"}
        > {"type":"unregister","address":"test.a"}
        > {"type":"unregister","address":"test.a"}
        < {"type":"err","message":"unknown_address"}
        > {"type":"send","address":"test.a","body":1}
        > {"type":"send","address":"test.a","body":1,"replyAddress":"mine"}
        < {"type":"err","address":"mine","failureCode":-1,"failureType":"NO_HANDLERS","message":"No handlers for address test.a","sourceAddress":"test.a"}
        > {"type":"send","address":"test.fail","replyAddress":"mine"}
        < {"type":"err","address":"mine","failureCode":7,"failureType":"RECIPIENT_FAILURE","message":"no","sourceAddress":"test.fail"}
        > {"type":"send","address":"test.silent","replyAddress":"mine","headers":{"timeout":20}}
        < {"type":"err","address":"mine","failureCode":-1,"failureType":"TIMEOUT","message":"Timed out after waiting 20(ms) for a reply. address: test.silent","sourceAddress":"test.silent"}
        > {"type":"send","address":"other","body":1}
        < {"type":"err","message":"access_denied"}
        > {"type":"register","address":"strict"}
        < {"type":"err","message":"access_denied"}
        > {"type":"send","address":"strict","body":{"ok":false}}
        < {"type":"err","message":"access_denied"}
        > {"type":"send","address":"strict","body":{"ok":true},"replyAddress":"mine"}
        < {"type":"err","address":"mine","failureCode":-1,"failureType":"NO_HANDLERS","message":"No handlers for address strict","sourceAddress":"strict"}
        > {"type":"send"}
        < {"type":"err","message":"missing_address"}
        > {"type":"dance","address":"test.a"}
        < {"type":"err","message":"unknown_type"}
        > {}
        < {"type":"err","message":"unknown_type"}
        > nonsense
        < {"type":"err","message":"invalid_json"}
        "#,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_sockjs_bridge_speaks_as_that_of_vertx() {
    play(
        Dialect::SockJs,
        r#"
        > {"type":"ping"}
        > {"type":"register","address":"test.a"}
        > {"type":"register","address":"test.a"}
        < {"type":"err","body":"address_already_registered"}
        > {"type":"send","address":"test.a","body":{"x":1},"headers":{"k":["v","w"]}}
        < {"type":"rec","address":"test.a","headers":{"k":["v","w"]},"body":{"x":1}}
        > {"type":"publish","address":"test.a"}
        < {"type":"rec","address":"test.a","body":null}
        > {"type":"send","address":"test.a","body":"q","replyAddress":"mine"}
        < {"type":"rec","address":"test.a","replyAddress":"REPLY","body":"q"}
        > {"type":"send","address":"REPLY","body":"a question","replyAddress":"yours"}
        < {"type":"rec","address":"mine","replyAddress":"REPLY","body":"a question"}
        > {"type":"send","address":"REPLY","failureCode":9,"message":"enough"}
        < {"type":"err","address":"yours","failureCode":9,"failureType":"RECIPIENT_FAILURE","message":"enough"}
        > {"type":"unregister","address":"test.a"}
        > {"type":"send","address":"test.a","replyAddress":"mine"}
        < {"type":"err","address":"mine","failureCode":-1,"failureType":"NO_HANDLERS","message":"No handlers for address test.a"}
        > {"type":"register","address":"test.1"}
        > {"type":"register","address":"test.2"}
        > {"type":"register","address":"test.3"}
        > {"type":"register","address":"test.4"}
        > {"type":"register","address":"test.5"}
        < {"type":"err","body":"max_handlers_reached"}
        > {"type":"register","address":"nobody"}
        < {"type":"err","body":"access_denied"}
        > {"type":"send","address":"test.echo","replyAddress":5}
        < {"type":"err","body":"invalid_reply_address"}
        > {"type":"send"}
        < {"type":"err","body":"missing_address"}
        > {"type":"dance","address":"test.a"}
        < {"type":"err","body":"invalid_type"}
        > {"address":"test.a"}
        < {"type":"err","body":"missing_type"}
        > [1]
        < {"type":"err","body":"invalid_json"}
        "#,
    )
    .await;
    let long = "x".repeat(201);
    let script = format!(
        "> {{\"type\":\"register\",\"address\":\"{long}\"}}\n< {{\"type\":\"err\",\"body\":\"max_address_length_reached\"}}"
    );
    play(Dialect::SockJs, &script).await;
}

/// A client over a stream.
fn connect(bridge: &Arc<Bridge>) -> DuplexStream {
    let (client, ours) = tokio::io::duplex(64 << 10);
    tokio::spawn(tcp::connection(bridge.clone(), ours));
    client
}

async fn say(client: &mut DuplexStream, frame: Value) {
    let mut bytes = BytesMut::new();
    tcp::join(&mut bytes, &frame);
    client.write_all(&bytes).await.expect("written");
}

async fn hear(client: &mut DuplexStream) -> Value {
    let length = client.read_u32().await.expect("a length");
    let mut bytes = vec![0; length as usize];
    client.read_exact(&mut bytes).await.expect("a frame");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test]
async fn what_a_client_registered_leaves_with_it() {
    let bridge = bridge(Limits::default());
    let mut client = connect(&bridge);
    for number in 0..10 {
        say(&mut client, json!({"type": "register", "address": format!("test.{number}")})).await;
    }
    say(&mut client, json!({"type": "ping"})).await;
    assert_eq!(hear(&mut client).await, json!({"type": "pong"}));
    assert_eq!(bridge.bus.stats().addresses_here, 10);
    drop(client);
    while bridge.bus.stats().addresses_here > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_frame_too_large_is_told_and_ends_the_connection() {
    let bridge = bridge(Limits { frame_bytes: 100, ..Limits::default() });
    let mut client = connect(&bridge);
    client.write_all(&[0xff, 0xff, 0xff, 0xff]).await.expect("written");
    let expected = "a frame of 4294967295 bytes was announced; at most 100 are allowed";
    assert_eq!(hear(&mut client).await, json!({"type": "err", "message": expected}));
    assert_eq!(client.read(&mut [0; 10]).await.expect("the end"), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_harms_nobody_else() {
    let bridge = bridge(Limits::default());
    let (mut stuck, mut quick) = (connect(&bridge), connect(&bridge));
    for client in [&mut stuck, &mut quick] {
        say(client, json!({"type": "register", "address": "test.news"})).await;
        say(client, json!({"type": "ping"})).await;
        assert_eq!(hear(client).await, json!({"type": "pong"}));
    }
    for number in 0..20_000 {
        let sent = bridge.bus.publish("test.news", Default::default(), json!(number)).expect("published");
        assert!(sent.receivers >= 1, "{sent:?}");
        assert_eq!(hear(&mut quick).await["body"], json!(number));
    }
    assert!(bridge.bus.stats().dropped > 10_000, "what the stuck client did not read was dropped");
}

proptest! {
    #[test]
    fn any_bytes_of_a_client_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bridge = bridge(Limits::default());
        tcp::fuzz_frames(&bridge, &bytes);
        for text in herder_bus::bridge::sockjs::payload(&bytes).unwrap_or_default() {
            Session::new(bridge.clone(), Dialect::SockJs).take(text.as_bytes());
        }
    }

    #[test]
    fn any_frame_of_a_client_does_no_harm(
        kind in "send|publish|register|unregister|ping|x",
        address in "test\\.[a-c]|.{0,10}",
        reply in proptest::option::of(".{0,9}"),
        headers in "null|5|\\{\"a\":\\[1,2\\]\\}|\\{\"timeout\":\"x\"\\}|\\{\"timeout\":-1\\}",
        code in proptest::option::of(any::<i64>()),
    ) {
        let bridge = bridge(Limits::default());
        let headers: Value = serde_json::from_str(&headers).expect("JSON");
        let frame = json!({"type": kind, "address": address, "replyAddress": reply, "headers": headers, "failureCode": code});
        let mut bytes = BytesMut::new();
        tcp::join(&mut bytes, &frame);
        tcp::fuzz_frames(&bridge, &bytes);
    }
}
