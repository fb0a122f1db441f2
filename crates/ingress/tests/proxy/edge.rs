//! An ingress whose tasks are sockets of this process.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use herder_ingress::{Conn, Ingress, Reach};
use herder_model::swarm::{Backend, IngressChanges, IngressNews, IngressState};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on the slowest machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Tasks by name.
#[derive(Debug, Default)]
pub(super) struct Tasks(pub(super) Mutex<HashMap<String, SocketAddr>>);

impl Reach for Tasks {
    fn connect<'r>(&'r self, task: &'r str, _: &'r Backend, _: u16) -> BoxFuture<'r, io::Result<Conn>> {
        let address = self.0.lock().get(task).copied();
        Box::pin(async move {
            let address = address.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(TcpStream::connect(address).await?) as Conn)
        })
    }

    fn datagrams<'r>(&'r self, task: &'r str, _: &'r Backend, _: u16) -> BoxFuture<'r, io::Result<UdpSocket>> {
        let address = self.0.lock().get(task).copied();
        Box::pin(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.connect(address.ok_or(io::ErrorKind::ConnectionRefused)?).await?;
            Ok(socket)
        })
    }
}

pub(super) struct Edge {
    pub(super) ingress: Ingress,
    pub(super) tasks: Arc<Tasks>,
    state: IngressState,
    pub(super) version: u64,
    _stop: tokio_util::sync::DropGuard,
}

impl Edge {
    pub(super) fn new() -> Edge {
        let (tasks, stop) = (Arc::new(Tasks::default()), CancellationToken::new());
        let ingress = Ingress::new(tasks.clone(), &stop);
        Edge { ingress, tasks, state: IngressState::default(), version: 0, _stop: stop.drop_guard() }
    }

    /// Routes by this state, as a leader tells it.
    pub(super) fn apply(&mut self, state: Value) {
        let state: IngressState = serde_json::from_value(state).expect("a state");
        let changes = IngressChanges::between(&self.state, &state);
        let (applies_to, results_in) = (self.version, self.version + 1);
        let whole = self.version == 0;
        let news = IngressNews { whole, applies_to, results_in, listens: true, changes };
        self.ingress.take(&news).expect("it follows");
        (self.state, self.version) = (state, results_in);
    }

    pub(super) fn at(&self, entrypoint: &str) -> SocketAddr {
        let port = self.ingress.addresses()[entrypoint].port();
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// A task that answers each connection with `serve`.
    pub(super) async fn task<F: Future<Output = io::Result<()>> + Send + 'static>(
        &self,
        name: &str,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        self.tasks.0.lock().insert(name.to_owned(), listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    }

    /// A task that answers requests with its name and what it got.
    pub(super) async fn echo(&self, name: &'static str) {
        self.task(name, move |mut stream| async move {
            while let Some(head) = head(&mut stream).await? {
                let length =
                    head.lines().find_map(|it| it.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                stream.read_exact(&mut body).await?;
                let text = format!("{name}\n{head}{}", String::from_utf8_lossy(&body));
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).as_bytes())
                    .await?;
            }
            Ok(())
        })
        .await;
    }

    pub(super) async fn ask(&self, request: &str) -> String {
        ask(self.at("web"), request).await
    }
}

/// Reads to the end of a head. None at the end of the connection.
pub(super) async fn head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

/// Sends one request on a connection of its own; the whole answer.
pub(super) async fn ask(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.expect("it listens");
    let request = request.replace('\n', "\r\n") + "connection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer in time");
    // A refused request may be closed before all of it was read.
    let _ = read;
    answer
}

pub(super) fn backends(states: &[(&str, &str)]) -> Value {
    states.iter().map(|(id, state)| ((*id).to_owned(), json!({"state": state, "weight": 1}))).collect()
}

pub(super) fn state(routes: Value, middlewares: Value, services: Value) -> Value {
    json!({
        "settings": {"entrypoints": {"web": {"address": "127.0.0.1:0"}}},
        "routes": routes, "middlewares": middlewares, "services": services,
    })
}

pub(super) fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}
