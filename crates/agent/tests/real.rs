//! The agent with a real engine, in a lab of its own.
//!
//! The engine sees the files of secrets only if the agent is in its host: so this program brings a lab up, and runs itself once
//! more inside. Needs root and the packages that `cargo xtask test` installs.

mod world;

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use herder_agent::Images;
use herder_lab::{Lab, LabSpec};
use herder_model::swarm::{PortConfig, ServiceFacts, TaskState};
use libtest_mimic::{Arguments, Trial};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

use world::{World, docker, until};

/// The lab of this test binary; its own name, so that it harms no other.
const LAB: &str = "agent-tests";

/// Environment variable with the engine's address, from the outer test run to the inner one.
const ENGINE: &str = "AGENT_TEST_ENGINE";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // What is measured is measured alone.
    arguments.test_threads = Some(1);
    if arguments.list || std::env::var_os(ENGINE).is_some() {
        return libtest_mimic::run(&arguments, trials()).exit_code();
    }
    let lab = Lab::ensure(&LabSpec { name: LAB.into(), hosts: 1, ..LabSpec::default() });
    let lab = lab.expect("a lab; it needs root and Debian's docker.io");
    let line = lab.enter("h1").expect("a host that is on");
    let myself = std::env::current_exe().expect("a path");
    let status = Command::new(&line[0])
        .args(&line[1..])
        .arg(myself)
        .args(std::env::args().skip(1))
        .env(ENGINE, format!("unix:///run/herder-lab/{LAB}/h1/docker.sock"))
        .status();
    lab.down().expect("nothing is left");
    if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn trials() -> Vec<Trial> {
    fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
        Trial::test(name, move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(test());
            Ok(())
        })
    }
    vec![
        trial("a_task_runs_until_it_shall_stop_and_stays_as_history", a_task_runs_until_it_shall_stop),
        trial("a_task_that_ends_is_told_with_its_exit_code", a_task_that_ends_is_told),
        trial("what_cannot_be_made_or_started_is_told_as_swarm_mode_tells_it", what_cannot_be_made),
        trial("a_prepared_task_waits_for_its_turn", a_prepared_task_waits),
        trial("a_task_runs_when_its_check_says_so_and_fails_when_it_gives_up", health),
        trial("a_secret_is_in_the_container_and_on_no_disk", a_secret_is_in_the_container),
        trial("a_new_agent_takes_over_what_is_there", a_new_agent_takes_over),
        trial("what_happened_while_the_engine_was_out_of_reach_is_told", out_of_reach),
        trial("ports_of_the_node_are_told", ports_are_told),
        trial("a_missing_image_is_brought_from_another_node_once", images_are_brought),
        trial("a_missing_image_is_pulled_and_a_newer_one_where_there_are_credentials", images_are_pulled),
        trial("without_a_lease_a_fenced_task_is_stopped", fences),
        trial("a_node_that_leaves_has_nothing_left", leaving),
        trial("a_node_describes_itself", description),
    ]
}

/// Returns a container that ends at once when it is stopped.
fn waits() -> serde_json::Value {
    json!({"Args": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]})
}

async fn a_task_runs_until_it_shall_stop() {
    let mut world = World::new("runs");
    world.want("t1", TaskState::Running, waits());
    world.start();
    world.assign();
    let status = world.until_state("t1", TaskState::Running).await;
    let container = status.container_status.clone().expect("a container");
    assert_eq!((&*status.message, &*status.err, status.state), ("started", "", TaskState::Running));
    assert!(container.pid > 0 && container.container_id.len() == 64, "{container:?}");
    assert_eq!(world.containers("{{.Names}} {{.Image}}"), "web.1.t1 busybox:latest");

    world.desire("t1", TaskState::Shutdown);
    let status = world.until_state("t1", TaskState::Shutdown).await;
    assert_eq!((status.state, &*status.message), (TaskState::Shutdown, "shutdown"));
    assert_eq!(status.container_status.map(|it| (it.pid, it.exit_code)), Some((0, 0)));
    // As history.
    assert!(world.containers("{{.Status}}").starts_with("Exited (0)"));

    world.told.tasks.clear();
    world.assign();
    until("the container is removed", || world.containers("{{.Names}}").is_empty()).await;

    // Scaled down: stopped and removed without another word.
    world.want("t2", TaskState::Running, waits());
    world.assign();
    world.until_state("t2", TaskState::Running).await;
    world.desire("t2", TaskState::Remove);
    world.until_state("t2", TaskState::Shutdown).await;
    until("the container is removed", || world.containers("{{.Names}}").is_empty()).await;
}

async fn a_task_that_ends_is_told() {
    let mut world = World::new("ends");
    world.want("bad", TaskState::Running, json!({"Args": ["sh", "-c", "exit 3"]}));
    world.want("good", TaskState::Running, json!({"Args": ["true"]}));
    world.want("later", TaskState::Running, json!({"Args": ["sleep", "1000"]}));
    world.start();
    world.assign();
    let bad = world.until_state("bad", TaskState::Complete).await;
    assert_eq!((bad.state, &*bad.message, &*bad.err), (TaskState::Failed, "started", "task: non-zero exit (3)"));
    assert_eq!(bad.container_status.map(|it| it.exit_code), Some(3));
    let good = world.until_state("good", TaskState::Complete).await;
    assert_eq!((good.state, &*good.message, &*good.err), (TaskState::Complete, "finished", ""));
    world.until_state("later", TaskState::Running).await;
    docker(&["kill", "web.1.later"]);
    let later = world.until_state("later", TaskState::Complete).await;
    assert_eq!((later.state, &*later.err), (TaskState::Failed, "task: non-zero exit (137)"));
    docker(&["rm", "-f", "web.1.later"]);
    for states in world.history.values() {
        assert!(states.is_sorted(), "{states:?}");
    }
}

async fn what_cannot_be_made() {
    let mut world = World::new("cannot");
    let bind = json!({"Mounts": [{"Type": "bind", "Source": "/nope", "Target": "/x"}]});
    world.want("bind", TaskState::Running, bind);
    world.want("program", TaskState::Running, json!({"Args": ["/nope"]}));
    world.want("user", TaskState::Running, json!({"User": "nobodyx", "Args": ["true"]}));
    world.want("image", TaskState::Running, json!({"Image": "127.0.0.1:1/nosuchimage:1"}));
    world.want(
        "secret",
        TaskState::Running,
        json!({"Secrets": [{"SecretID": "x", "SecretName": "x",
        "File": {"Name": "x"}}]}),
    );
    world.start();
    world.assign();
    for (id, state, message, err, code) in [
        (
            "bind",
            TaskState::Rejected,
            "preparing",
            r#"invalid mount config for type "bind": bind source path does not exist: /nope"#,
            0,
        ),
        ("program", TaskState::Failed, "starting", "starting container failed: ", 127),
        (
            "user",
            TaskState::Failed,
            "starting",
            "starting container failed: unable to find user nobodyx: no matching entries in passwd file",
            128,
        ),
        ("secret", TaskState::Rejected, "preparing", "secret x not found", 0),
        ("image", TaskState::Rejected, "preparing", "No such image: 127.0.0.1:1/nosuchimage:1", 0),
    ] {
        let status = world.until_state(id, TaskState::Complete).await;
        assert_eq!((status.state, &*status.message), (state, message), "{id}: {status:?}");
        assert!(status.err.starts_with(err), "{id}: {}", status.err);
        assert_eq!(status.container_status.map(|it| it.exit_code), Some(code), "{id}");
    }
}

async fn a_prepared_task_waits() {
    let mut world = World::new("ready");
    world.want("t1", TaskState::Ready, waits());
    world.start();
    world.assign();
    let status = world.until_state("t1", TaskState::Ready).await;
    assert_eq!((status.state, &*status.message), (TaskState::Ready, "prepared"));
    assert_eq!(world.containers("{{.Status}}"), "Created");
    world.desire("t1", TaskState::Running);
    world.until_state("t1", TaskState::Running).await;
    assert!(world.containers("{{.Status}}").starts_with("Up"));
}

async fn health() {
    let mut world = World::new("health");
    let check = json!({"Test": ["CMD", "test", "-f", "/tmp/ok"], "Interval": 200_000_000, "Retries": 20});
    let mut container = waits();
    container["Healthcheck"] = check;
    world.want("t1", TaskState::Running, container.clone());
    container["Healthcheck"]["Retries"] = 1.into();
    world.want("t2", TaskState::Running, container);
    world.start();
    world.assign();
    world.until_state("t1", TaskState::Starting).await;
    until("it runs", || docker(&["inspect", "-f", "{{.State.Health.Status}}", "web.1.t1"]) == "starting").await;
    assert_eq!(world.seen["t1"].state, TaskState::Starting);
    docker(&["exec", "web.1.t1", "touch", "/tmp/ok"]);
    world.until_state("t1", TaskState::Running).await;
    docker(&["exec", "web.1.t1", "rm", "/tmp/ok"]);
    for id in ["t1", "t2"] {
        let status = world.until_state(id, TaskState::Complete).await;
        assert_eq!((status.state, &*status.err), (TaskState::Failed, "dockerexec: unhealthy container"));
    }
}

async fn a_secret_is_in_the_container() {
    let mut world = World::new("secret");
    let mut container = waits();
    container["Secrets"] = json!([
        {"SecretID": "x", "SecretName": "x", "File": {"Name": "x", "UID": "1", "GID": "2", "Mode": 0o440}},
        {"SecretID": "x", "SecretName": "x", "File": {"Name": "/etc/deep/y", "UID": "0", "GID": "0", "Mode": 0o444}},
    ]);
    world.want("t1", TaskState::Running, container);
    world.secret("x", "very-secret");
    world.start();
    world.assign();
    world.until_state("t1", TaskState::Running).await;
    let exec = |command: &str| docker(&["exec", "web.1.t1", "sh", "-c", command]);
    assert_eq!(exec("cat /run/secrets/x /etc/deep/y"), "very-secretvery-secret");
    assert_eq!(exec("stat -c '%a %u:%g' /run/secrets/x"), "440 1:2");
    assert!(exec("echo >/run/secrets/x").contains("Read-only file system"));
    let files = world.folder.join("files");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let here = format!("tmpfs {} tmpfs", files.display());
    assert!(mounts.lines().any(|line| line.starts_with(&here)), "{mounts}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&files).expect("a folder").permissions());
    assert_eq!(mode & 0o777, 0o700);
    assert!(!docker(&["inspect", "web.1.t1"]).contains("very-secret"));
    // A new agent finds the file system and makes no second one.
    world.crash();
    world.start();
    world.assign();
    world.until_state("t1", TaskState::Running).await;
    world.want(
        "t2",
        TaskState::Running,
        json!({"Args": ["cat", "/run/secrets/x"],
        "Secrets": [{"SecretID": "x", "SecretName": "x", "File": {"Name": "x", "Mode": 0o400}}]}),
    );
    world.assign();
    world.until_state("t2", TaskState::Complete).await;
    assert_eq!(docker(&["logs", "web.1.t2"]), "very-secret");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert_eq!(mounts.lines().filter(|line| line.starts_with(&here)).count(), 1);
    world.desire("t1", TaskState::Shutdown);
    world.until_state("t1", TaskState::Shutdown).await;
    until("the files are gone", || std::fs::read_dir(&files).is_ok_and(|mut entries| entries.next().is_none())).await;
}

async fn a_new_agent_takes_over() {
    let mut world = World::new("adopts");
    for id in ["stays", "dies", "goes", "forgotten"] {
        world.want(id, TaskState::Running, waits());
    }
    world.start();
    world.assign();
    for id in ["stays", "dies", "goes", "forgotten"] {
        world.until_state(id, TaskState::Running).await;
    }
    let before = world.seen["stays"].container_status.clone();
    world.crash();
    docker(&["kill", "web.1.dies"]);
    docker(&["rm", "-f", "web.1.goes"]);
    world.told.tasks.retain(|record| record.task.id != "forgotten");
    for id in ["dies", "goes"] {
        world.change(id, |record| record.task.status.state = TaskState::Running);
    }
    world.seen.clear();
    world.start();
    // Nobody has said anything yet, so nothing is touched.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(world.containers("{{.Names}}").contains("forgotten"));
    world.assign();
    let stays = world.until_state("stays", TaskState::Running).await;
    assert_eq!((stays.state, stays.container_status), (TaskState::Running, before));
    let dies = world.until_state("dies", TaskState::Complete).await;
    assert_eq!((dies.state, &*dies.err), (TaskState::Failed, "task: non-zero exit (137)"));
    let goes = world.until_state("goes", TaskState::Complete).await;
    assert_eq!((goes.state, &*goes.err), (TaskState::Failed, "No such container: web.1.goes"));
    until("the forgotten one is removed", || !world.containers("{{.Names}}").contains("forgotten")).await;
}

/// Passes bytes on to the engine, while it is not cut.
async fn proxy(whole: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let socket = world::engine().trim_start_matches("unix://").to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut whole, socket) = (whole.clone(), socket.clone());
            tokio::spawn(async move {
                if !*whole.borrow() {
                    return;
                }
                let mut engine = UnixStream::connect(socket).await.expect("an engine");
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut engine) => {}
                    _ = whole.wait_for(|whole| !whole) => {}
                }
            });
        }
    });
    address
}

async fn out_of_reach() {
    let (whole, seen) = watch::channel(true);
    let mut world = World::new("cut");
    world.engine = proxy(seen).await;
    world.want("dies", TaskState::Running, waits());
    world.want("stays", TaskState::Running, waits());
    world.start();
    world.assign();
    for id in ["dies", "stays"] {
        world.until_state(id, TaskState::Running).await;
    }
    whole.send_replace(false);
    docker(&["kill", "web.1.dies"]);
    world.want("new", TaskState::Running, waits());
    world.desire("stays", TaskState::Shutdown);
    // Long enough to fail some times.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(world.seen["dies"].state, TaskState::Running);
    whole.send_replace(true);
    assert_eq!(world.until_state("dies", TaskState::Complete).await.err, "task: non-zero exit (137)");
    world.until_state("new", TaskState::Running).await;
    world.until_state("stays", TaskState::Shutdown).await;
}

async fn ports_are_told() {
    let mut world = World::new("ports");
    world.want("t1", TaskState::Running, waits());
    let port = |target, published| PortConfig {
        protocol: "tcp".into(),
        target_port: target,
        published_port: published,
        publish_mode: "host".into(),
        ..PortConfig::default()
    };
    world.change("t1", |record| record.ports = vec![port(80, 18_080), port(81, 0)]);
    world.start();
    world.assign();
    let ports = world.until_state("t1", TaskState::Running).await.port_status.ports;
    assert!(ports.contains(&port(80, 18_080)), "{ports:?}");
    let other = ports.iter().find(|port| port.target_port == 81).expect("a port");
    assert!(other.published_port > 0 && other.publish_mode == "host", "{other:?}");
    world.desire("t1", TaskState::Shutdown);
    assert_eq!(world.until_state("t1", TaskState::Shutdown).await.port_status.ports, []);
}

/// Another node that has every image of one name.
#[derive(Debug)]
struct Neighbour {
    asked: watch::Sender<Vec<String>>,
}

impl Images for Neighbour {
    fn bring<'b>(&'b self, image: &'b str) -> BoxFuture<'b, Result<bool, String>> {
        self.asked.send_modify(|asked| asked.push(image.to_owned()));
        async move { Ok(docker(&["tag", "busybox:latest", image]).is_empty()) }.boxed()
    }
}

async fn images_are_brought() {
    let mut world = World::new("images");
    let neighbour = Arc::new(Neighbour { asked: watch::Sender::default() });
    world.images = neighbour.clone();
    for id in ["t1", "t2", "t3"] {
        let mut container = waits();
        container["Image"] = "from-a-neighbour".into();
        world.want(id, TaskState::Running, container);
    }
    world.start();
    world.assign();
    for id in ["t1", "t2", "t3"] {
        world.until_state(id, TaskState::Running).await;
    }
    let asked = neighbour.asked.borrow().clone();
    assert_eq!(asked[0], "from-a-neighbour:latest");
    assert_eq!(asked.len(), 1, "{asked:?}");
    docker(&["rmi", "from-a-neighbour"]);
}

/// A registry inside the host; ends with the value.
struct Registry(Child);

impl Registry {
    fn start(folder: &Path, address: &str) -> Registry {
        let root = folder.join("registry").display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\nhttp: {{addr: \"{address}\"}}\n"
        );
        let path = folder.join("registry.yml");
        std::fs::write(&path, config).expect("a file");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(path).env("OTEL_TRACES_EXPORTER", "none").stderr(Stdio::null()).stdout(Stdio::null());
        Registry(command.spawn().expect("Debian's docker-registry"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn images_are_pulled() {
    let mut world = World::new("pulls");
    let registry = Registry::start(&world.folder, "127.0.0.1:5001");
    let image = "127.0.0.1:5001/me/app:1";
    let push = |text: &str| {
        docker(&["run", "--name", "pulls-build", "busybox", "sh", "-c", &format!("echo {text} >/text")]);
        docker(&["commit", "pulls-build", image]);
        docker(&["rm", "pulls-build"]);
        docker(&["push", image])
    };
    until("the registry takes the image", || push("one").contains("digest: sha256:")).await;
    docker(&["rmi", image]);
    let cat = json!({"Image": image, "Args": ["cat", "/text"]});
    world.want("t1", TaskState::Running, cat.clone());
    world.start();
    world.assign();
    assert_eq!(world.until_state("t1", TaskState::Complete).await.err, "");
    assert_eq!(docker(&["logs", "web.1.t1"]), "one");

    // Newer in the registry; here, the old one.
    push("two");
    docker(&["rmi", image]);
    docker(&["tag", &docker(&["inspect", "-f", "{{.Image}}", "web.1.t1"]), image]);
    world.want("t2", TaskState::Running, cat.clone());
    world.assign();
    world.until_state("t2", TaskState::Complete).await;
    assert_eq!(docker(&["logs", "web.1.t2"]), "one");
    let with_credentials = ServiceFacts { registry_auth: "e30=".into(), ..ServiceFacts::default() };
    world.told.services.insert("s1".into(), with_credentials);
    world.want("t3", TaskState::Running, cat.clone());
    world.assign();
    world.until_state("t3", TaskState::Complete).await;
    assert_eq!(docker(&["logs", "web.1.t3"]), "two");

    // By its digest, which is no other image's.
    let digest = docker(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", image]);
    let digest = digest.split_once('@').expect("a digest").1.to_owned();
    world.told.tasks.clear();
    world.assign();
    until("nothing uses it", || world.containers("{{.Names}}").is_empty()).await;
    docker(&["rmi", "-f", image]);
    let mut pinned = cat.clone();
    pinned["Image"] = format!("{image}@{digest}").into();
    world.want("t4", TaskState::Running, pinned);
    world.assign();
    assert_eq!(world.until_state("t4", TaskState::Complete).await.err, "");
    assert_eq!(docker(&["logs", "web.1.t4"]), "two");

    // The registry is away, and what is here is used.
    drop(registry);
    docker(&["tag", "busybox", image]);
    world.want("t5", TaskState::Running, json!({"Image": image, "Args": ["true"]}));
    world.assign();
    assert_eq!(world.until_state("t5", TaskState::Complete).await.state, TaskState::Complete);
}

async fn fences() {
    let mut world = World::new("fence");
    let fenced = ServiceFacts { labels: [("herder.fence".into(), "true".into())].into(), ..ServiceFacts::default() };
    // Has all the time in the world, and gets none.
    let stubborn = json!({"Args": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
        "StopGracePeriod": 3_600_000_000_000_i64});
    world.want("t1", TaskState::Running, stubborn);
    world.start();
    let long = tokio::time::Instant::now() + Duration::from_secs(60);
    world.agent().lease(long);
    world.assign();
    world.until_state("t1", TaskState::Running).await;
    // Its service gets the label while it runs.
    world.told.services.insert("s1".into(), fenced);
    world.assign();
    let before = Instant::now();
    world.agent().lease(tokio::time::Instant::now() + Duration::from_millis(200));
    let status = world.until_state("t1", TaskState::Complete).await;
    assert_eq!(status.state, TaskState::Failed);
    assert!(status.err.contains("herder.fence"), "{}", status.err);
    let took = before.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");

    // Stopped, and cut off before it has ended.
    let stubborn = world.told.tasks[0].task.spec.container_spec.clone();
    world.want("t3", TaskState::Running, serde_json::to_value(stubborn).expect("json"));
    world.agent().lease(long);
    world.assign();
    world.until_state("t3", TaskState::Running).await;
    world.desire("t3", TaskState::Shutdown);
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.agent().lease(tokio::time::Instant::now());
    world.until_state("t3", TaskState::Complete).await;

    // Restarted where no manager is heard of: what may not run without them is stopped, too.
    world.agent().lease(long);
    world.want("t2", TaskState::Running, waits());
    world.assign();
    world.until_state("t2", TaskState::Running).await;
    let left = Duration::from_secs(1);
    world.agent().lease(tokio::time::Instant::now() + left);
    let before = Instant::now();
    world.crash();
    world.start();
    until("it is stopped", || docker(&["inspect", "-f", "{{.State.Running}}", "web.1.t2"]) == "false").await;
    assert!(before.elapsed() >= left, "{:?}", before.elapsed());
    world.agent().lease(long);
    world.seen.clear();
    // Managers have not heard that it ran.
    world.assign();
    let status = world.until_state("t2", TaskState::Complete).await;
    assert_eq!(status.state, TaskState::Failed);
}

async fn leaving() {
    let mut world = World::new("leaves");
    let mut container = waits();
    container["Secrets"] = json!([{"SecretID": "x", "SecretName": "x", "File": {"Name": "x"}}]);
    world.secret("x", "very-secret");
    world.want("t1", TaskState::Running, container);
    world.want("t2", TaskState::Running, waits());
    world.start();
    world.assign();
    for id in ["t1", "t2"] {
        world.until_state(id, TaskState::Running).await;
    }
    // The leader's next message was on its way.
    tokio::join!(world.agent().leave(), async { world.assign() });
    assert_eq!(world.containers("{{.Names}}"), "");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(&world.folder.display().to_string()), "{mounts}");
}

async fn description() {
    let mut world = World::new("describes");
    world.start();
    let description = world.agent().describe().await.expect("an engine");
    assert_eq!(description.hostname, "h1");
    assert_eq!((&*description.platform.architecture, &*description.platform.os), (std::env::consts::ARCH, "linux"));
    assert!(description.resources.nano_cpus >= 1_000_000_000 && description.resources.memory_bytes > 1 << 20);
    assert!(description.engine.plugins.iter().any(|it| it.kind == "Network" && it.name == "bridge"));
}
