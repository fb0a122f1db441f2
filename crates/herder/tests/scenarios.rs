//! Plays the scenarios in `tests/scenarios/` with real clients against a real lab. It has three hosts, three Docker
//! Engines and one herder over them. Each file is one test; `cargo test --test scenarios NAME` plays those whose name
//! contains NAME. What a client may notice is played a second time against a pool of `herder up` on three hosts,
//! through the first one's endpoint: files with the line `# over a pool, too` in front. Two scenarios are played at
//! once, each in a lab of its own: most of a scenario's time is spent waiting.
//!
//! Needs root and the packages that `cargo xtask test` installs. A process that a scenario leaves in the background puts
//! its pid into a file `*.pid`; it is ended before the next scenario.

mod script;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

/// First part of the names of this run's labs. Two runs at once on one machine need two names: the variable
/// `SCENARIOS_LAB` gives another one. Labs that a scenario makes for itself are named after its lab and a hyphen, so
/// there is none in the names here.
static LAB: LazyLock<String> = LazyLock::new(|| std::env::var("SCENARIOS_LAB").unwrap_or("scenarios".into()));
/// Number of scenarios that are played at once.
const AT_ONCE: usize = 2;
/// A command of a scenario that takes longer hangs.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(120);
/// A scenario says how soon something must be seen on a machine that has nothing else to do. A busy one gets so many times that,
/// and what was late is told.
const PATIENCE: u32 = 10;
/// Time that commands themselves may take before they count as late.
const LATE: Duration = Duration::from_secs(1);
/// Interval of looks at a condition outside of this process.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(AT_ONCE).min(AT_ONCE));
    let (engines, pool) = (Arc::new(Stages::new(Stage::over_engines)), Arc::new(Stages::new(Stage::over_pool)));
    let paths = scenarios();
    let over_engines = paths.iter().flat_map(|path| trials(path, &engines));
    let over_pool = paths.iter().filter_map(|path| pool_trial(path, &pool));
    let conclusion = libtest_mimic::run(&arguments, over_engines.chain(over_pool).collect());
    for stages in [engines, pool] {
        stages.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
    conclusion.exit_code()
}

/// Labs of one kind. A scenario takes one that is idle, or makes one, and puts it back.
struct Stages {
    idle: Mutex<Vec<Stage>>,
    made: AtomicUsize,
    make: fn(usize) -> Stage,
}

impl Stages {
    fn new(make: fn(usize) -> Stage) -> Stages {
        Stages { idle: Mutex::default(), made: AtomicUsize::new(0), make }
    }

    fn play(&self, name: &str, text: &str, cli: &Path) -> Result<(), Failed> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let stage = idle.unwrap_or_else(|| (self.make)(self.made.fetch_add(1, Relaxed)));
        let started = Instant::now();
        let outcome = stage.play(text, cli);
        eprintln!("{name} took {:.1?}", started.elapsed());
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stage);
        outcome
    }
}

/// Returns the folder at run time. Two clones may share one target directory, and a program compiled in one may be run
/// in the other.
fn folder() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&package).join("tests/scenarios")
}

fn scenarios() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the folder of scenarios");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "txt"));
    paths.sort();
    paths
}

/// One trial for each docker CLI at hand if the script says `# with every docker CLI`, else one.
fn trials(path: &Path, stages: &Arc<Stages>) -> Vec<Trial> {
    let text = std::fs::read_to_string(path).expect("a readable scenario");
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let mut clis = docker_clis();
    if !text.starts_with("# with every docker CLI") {
        clis.truncate(1);
    }
    clis.into_iter().map(|cli| trial(format!("{name} ({})", cli.display()), text.clone(), cli, stages)).collect()
}

/// The same script over a pool, with the first docker CLI, if it says so.
fn pool_trial(path: &Path, stages: &Arc<Stages>) -> Option<Trial> {
    let text = std::fs::read_to_string(path).expect("a readable scenario");
    let mut head = text.lines().take_while(|line| line.starts_with('#'));
    if !head.any(|line| line == "# over a pool, too") {
        return None;
    }
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    Some(trial(format!("{name} (over a pool)"), text, docker_clis().swap_remove(0), stages))
}

fn trial(name: String, text: String, cli: PathBuf, stages: &Arc<Stages>) -> Trial {
    let stages = stages.clone();
    Trial::test(name.clone(), move || stages.play(&name, &text, &cli))
}

/// Newest first: whatever `docker` is on the PATH, then Debian's own 20.10.
fn docker_clis() -> Vec<PathBuf> {
    let mut clis: Vec<PathBuf> = ["/usr/local/bin/docker", "/usr/bin/docker"]
        .into_iter()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .collect();
    if clis.is_empty() {
        clis.push("docker".into());
    }
    clis
}

/// A lab with a herder over it, and a place for files.
struct Stage {
    lab: String,
    /// Over a pool, herders belong to the lab.
    herder: Option<Child>,
    /// Address of herder for clients.
    host: String,
    /// Ports for programs that scenarios start: `$P1` and so on.
    ports: Vec<u16>,
    folder: PathBuf,
    /// Folder of Compose v2 and docker-py.
    clients: PathBuf,
}

/// Number of ports for programs that scenarios start.
const PORTS: usize = 6;

/// Condition before a scenario: no lab of another scenario, no container, volume or network of its own, three healthy
/// nodes.
const CLEAN: &str = "\
for disk in /var/lib/herder-lab/$LAB-*; do [ -e $disk ] && herder lab down --name ${disk##*/}; done
for file in *.pid; do [ -e \"$file\" ] && kill -9 $(cat \"$file\") 2>/dev/null; rm -f \"$file\"; done
# One that was told to end by the last scenario may still hold its ports.
for process in /proc/[0-9]*; do
  [ \"$(readlink $process/cwd)\" = \"$PWD\" ] && [ \"$(cat $process/comm)\" = herder ] && kill -9 ${process#/proc/} || continue
  while [ \"$(readlink $process/cwd)\" = \"$PWD\" ]; do sleep 0.05; done
done 2>/dev/null
docker ps -aq | xargs -r docker rm -f; docker volume ls -q | xargs -r docker volume rm -f
docker network ls -q --filter type=custom | xargs -r docker network rm
docker info 2>/dev/null | grep -c 'Status: Healthy' | grep -qx 3 && exit
# A scenario that failed may have left engines dead, hung, cut off or with other settings.
herder lab heal --name $LAB
for host in h1 h2 h3; do herder lab resume --name $LAB $host; herder lab kill --name $LAB $host; herder lab start --name $LAB $host; done
until docker info 2>/dev/null | grep -c 'Status: Healthy' | grep -qx 3; do sleep 0.1; done";

impl Stage {
    /// One `herder manage` over three engines.
    fn over_engines(index: usize) -> Stage {
        let mut stage = Stage::set_up(format!("{}{index}", *LAB), &[]);
        let port = stage.ports.remove(0);
        let log = std::fs::File::create(stage.folder.join("herder.log")).expect("a log file");
        let herder = Command::new(env!("CARGO_BIN_EXE_herder"))
            .args(["manage", "--host", &format!("tcp://127.0.0.1:{port}"), &engines(&stage.lab).join(",")])
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a second handle"))
            .stdout(log)
            .spawn()
            .expect("herder starts");
        stage.herder = Some(herder);
        stage.host = format!("tcp://127.0.0.1:{port}");
        stage.until_healthy()
    }

    /// `herder up` on three hosts.
    fn over_pool(index: usize) -> Stage {
        let mut stage = Stage::set_up(format!("{}p{index}", *LAB), &["--herder"]);
        stage.host = format!("tcp://{}", hosts(&stage.lab, "herder_host")[0]);
        stage.until_healthy()
    }

    fn set_up(name: String, more: &[&str]) -> Stage {
        let folder = std::env::temp_dir().join(format!("herder-{name}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("bin")).expect("a folder for the scenarios");
        // What an aborted run left behind.
        lab(&name, &["down"]);
        let clients = clients(&folder);
        write_tool(&folder.join("bin/places"), PLACES);
        let labels = ["h1:zone=a,disk=ssd", "h2:zone=b,disk=hdd", "h3:zone=c,disk=hdd,containerslots=20"];
        let up = ["up", "--hosts", "3", "--labels", labels[0], "--labels", labels[1], "--labels", labels[2]];
        assert!(lab(&name, &[&up, more].concat()), "the lab did not come up; it needs root and Debian's docker.io");
        Stage { lab: name, herder: None, host: String::new(), ports: free_ports(PORTS + 1), folder, clients }
    }

    fn until_healthy(self) -> Stage {
        self.play("within 15s $ docker info 2>/dev/null | grep -c 'Status: Healthy'\n  3", &docker_clis()[0])
            .expect("herder sees three healthy nodes");
        self
    }

    /// Plays one script from a clean cluster.
    fn play(&self, text: &str, cli: &Path) -> Result<(), Failed> {
        let link = self.folder.join("bin/docker");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(cli, &link)?;
        self.run(CLEAN);
        let started = Instant::now();
        for step in script::parse(text)? {
            let tried = Instant::now();
            loop {
                let (output, exit) = self.run(&step.command);
                match step.judge(&output, exit) {
                    Ok(()) => {
                        if !step.within.is_zero() && tried.elapsed() > step.within + LATE {
                            eprintln!("late: line {} took {:.1?}: $ {}", step.line, tried.elapsed(), step.command);
                        }
                        break;
                    }
                    Err(_) if tried.elapsed() < step.within * PATIENCE => std::thread::sleep(LOOK_PERIOD),
                    Err(reason) => {
                        let log = std::fs::read_to_string(self.folder.join("herder.log")).unwrap_or_default();
                        let tail: Vec<&str> = log.lines().rev().take(15).collect();
                        let tail: Vec<&str> = tail.into_iter().rev().collect();
                        return Err(format!(
                            "line {}: $ {}\n{output}{reason}\n(after {:.1?}; herder's log ends with)\n{}",
                            step.line,
                            step.command,
                            started.elapsed(),
                            tail.join("\n")
                        )
                        .into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs a shell command as a user would, with the client under test first on the PATH. Returns its output (both
    /// streams) and its exit code.
    fn run(&self, command: &str) -> (String, i32) {
        let herder = Path::new(env!("CARGO_BIN_EXE_herder")).parent().expect("a folder").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let addresses = engines(&self.lab);
        let pid = self.herder.as_ref().map(|herder| herder.id().to_string());
        // Into a file: what a command leaves in the background would hold a pipe open.
        let printed = self.folder.join("printed");
        let file = std::fs::File::create(&printed).expect("a file for the output");
        let mut child = Command::new("timeout")
            .args(["--kill-after=1", &COMMAND_TIME_MAX.as_secs().to_string(), "sh", "-c", command])
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{herder}:{path}", self.folder.join("bin").display()))
            .env("DOCKER_HOST", &self.host)
            .env("HERDER_PID", pid.unwrap_or_default())
            .env("LAB", &self.lab)
            .env("H1", &addresses[0])
            .env("H2", &addresses[1])
            .env("H3", &addresses[2])
            .envs(self.ports.iter().enumerate().map(|(index, port)| (format!("P{}", index + 1), port.to_string())))
            .env("SCENARIOS", folder())
            .env("PYTHON", self.clients.join("docker-py/bin/python"))
            // Nobody's own settings of the docker CLI.
            .env("DOCKER_CONFIG", self.folder.join("config"))
            .env_remove("DOCKER_API_VERSION")
            .stdin(Stdio::null())
            .stderr(file.try_clone().expect("a second handle"))
            .stdout(file)
            .spawn()
            .expect("a shell");
        let exit = child.wait().expect("an exit code").code().unwrap_or(-1);
        let output = std::fs::read(&printed).expect("the output");
        (String::from_utf8_lossy(&output).into_owned(), exit)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.run(CLEAN);
        if let Some(herder) = &mut self.herder {
            let _ = herder.kill();
            let _ = herder.wait();
        }
        lab(&self.lab, &["down"]);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Prints `node/name` of each container that `docker ps` with these options shows.
const PLACES: &str = "#!/bin/sh\ndocker ps --no-trunc --format '{{.Names}}' \"$@\" | tr , '\\n' | grep /\n";

fn write_tool(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).expect("a tool for scenarios");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a tool that can be run");
}

fn lab(name: &str, arguments: &[&str]) -> bool {
    let (verb, rest) = arguments.split_first().expect("a verb");
    let mut command = Command::new(env!("CARGO_BIN_EXE_herder"));
    command
        .args(["lab", verb, "--name", name])
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().expect("herder starts").success()
}

/// `host:port` of each engine of the lab.
fn engines(lab: &str) -> Vec<String> {
    hosts(lab, "docker_host")
}

/// `host:port` of the engine or herder of each host, as `herder lab status` tells.
fn hosts(lab: &str, which: &str) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herder"));
    let output = command.args(["lab", "status", "--name", lab, "--format", "json"]).output().expect("herder starts");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let hosts = status["hosts"].as_array().cloned().unwrap_or_default();
    hosts.iter().filter_map(|host| host[which].as_str()).map(|url| url.trim_start_matches("tcp://").into()).collect()
}

/// Returns free ports, none twice in one run. The kernel gives none of them to a client as its own, as it does from
/// 32768 on. Where the search begins differs from run to run.
fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let first = (*next).max(10_000 + u16::try_from(std::process::id() % 10_000).expect("less than 10,000"));
    let free: Vec<u16> =
        (first..32_768).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect();
    assert_eq!(free.len(), count, "too few ports are free from {first} on");
    *next = free.last().map_or(first, |port| port + 1);
    free
}

/// Brings Compose v2 and docker-py, once, and makes `docker compose` known to the docker CLI.
fn clients(folder: &Path) -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let script = Path::new(&package).join("../../xtask/assets/fetch-clients.sh");
    let clients = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    let output = Command::new(script).arg(&clients).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plugins = folder.join("config/cli-plugins");
    std::fs::create_dir_all(&plugins).expect("a folder for plugins");
    std::os::unix::fs::symlink(clients.join("compose/docker-compose"), plugins.join("docker-compose"))
        .expect("a link to Compose");
    clients
}
