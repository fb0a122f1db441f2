//! The bus without sockets: several nodes in memory, and what they tell each other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use herder_bus::memory::Mesh;
use herder_bus::{Bus, BusError, Consumer, Headers, Kind, Message, Settings};
use proptest::prelude::*;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(5);

/// Buses that all know each other.
fn buses<const N: usize>(settings: &Settings) -> (Arc<Mesh>, [Arc<Bus>; N]) {
    let mesh = Mesh::new(100_000);
    let buses: [Arc<Bus>; N] = std::array::from_fn(|index| mesh.bus(&format!("n{}", index + 1), settings.clone()));
    for (index, one) in buses.iter().enumerate() {
        for other in &buses[index + 1..] {
            mesh.join(one, other);
        }
    }
    mesh.deliver();
    (mesh, buses)
}

fn pair() -> (Arc<Mesh>, Arc<Bus>, Arc<Bus>) {
    let (mesh, [one, two]) = buses(&Settings::default());
    (mesh, one, two)
}

fn register(bus: &Arc<Bus>, address: &str) -> Consumer {
    bus.register(address).expect("an address")
}

fn send(bus: &Bus, address: &str, body: Value) -> Result<(), BusError> {
    bus.send(address, Headers::default(), body)
}

/// Returns the waiting messages as one text.
fn read(consumer: &mut Consumer) -> String {
    let bodies = std::iter::from_fn(|| consumer.try_recv()).map(|message| message.body.to_string());
    bodies.collect::<Vec<_>>().join(" ")
}

/// Runs `work` and delivers frames meanwhile.
async fn alongside<T>(mesh: &Mesh, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            outcome = &mut work => return outcome,
            () = tokio::time::sleep(Duration::from_millis(1)) => drop(mesh.deliver()),
        }
    }
}

/// Answers every message until the end of the test.
fn answerer(mut consumer: Consumer, answer: impl Fn(Message) + Send + Sync + 'static) {
    tokio::spawn(async move {
        loop {
            answer(consumer.recv().await);
        }
    });
}

#[test]
fn send_goes_in_turn_over_nodes_and_then_over_receivers() {
    let (mesh, [one, two, three]) = buses(&Settings::default());
    let mut here = register(&one, "a");
    let (mut there_1, mut there_2) = (register(&two, "a"), register(&two, "a"));
    let mut far = register(&three, "a");
    mesh.deliver();
    for number in 0..12 {
        send(&one, "a", json!(number)).expect("sent");
    }
    mesh.deliver();
    let mut got = [read(&mut here), read(&mut there_1), read(&mut there_2), read(&mut far)];
    got[1..].sort();
    assert_eq!(got, ["0 3 6 9", "1 7", "2 5 8 11", "4 10"]);
}

#[test]
fn publish_reaches_all_and_nobody_is_no_error() {
    let (mesh, [one, two, three]) = buses(&Settings::default());
    let mut all = [register(&one, "a"), register(&two, "a"), register(&two, "a"), register(&three, "b")];
    mesh.deliver();
    let published = three.publish("a", Headers::default(), json!("x")).expect("published");
    assert_eq!((published.receivers, published.nodes, published.dropped), (0, 2, 0));
    mesh.deliver();
    assert_eq!(all.each_mut().map(read), [r#""x""#, r#""x""#, r#""x""#, ""]);
    assert_eq!(three.publish("nobody", Headers::default(), json!(1)).expect("published"), Default::default());
}

#[test]
fn messages_say_how_they_came_and_carry_headers() {
    let (mesh, one, two) = pair();
    let mut consumer = register(&two, "a");
    mesh.deliver();
    let headers = Headers(vec![("k".into(), "v".into()), ("k".into(), "w".into())]);
    one.send("a", headers.clone(), json!({"deep": [1, null, "ä"]})).expect("sent");
    one.publish("a", headers.clone(), Value::Null).expect("published");
    mesh.deliver();
    for (published, body) in [(false, json!({"deep": [1, null, "ä"]})), (true, Value::Null)] {
        let message = consumer.try_recv().expect("a message");
        assert_eq!((message.published, &*message.body, &*message.address), (published, &body, "a"));
        assert_eq!(*message.headers, headers);
        assert!(!message.wants_reply());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_from_here_and_from_afar() {
    let (mesh, one, two) = pair();
    for bus in [&one, &two] {
        answerer(register(bus, &format!("double.{}", bus.node())), |message| {
            let number = message.body.as_i64().unwrap_or_default();
            message.reply(Headers::default(), json!(number * 2));
        });
    }
    mesh.deliver();
    for address in ["double.n1", "double.n2"] {
        let answer = alongside(&mesh, one.request(address, Headers::default(), json!(21), LIMIT)).await;
        assert_eq!(*answer.expect("an answer").body, json!(42));
    }
    assert_eq!(one.stats().requests, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_can_be_a_question() {
    let (mesh, one, two) = pair();
    let mut consumer = register(&two, "talk");
    mesh.deliver();
    let talk = async {
        let mut answer = one.request("talk", Headers::default(), json!("knock"), LIMIT).await.expect("an answer");
        assert_eq!(*answer.body, json!("who is there"));
        answer.take_reply().expect("a question").answer(Headers::default(), json!("herder"));
    };
    let other = async {
        let mut knock = consumer.recv().await;
        let way = knock.take_reply().expect("a way back");
        way.request(Headers::default(), json!("who is there"), LIMIT).await.expect("an answer")
    };
    let ((), answer) = alongside(&mesh, async { tokio::join!(talk, other) }).await;
    assert_eq!(*answer.body, json!("herder"));
}

/// The error of a request, as one text.
async fn failure(mesh: &Mesh, bus: &Arc<Bus>, address: &str) -> String {
    let outcome = alongside(mesh, bus.request(address, Headers::default(), json!(1), LIMIT)).await;
    let BusError { kind, code, message } = outcome.expect_err("no answer");
    format!("{} {code} {message}", kind.name())
}

#[tokio::test(start_paused = true)]
async fn failures_have_kind_code_and_message() {
    let (mesh, one, two) = pair();
    answerer(register(&two, "fails"), |message| message.fail(42, "I will not"));
    answerer(register(&two, "drops"), drop);
    let _silent = register(&two, "silent");
    mesh.deliver();
    let long = "x".repeat(201);
    for (address, expected) in [
        ("nobody", "NO_HANDLERS -1 No handlers for address nobody"),
        ("fails", "RECIPIENT_FAILURE 42 I will not"),
        ("drops", "RECIPIENT_FAILURE -3 the receiver let go of the request without an answer"),
        ("silent", "TIMEOUT -1 Timed out after waiting 5000(ms) for a reply. address: silent"),
        (&long, "ERROR -4 the address has 201 bytes; at most 200 are allowed"),
    ] {
        assert_eq!(failure(&mesh, &one, address).await, expected);
    }
    assert_eq!(one.stats().requests, 0, "nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_left_while_the_message_was_under_way_is_told() {
    let (mesh, one, two) = pair();
    let consumer = register(&two, "a");
    mesh.deliver();
    drop(consumer);
    // The news of its leaving is still under way, too.
    assert_eq!(failure(&mesh, &one, "a").await, "NO_HANDLERS -1 No handlers for address a");
    assert_eq!(send(&one, "a", json!(1)).expect_err("nobody").kind, Kind::NoHandlers);
}

#[tokio::test(start_paused = true)]
async fn a_lost_peer_is_forgotten_and_fails_what_waits() {
    let (mesh, one, two) = pair();
    let consumer = register(&two, "a");
    mesh.deliver();
    let request = one.request("a", Headers::default(), json!(1), LIMIT);
    let part = async {
        tokio::task::yield_now().await;
        mesh.part(&one, &two);
    };
    let (outcome, ()) = tokio::join!(request, part);
    let error = outcome.expect_err("gone");
    assert_eq!((error.code, error.message.as_str()), (BusError::CODE_GONE, "node n2 went away before it answered"));
    assert_eq!(failure(&mesh, &one, "a").await, "NO_HANDLERS -1 No handlers for address a");
    mesh.join(&one, &two);
    mesh.deliver();
    send(&one, "a", json!(2)).expect("known again");
    drop(consumer);
}

#[tokio::test(start_paused = true)]
async fn gather_hears_everybody_or_says_who_was_silent() {
    let (mesh, [one, two, three, four]) = buses(&Settings::default());
    for (bus, name) in [(&one, "n1"), (&two, "n2 a"), (&two, "n2 b")] {
        answerer(register(bus, "all"), move |message| message.reply(Headers::default(), json!(name)));
    }
    answerer(register(&three, "all"), |message| message.fail(7, "busy"));
    let _silent = register(&four, "all");
    mesh.deliver();
    let start = tokio::time::Instant::now();
    let answers = alongside(&mesh, one.gather("all", Headers::default(), json!(1), LIMIT)).await.expect("somebody");
    let mut told: Vec<String> = answers
        .into_iter()
        .map(|answer| match answer.outcome {
            Ok(message) => format!("{}: {}", answer.node, message.body),
            Err(error) => format!("{}: {}", answer.node, error.message),
        })
        .collect();
    told.sort();
    let timed_out = "n4: Timed out after waiting 5000(ms) for a reply. address: all";
    assert_eq!(told, [r#"n1: "n1""#, r#"n2: "n2 a""#, r#"n2: "n2 b""#, "n3: busy", timed_out]);
    assert!(start.elapsed() >= LIMIT);
    let start = tokio::time::Instant::now();
    mesh.part(&one, &four);
    alongside(&mesh, one.gather("all", Headers::default(), json!(1), LIMIT)).await.expect("somebody");
    assert!(start.elapsed() < Duration::from_secs(1), "when all are there nobody waits");
    let error = one.gather("nobody", Headers::default(), json!(1), LIMIT).await.expect_err("nobody");
    assert_eq!(error.kind, Kind::NoHandlers);
    assert_eq!(one.stats().requests, 0);
}

#[tokio::test]
async fn a_slow_receiver_loses_the_newest_and_harms_nobody_else() {
    let (mesh, [one, two]) = buses(&Settings { queue_length: 10, ..Settings::default() });
    let (mut slow, mut quick) = (register(&two, "slow"), register(&two, "quick"));
    mesh.deliver();
    let mut read_quickly = Vec::new();
    for number in 0..100 {
        send(&one, "slow", json!(number)).expect("under way");
        send(&one, "quick", json!(number)).expect("under way");
        mesh.deliver();
        read_quickly.push(read(&mut quick));
    }
    assert_eq!(read_quickly.len(), 100);
    assert_eq!((read_quickly.concat().len(), quick.dropped()), (190, 0), "nothing is missing");
    let refused = alongside(&mesh, one.request("slow", Headers::default(), json!(1), LIMIT)).await.expect_err("full");
    assert_eq!((refused.kind, refused.code), (Kind::RecipientFailure, BusError::CODE_OVERFLOW));
    assert_eq!((slow.dropped(), two.stats().dropped), (91, 91));
    assert_eq!(read(&mut slow), "0 1 2 3 4 5 6 7 8 9");
    send(&one, "slow", json!("again")).expect("sent");
    mesh.deliver();
    assert_eq!(read(&mut slow), r#""again""#);
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let (_mesh, [bus]) = buses(&Settings { queue_bytes: 10_000, ..Settings::default() });
    let mut consumer = register(&bus, "a");
    let sent = (0..10).filter(|_| send(&bus, "a", json!("x".repeat(3000))).is_ok()).count();
    assert_eq!((sent, consumer.dropped()), (3, 7));
    assert_eq!(std::iter::from_fn(|| consumer.try_recv()).count(), 3);
    send(&bus, "a", json!("x".repeat(50_000))).expect("one message is always taken");
}

#[test]
fn a_message_too_large_for_a_frame_is_refused_to_its_sender() {
    let (mesh, one, two) = pair();
    let _consumer = register(&two, "a");
    mesh.deliver();
    let error = send(&one, "a", json!("x".repeat(2 << 20))).expect_err("too large");
    assert!(error.message.starts_with("the message cannot be sent to another node: the frame has"), "{error}");
}

#[test]
fn registrations_that_come_and_go_are_known_everywhere() {
    let (mesh, one, two) = pair();
    let mut inbox = two.inbox();
    for address in ["a", "b", "b"] {
        inbox.register(address).expect("an address");
    }
    let more = register(&two, "a");
    mesh.deliver();
    assert_eq!(one.stats().addresses, 2);
    assert!(inbox.unregister("a") && !inbox.unregister("a"));
    mesh.deliver();
    assert_eq!(one.stats().addresses, 2, "another one is left at `a`");
    drop((more, inbox));
    mesh.deliver();
    assert_eq!((one.stats().addresses, two.stats().addresses), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_link_too_full_for_registrations_gets_them_later() {
    let mesh = Mesh::new(3);
    let (one, two) = (mesh.bus("n1", Settings::default()), mesh.bus("n2", Settings::default()));
    mesh.join(&one, &two);
    let all: Vec<Consumer> = (0..10).map(|number| register(&two, &format!("a{number}"))).collect();
    mesh.deliver();
    assert_eq!(one.stats().addresses, 2, "those that found room");
    tokio::time::sleep(Duration::from_millis(60)).await;
    mesh.deliver();
    assert_eq!(one.stats().addresses, 10);
    drop(all);
}

#[test]
fn ten_thousand_addresses_are_told_and_reached() {
    let (mesh, one, two) = pair();
    let mut inbox = two.inbox();
    for number in 0..10_000 {
        inbox.register(&format!("container-{number:064}")).expect("an address");
    }
    mesh.deliver();
    assert_eq!(one.stats().addresses, 10_000);
    let three = mesh.bus("n3", Settings::default());
    mesh.join(&three, &two);
    assert!(mesh.deliver() <= 41, "many addresses in one frame");
    assert_eq!(three.stats().addresses, 10_000);
    for number in [0, 5_000, 9_999] {
        send(&three, &format!("container-{number:064}"), json!(number)).expect("sent");
    }
    mesh.deliver();
    let got: Vec<i64> = std::iter::from_fn(|| inbox.try_recv()).filter_map(|message| message.body.as_i64()).collect();
    assert_eq!(got, [0, 5_000, 9_999]);
    mesh.part(&three, &two);
    assert_eq!(three.stats().addresses, 0);
}

#[test]
fn frames_of_strangers_and_rubbish_do_no_harm() {
    let (mesh, one, two) = pair();
    let mut consumer = register(&one, "a");
    mesh.deliver();
    for frame in [&b""[..], b"\x02abc", b"\x01\xff\xff", b"\x01\x03\x01a\x00\x00\x05{{{{{"] {
        one.receive("n2", Bytes::copy_from_slice(frame));
    }
    assert_eq!(one.stats().refused, 4);
    one.receive("stranger", Bytes::from_static(b"\x01\x01\x01x"));
    assert_eq!(one.stats().addresses, 1, "nothing is learnt from a node without a link");
    send(&two, "a", json!("still here")).expect("sent");
    mesh.deliver();
    assert_eq!(read(&mut consumer), r#""still here""#);
}

/// A step of a random test.
#[derive(Clone, Debug)]
enum Step {
    Send { from: usize, address: usize },
    Register { node: usize, address: usize },
    Unregister { which: usize },
    Part { one: usize, other: usize },
    Join { one: usize, other: usize },
    Deliver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_usize, 0..3_usize).prop_map(|(from, address)| Step::Send { from, address }),
        3 => (0..3_usize, 0..3_usize).prop_map(|(node, address)| Step::Register { node, address }),
        1 => (0..9_usize).prop_map(|which| Step::Unregister { which }),
        1 => (0..3_usize, 0..3_usize).prop_map(|(one, other)| Step::Part { one, other }),
        1 => (0..3_usize, 0..3_usize).prop_map(|(one, other)| Step::Join { one, other }),
        4 => Just(Step::Deliver),
    ]
}

proptest! {
    #[test]
    fn messages_come_at_most_once_and_in_order_of_each_sender(steps in proptest::collection::vec(step(), 1..120)) {
        let (mesh, buses) = buses::<3>(&Settings { queue_length: 8, ..Settings::default() });
        let mut consumers = Vec::new();
        let mut joined = [[true; 3]; 3];
        let mut number = 0;
        for step in steps {
            match step {
                Step::Send { from, address } => {
                    number += 1;
                    let _ = send(&buses[from], &format!("a{address}"), json!([from, number]));
                }
                Step::Register { node, address } => consumers.push((register(&buses[node], &format!("a{address}")), Vec::new())),
                Step::Unregister { which } if which < consumers.len() => drop(consumers.remove(which)),
                Step::Part { one, other } if one != other && joined[one][other] => {
                    mesh.part(&buses[one], &buses[other]);
                    (joined[one][other], joined[other][one]) = (false, false);
                }
                Step::Join { one, other } if one != other && !joined[one][other] => {
                    mesh.join(&buses[one], &buses[other]);
                    (joined[one][other], joined[other][one]) = (true, true);
                }
                Step::Deliver => drop(mesh.deliver()),
                Step::Unregister { .. } | Step::Part { .. } | Step::Join { .. } => {}
            }
            for (consumer, seen) in &mut consumers {
                if number % 3 == 0 {
                    seen.extend(std::iter::from_fn(|| consumer.try_recv()).map(|message| message.body.to_string()));
                }
            }
        }
        mesh.deliver();
        let mut all = Vec::new();
        for (mut consumer, mut seen) in consumers {
            seen.extend(std::iter::from_fn(|| consumer.try_recv()).map(|message| message.body.to_string()));
            let seen: Vec<(u64, u64)> = seen.iter().map(|text| serde_json::from_str(text).expect("a pair")).collect();
            for from in 0..3 {
                let numbers: Vec<u64> = seen.iter().filter(|(sender, _)| *sender == from).map(|(_, number)| *number).collect();
                prop_assert!(numbers.is_sorted(), "{numbers:?}");
            }
            all.extend(seen);
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        prop_assert_eq!(all.len(), count, "a message came twice");
    }

    #[test]
    fn any_bytes_from_a_peer_do_no_harm(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..20)) {
        let (mesh, one, two) = pair();
        let mut consumer = register(&one, "a");
        mesh.deliver();
        for mut frame in frames {
            frame.insert(0, 1);
            one.receive("n2", frame.into());
        }
        while consumer.try_recv().is_some() {}
        send(&two, "a", json!(1)).expect("sent");
        mesh.deliver();
        prop_assert_eq!(read(&mut consumer), "1");
    }
}
