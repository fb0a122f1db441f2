//! The loop over real HAProxy and nginx, and over files and commands that fail.

use std::collections::BTreeMap;
use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use herder_render::config::file;
use herder_render::cycle::Wait;
use herder_render::{Settings, Source, run};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Time limit for every wait; generous, for loaded machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at a condition outside of this process.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

type Entries = BTreeMap<String, String>;

/// A renderer with a source that the test changes.
struct Stage {
    folder: tempfile::TempDir,
    entries: watch::Sender<Option<Entries>>,
    stop: CancellationToken,
    rendering: Vec<JoinHandle<Result<(), String>>>,
}

impl Stage {
    fn new(entries: &[(&str, &str)]) -> Stage {
        let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (entries, _) = watch::channel(Some(entries));
        let folder = tempfile::tempdir().expect("a folder");
        Stage { folder, entries, stop: CancellationToken::new(), rendering: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a renderer with a configuration in TOML; `DIR` stands for the stage's folder.
    fn render(&mut self, toml: &str, env: &[(&str, &str)]) {
        let toml = toml.replace("DIR", &self.folder.path().display().to_string());
        let found = file(Path::new("test.toml"), &toml).expect("a configuration");
        let settings = Settings {
            jobs: found.jobs,
            wait: found.wait.unwrap_or(Wait { min: Duration::from_millis(5), max: Duration::from_millis(20) }),
            once: false,
            dry: false,
            noop: false,
            sync_only: false,
            keep_stage: false,
            strict: false,
            exec: None,
            status: None,
        };
        let env: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (source, stop) = (Source::memory(self.entries.subscribe()), self.stop.clone());
        self.rendering.push(tokio::spawn(async move {
            run(&settings, source, &env, &stop).await.map(drop).map_err(|error| error.to_string())
        }));
    }

    fn set(&self, key: &str, value: Option<&str>) {
        self.entries.send_modify(|entries| {
            let entries = entries.get_or_insert_default();
            match value {
                Some(value) => {
                    entries.insert(key.to_owned(), value.to_owned());
                }
                None => {
                    entries.remove(key);
                }
            }
        });
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Stage) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
            sleep(LOOK_PERIOD).await;
        }
    }

    /// Ends the renderers; each must still live.
    async fn end(self) {
        self.stop.cancel();
        for rendering in self.rendering {
            rendering.await.expect("no panic").expect("it lived to its end");
        }
    }
}

/// Answers every request with `hello`.
async fn backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut piece = [0; 1024];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut piece).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => request.extend_from_slice(&piece[..count]),
                    }
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
                let _ = stream.write_all(answer).await;
            });
        }
    });
    address
}

/// Returns a free port.
fn free_port() -> u16 {
    let listener = StdListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// One request over a new connection.
async fn request(port: u16) -> Result<(), String> {
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| format!("connect: {error}"))?;
        let head = b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
        stream.write_all(head).await.map_err(|error| format!("write: {error}"))?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map_err(|error| format!("read: {error}"))?;
        let text = String::from_utf8_lossy(&answer);
        if text.starts_with("HTTP/1.1 200") && text.ends_with("hello") {
            Ok(())
        } else {
            Err(format!("answer {text:?}"))
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

/// Sends requests while `changes` runs; gives how many there were, and the first that failed.
async fn under_load(port: u16, changes: impl Future<Output = ()>) -> (usize, Option<String>) {
    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<JoinHandle<Option<String>>> = (0..4)
        .map(|_| {
            let (over, sent) = (over.clone(), sent.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    if let Err(why) = request(port).await {
                        return Some(why);
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                None
            })
        })
        .collect();
    changes.await;
    over.store(true, Ordering::Relaxed);
    let mut failed = None;
    for client in clients {
        failed = client.await.expect("no panic").or(failed);
    }
    (sent.load(Ordering::Relaxed), failed)
}

/// A proxy that is ended with its test, with all that it started.
struct Proxy(Child);

impl Proxy {
    fn start(program: &str, arguments: &[&str], log: &Path) -> Proxy {
        let log = std::fs::File::create(log).expect("a log");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        Proxy(command.spawn().unwrap_or_else(|error| panic!("cannot start {program}: {error}")))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        // The master ends its workers. One that begins itself anew just now does not hear the first signal.
        for _ in 0..100 {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            std::thread::sleep(Duration::from_millis(50));
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reloads that follow from changes of one service, under load.
async fn reloads_refuse_nobody(stage: &Stage, port: u16, file: &str, other: &str, reloads: usize) {
    let count = |stage: &Stage| stage.read("reloads").lines().count();
    let (sent, failed) = under_load(port, async {
        for turn in 0..reloads {
            let (before, comes) = (count(stage), turn % 2 == 0);
            stage.set("services/web/other", comes.then_some(other));
            stage.until("the change", |stage| stage.read(file).contains(other) == comes).await;
            stage.until("a reload", |stage| count(stage) > before).await;
        }
    })
    .await;
    assert_eq!(failed, None, "after {sent} requests");
    assert!(sent > 100, "only {sent} requests");
    eprintln!("{file}: {sent} requests during {reloads} reloads, none failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_is_reloaded_a_hundred_times_and_refuses_nobody() {
    let (first, second, port) = (backend().await, backend().await, free_port());
    let mut stage = Stage::new(&[("services/web/one", &first)]);
    let (bind, socket) = (format!("127.0.0.1:{port}"), stage.path("haproxy.sock").display().to_string());
    let master = stage.path("master");
    stage.render(
        "[[template]]\nsource = 'builtin/haproxy'\ndestination = 'DIR/haproxy.cfg'\ncheck = 'haproxy -c -q -f {{.src}}'\n\
         command = '[ ! -e DIR/master ] || { kill -USR2 $(cat DIR/master) && echo >>DIR/reloads; }'\n",
        &[("HERDER_BIND", &bind), ("HERDER_HAPROXY_SOCKET", &socket)],
    );
    stage.until("a first file", |stage| stage.read("haproxy.cfg").contains("server one")).await;
    let config = stage.path("haproxy.cfg").display().to_string();
    let proxy = Proxy::start("haproxy", &["-W", "-f", &config], &stage.path("log"));
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = request(port).await {
        assert!(Instant::now() < deadline, "HAProxy does not answer: {error}\n{}", stage.read("log"));
        sleep(LOOK_PERIOD).await;
    }
    std::fs::write(&master, proxy.0.id().to_string()).expect("written");
    reloads_refuse_nobody(&stage, port, "haproxy.cfg", &second, 100).await;

    // A value that HAProxy does not take stays out, and leaves nothing behind; the next change goes in.
    let before = stage.read("haproxy.cfg");
    stage.set("services/web/bad", Some("not an address"));
    stage.set("services/zzz/x", Some(&second));
    sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.read("haproxy.cfg"), before);
    stage.set("services/web/bad", None);
    stage.until("the next change", |stage| stage.read("haproxy.cfg").contains("be_zzz")).await;
    let names: Vec<String> = std::fs::read_dir(stage.folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".haproxy.cfg"))
        .collect();
    assert_eq!(names, [""; 0]);
    drop(proxy);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_is_reloaded_and_refuses_nobody() {
    let (first, second, port) = (backend().await, backend().await, free_port());
    let mut stage = Stage::new(&[("services/web/one", &first)]);
    let (bind, pid) = (format!("127.0.0.1:{port}"), stage.path("nginx.pid").display().to_string());
    let errors = stage.path("errors").display().to_string();
    stage.render(
        "[[template]]\nsource = 'builtin/nginx'\ndestination = 'DIR/nginx.conf'\ncheck = 'nginx -t -q -c {{.src}}'\n\
         command = '[ ! -s DIR/nginx.pid ] || { nginx -c DIR/nginx.conf -s reload && echo >>DIR/reloads; }'\n",
        &[("HERDER_BIND", &bind), ("HERDER_NGINX_PID", &pid), ("HERDER_ERROR_LOG", &errors)],
    );
    stage.until("a first file", |stage| stage.read("nginx.conf").contains(&first)).await;
    let config = stage.path("nginx.conf").display().to_string();
    let proxy = Proxy::start("nginx", &["-c", &config, "-g", "daemon off;"], &stage.path("log"));
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = request(port).await {
        assert!(Instant::now() < deadline, "nginx does not answer: {error}\n{}", stage.read("log"));
        sleep(LOOK_PERIOD).await;
    }
    // A reload of nginx takes some tenths of a second: `RELOADS=100` plays as many as for HAProxy.
    let reloads = std::env::var("RELOADS").ok().and_then(|it| it.parse().ok()).unwrap_or(30);
    reloads_refuse_nobody(&stage, port, "nginx.conf", &second, reloads).await;
    drop(proxy);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_hangs_a_folder_that_is_missing_and_a_command_that_fails_end_nothing() {
    let mut stage = Stage::new(&[("services/web/one", "10.0.0.1:80")]);
    // The folder comes later; the command works at the second attempt.
    stage.render(
        "[[template]]\ncontents = '{{ range tree \"services\" }}{{ .Value }}{{ end }}'\ndestination = 'DIR/later/file'\n\
         create_dest_dirs = false\ncommand = 'echo >>DIR/tries; [ $(wc -l <DIR/tries) -ge 2 ] && echo done >DIR/done'\n\
         [[template]]\ncontents = '{{ range tree \"services\" }}{{ .Value }}{{ end }}'\ndestination = 'DIR/other'\n\
         command = ['sleep', '1000']\ncommand_timeout = '50ms'\n",
        &[],
    );
    stage.until("the file that can be written", |stage| stage.read("other") == "10.0.0.1:80").await;
    assert!(!stage.path("later/file").exists());
    std::fs::create_dir(stage.path("later")).expect("a folder");
    stage.until("the other one", |stage| stage.read("later/file") == "10.0.0.1:80").await;
    stage.until("the command, again", |stage| stage.read("done") == "done\n").await;

    // Nothing does not replace something, and a half text is never seen.
    stage.set("services/web/one", None);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.read("other"), "10.0.0.1:80");
    stage.set("services/web/one", Some("10.0.0.2:80"));
    stage.until("the next value", |stage| stage.read("other") == "10.0.0.2:80").await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_renderers_of_one_file_never_show_half_of_it() {
    let long = "x".repeat(200_000);
    let mut stage = Stage::new(&[("services/web/one", "0")]);
    let toml = format!(
        "[[template]]\ncontents = '{{{{ range tree \"services\" }}}}{{{{ .Value }}}}{{{{ end }}}}{long}end'\ndestination = 'DIR/file'\n"
    );
    stage.render(&toml, &[]);
    stage.render(&toml, &[]);
    stage.until("a first file", |stage| stage.path("file").exists()).await;
    for turn in 1..=50 {
        stage.set("services/web/one", Some(&turn.to_string()));
        for _ in 0..5 {
            let text = stage.read("file");
            assert!(text.ends_with("end") && text.len() > long.len(), "{} bytes", text.len());
            sleep(Duration::from_millis(1)).await;
        }
    }
    stage.until("the last value", |stage| stage.read("file").starts_with("50x")).await;
    stage.end().await;
}
