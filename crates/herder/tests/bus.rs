//! `herder bus` against a bus with some services, as a user sees it.

use std::process::{Command, Stdio};

use tokio_util::sync::CancellationToken;

#[path = "../../front/examples/bus/services.rs"]
mod services;

/// Runs `herder bus …`: what it printed, and what it complained about.
async fn run(door: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herder"));
    command.arg("bus").args(arguments).env("HERDER_HOST", door).env_remove("DOCKER_TLS_VERIFY").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("a thread").expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.success(), output.stderr.is_empty(), "{arguments:?}: {}", text(&output.stderr));
    format!("{}{}", text(&output.stdout), text(&output.stderr)).trim_end().to_owned()
}

async fn serve() -> (String, tokio_util::sync::DropGuard) {
    let stop = CancellationToken::new();
    let (door, _) = services::start("tcp://127.0.0.1:0", "127.0.0.1:0", &stop).await.expect("a bus");
    (format!("tcp://{door}"), stop.drop_guard())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_print_their_answer_or_why_there_is_none() {
    let (door, _stop) = serve().await;
    for (line, expected) in [
        ("request test.echo {\"a\":[1]}", "{\"a\":[1]}"),
        ("request test.echo hello", "hello"),
        ("request test.echo 5 --header k=v --format json", "{\"headers\":{\"k\":\"v\"},\"body\":5}"),
        ("request test.fail", "herder: RECIPIENT_FAILURE (7): will not"),
        ("request test.nobody", "herder: NO_HANDLERS (-1): No handlers for address test.nobody"),
        (
            "request test.silent --timeout 100ms",
            "herder: TIMEOUT (-1): Timed out after waiting 100(ms) for a reply. address: test.silent",
        ),
        ("request secret", "herder: access_denied: no rule of the door allows this address or message"),
        ("send secret", "herder: access_denied: no rule of the door allows this address or message"),
        ("listen secret", "herder: access_denied: no rule of the door allows this address or message"),
        ("send test.echo x", ""),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(run(&door, &words).await, expected, "{line}");
    }
    let nowhere = run("unix:///nowhere.sock", &["listen"]).await;
    assert!(nowhere.starts_with("herder: no door at unix:///nowhere.sock; is `herder up` running there?"), "{nowhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_heard_and_can_be_answered() {
    let (door, _stop) = serve().await;
    let events = run(&door, &["listen", "--count", "2"]).await;
    assert_eq!(events.matches("herder.events.container {\"number\":").count(), 2, "{events}");
    let listener = run(&door, &["listen", "test.me", "--count", "2", "--reply", "yes", "--format", "json"]);
    let speaker = async {
        // Nobody is there until the listener has registered.
        while run(&door, &["request", "test.me", "are you there?", "--timeout", "1s"]).await != "yes" {}
        run(&door, &["publish", "test.me", "{\"x\": 1}"]).await
    };
    let (heard, said) = tokio::join!(listener, speaker);
    assert_eq!(said, "");
    let expected = [r#"{"address":"test.me","body":"are you there?"}"#, r#"{"address":"test.me","body":{"x":1}}"#];
    assert_eq!(heard.lines().collect::<Vec<_>>(), expected);
}
