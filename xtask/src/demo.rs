//! `cargo xtask demo`: three hosts with a swarm, and the voting application on overlay networks. It is published under
//! a host name with a certificate. It then scales, updates, and loses a host while people vote.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::{packages, run};

const LAB: &str = "demo";
/// Limit of every wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// The target whose programs need no libraries: the image is one file.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";
const STACK: &str = "examples/voting/stack.yml";
/// Ports of the vote page and of the result page on every node.
const VOTE_PORT: u16 = 5000;
const RESULT_PORT: u16 = 5001;
/// The name of the vote page, in the stack file.
const NAME: &str = "vote.example";
/// Starts an authority for tests in the present folder.
const AUTHORITY: &str = "crates/herder/tests/scenarios/51-pebble.sh";
/// Pause between two votes of the one who votes all the time.
const VOTE_PERIOD: Duration = Duration::from_millis(50);

pub(crate) fn run(once: bool) -> anyhow::Result<()> {
    // Before anything is made: Ctrl-C then ends the waiting, not the program, so that everything is removed.
    let (sender, ctrl_c) = mpsc::channel();
    ctrlc::set_handler(move || {
        // A second Ctrl-C finds nobody waiting any more.
        let _ = sender.send(());
    })?;
    packages::ensure(&[packages::LAB, packages::AUTHORITY])?;
    println!("Building herder and the voting application …");
    run::cargo(&["build", "--package", "herder"])?;
    let mut build = Command::new(run::cargo_path());
    build.args(["build", "--release", "--package", "voting", "--target", STATIC_TARGET]);
    run::check(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let mut demo = Demo::start()?;
    demo.swarm()?;
    demo.open()?;
    demo.deploy()?;
    demo.named()?;
    demo.vote()?;
    demo.change()?;
    demo.heal()?;
    demo.named()?;
    demo.invite();
    if once {
        return Ok(());
    }
    println!("\nCtrl-C ends the demo and removes everything that it made.");
    ctrl_c.recv().map_err(Into::into)
}

/// One host of the lab.
struct Host {
    address: String,
    /// herder's door there: `tcp://…`.
    door: String,
}

/// The started programs; its drop cleans up.
struct Demo {
    herder: PathBuf,
    hosts: Vec<Host>,
    /// Index of the host whose door is used.
    door: usize,
    /// Votes that were accepted.
    votes: u64,
    /// Folder of the authority that certifies the name.
    authority: PathBuf,
}

/// Someone who votes by these addresses in turn, each vote over a new connection, until told to stop.
struct Voter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

#[derive(Default)]
struct Tally {
    accepted: u64,
    failed: u64,
}

impl Demo {
    fn start() -> anyhow::Result<Demo> {
        let (herder, authority) = (run::target()?.join("debug/herder"), run::target()?.join("demo-authority"));
        std::fs::create_dir_all(&authority)?;
        // Ids of an earlier run may be those of others now.
        let _ = std::fs::remove_file(authority.join("pebble.pid"));
        let mut demo = Demo { herder, hosts: Vec::new(), door: 0, votes: 0, authority };
        println!("Starting a lab of three hosts, herder on each …");
        run::check(&mut demo.lab(&["down"]))?;
        run::check(demo.lab(&["up", "--hosts", "3", "--herder"]).stdout(Stdio::null()))?;
        let status: serde_json::Value =
            serde_json::from_str(&run::read(&mut demo.lab(&["status", "--format", "json"]))?)?;
        let host = |host: &serde_json::Value| {
            let engine = host["docker_host"].as_str()?.strip_prefix("tcp://")?;
            Some(Host { address: engine.split(':').next()?.to_owned(), door: host["herder_host"].as_str()?.to_owned() })
        };
        demo.hosts = status["hosts"].as_array().into_iter().flatten().filter_map(host).collect();
        demo.until("three healthy nodes", || Ok(demo.says(&["info"])?.matches("Status: Healthy").count() == 3))?;
        Ok(demo)
    }

    /// The pool becomes a swarm; every node manages, so that any may be lost.
    fn swarm(&self) -> anyhow::Result<()> {
        println!("Making the pool a swarm …");
        self.does(&["swarm", "init"])?;
        self.until("a swarm of three", || Ok(self.says(&["node", "ls", "-q"])?.lines().count() == 3))?;
        self.does(&["node", "promote", "h2", "h3"])?;
        self.until("three managers", || {
            Ok(self.says(&["node", "ls", "--format", "{{.ManagerStatus}}"])?.matches("Reachable").count() == 2)
        })?;
        run::check(&mut self.docker(&["node", "ls"]))
    }

    /// All nodes listen for requests by name, with certificates of an authority for tests that runs on this machine.
    fn open(&self) -> anyhow::Result<()> {
        println!("\nStarting an authority, and enabling the ingress with it …");
        let first = &self.hosts.first().context("a host")?.address;
        let route = run::read(Command::new("ip").args(["-o", "route", "get", first]))?;
        let here = route.split_whitespace().skip_while(|it| *it != "src").nth(1).context("an address in the lab")?;
        let mut authority = Command::new("sh");
        authority.arg(std::env::current_dir()?.join(AUTHORITY)).args([here, NAME]);
        authority.args(self.hosts.iter().map(|host| &host.address)).current_dir(&self.authority);
        run::check(&mut authority)?;
        let root = self.authority.join("ca.pem");
        let resolver = format!("directory=https://{here}:14000/dir,root={},email=ops@{NAME}", root.display());
        let mut enable = Command::new(&self.herder);
        run::check(enable.args(["ingress", "enable", "--resolver", &resolver]).env("DOCKER_HOST", self.door()))?;
        let issuer = run::read(Command::new("curl").args(["-sfk", &format!("https://{here}:15000/roots/0")]))?;
        std::fs::write(self.authority.join("issuer.pem"), issuer).map_err(Into::into)
    }

    /// The vote page has its name, and each node that listens a certificate for it.
    fn named(&self) -> anyhow::Result<()> {
        let issuer = self.authority.join("issuer.pem");
        let ask = |host: &Host| {
            let (to, url) = (format!("::{}:", host.address), format!("https://{NAME}/"));
            let mut curl = Command::new("curl");
            curl.args(["-s", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", "--connect-to", &to, &url]);
            curl.arg("--cacert").arg(&issuer).output()
        };
        self.until("the vote page by its name", || {
            let answers = self.hosts.iter().map(|host| ask(host).map(|it| it.stdout == b"200"));
            Ok(answers.collect::<Result<Vec<bool>, _>>()?.into_iter().all(|it| it))
        })?;
        println!("https://{NAME} answers by all {} nodes, with a certificate of the authority.", self.hosts.len());
        Ok(())
    }

    /// The voting application from the stack file; its images without a registry.
    fn deploy(&self) -> anyhow::Result<()> {
        println!("\nDeploying the voting application …");
        let program = run::target()?.join(STATIC_TARGET).join("release/voting");
        let mut images = Command::new("sh");
        images.args(["examples/voting/images.sh", &program.to_string_lossy()]).env("DOCKER_HOST", self.door());
        run::check(&mut images)?;
        run::check(&mut self.docker(&["stack", "deploy", "--resolve-image", "never", "-c", STACK, "voting"]))?;
        self.settled()?;
        run::check(&mut self.docker(&["stack", "services", "voting"]))
    }

    fn vote(&mut self) -> anyhow::Result<()> {
        for host in self.hosts.iter().cycle().take(6) {
            let url = format!("http://{}:{VOTE_PORT}/", host.address);
            let line = ["-sf", "--retry", "5", "--retry-connrefused", "-o", "/dev/null", "-d", "vote=a", &url];
            run::check(Command::new("curl").args(line))?;
        }
        self.votes += 6;
        self.counted()?;
        println!("\nSix votes were cast, by all nodes, and counted.");
        Ok(())
    }

    fn change(&mut self) -> anyhow::Result<()> {
        let voter = Voter::begin(self.hosts.iter());
        let began = Instant::now();
        self.does(&["service", "scale", "--detach", "voting_vote=4"])?;
        self.settled()?;
        println!("Scaled the vote page from 2 to 4 in {:.1?}.", began.elapsed());
        let began = Instant::now();
        let text = std::fs::read_to_string(STACK)?.replace(":before", ":after").replace("replicas: 2", "replicas: 4");
        let after = run::target()?.join("demo-stack.yml");
        std::fs::write(&after, text)?;
        let after = after.to_string_lossy();
        self.does(&["stack", "deploy", "--resolve-image", "never", "-c", &after, "voting"])?;
        self.until("a completed update", || {
            Ok(self.says(&["service", "inspect", "voting_vote", "--format", "{{.UpdateStatus.State}}"])?.trim()
                == "completed")
        })?;
        println!(
            "Rolled out the other images, each new task healthy before an old one went, in {:.1?}.",
            began.elapsed()
        );
        self.tell(voter)
    }

    /// A host loses power, and comes back: one that has neither the queue nor the store.
    fn heal(&mut self) -> anyhow::Result<()> {
        let running = ["--filter", "desired-state=running", "--format", "{{.Node}}"];
        let used = self.says(&[&["service", "ps", "voting_redis", "voting_db"][..], &running].concat())?;
        let is_free = |number: &usize| !used.lines().any(|node| node == format!("h{number}"));
        let number = (1..=self.hosts.len()).rfind(is_free).context("a host without queue and store")?;
        let lost = format!("h{number}");
        self.door = usize::from(number == 1);
        let others = self.hosts.iter().enumerate().filter(|(index, _)| index + 1 != number);
        let voter = Voter::begin(others.map(|(_, host)| host));
        println!("\nHost {lost} loses power …");
        run::check(&mut self.lab(&["crash", &lost]))?;
        let began = Instant::now();
        self.until(&format!("{lost} to be seen as down"), || {
            Ok(self.says(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])?.contains(&format!("{lost} Down")))
        })?;
        println!("noticed after {:.1?};", began.elapsed());
        self.settled()?;
        println!("everything runs on the other two after {:.1?}.", began.elapsed());
        self.tell(voter)?;
        run::check(&mut self.lab(&["boot", &lost]))?;
        self.until(&format!("{lost} to be back"), || {
            Ok(self.says(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])?.contains(&format!("{lost} Ready")))
        })?;
        println!("{lost} has power again, and is a manager as before.\n");
        run::check(&mut self.docker(&["stack", "services", "voting"]))
    }

    fn tell(&mut self, voter: Voter) -> anyhow::Result<()> {
        let Tally { accepted, failed } = voter.end()?;
        self.votes += accepted;
        println!("Meanwhile {accepted} votes were accepted, and {failed} requests failed.");
        self.counted()?;
        println!("All {} votes are counted.", self.votes);
        Ok(())
    }

    fn invite(&self) {
        println!("\nLook:");
        for host in &self.hosts {
            println!("  vote http://{0}:{VOTE_PORT}   result http://{0}:{RESULT_PORT}", host.address);
        }
        let issuer = self.authority.join("issuer.pem");
        if let Some(host) = self.hosts.first() {
            println!("  curl --cacert {} --connect-to ::{}: https://{NAME}/", issuer.display(), host.address);
        }
        println!("\nTry:\n  export DOCKER_HOST={}", self.door());
        println!("  docker info; docker node ls; docker service ls; docker service ps voting_vote");
        println!("  docker network ls; docker network inspect --verbose voting_frontend");
        println!("  docker service scale voting_vote=12; docker service logs voting_worker");
        println!("  {0} why voting_vote -H $DOCKER_HOST; {0} ingress ls; {0} cert ls", self.herder.display());
        println!("  {} lab crash h2 --name {LAB}; docker service ls", self.herder.display());
        println!("  docker ps; docker run --rm -it busybox");
    }

    /// Every service runs as often as it was declared.
    fn settled(&self) -> anyhow::Result<()> {
        self.until("all tasks to run", || {
            let replicas = self.says(&["stack", "services", "voting", "--format", "{{.Replicas}}"])?;
            let full = |line: &str| line.split_once('/').is_some_and(|(run, wanted)| run == wanted);
            Ok(replicas.lines().count() == 5 && replicas.lines().all(full))
        })
    }

    /// Waits until the result page, which each node shows, has all votes that were accepted.
    fn counted(&self) -> anyhow::Result<()> {
        self.until("all votes to be counted", || {
            let Some(host) = self.hosts.get(self.door) else { return Ok(false) };
            let url = format!("http://{}:{RESULT_PORT}/scores", host.address);
            let scores = Command::new("curl").args(["-sf", "--max-time", "5", &url]).output()?;
            let Ok(scores) = serde_json::from_slice::<serde_json::Value>(&scores.stdout) else { return Ok(false) };
            Ok(scores["a"].as_u64().zip(scores["b"].as_u64()).is_some_and(|(a, b)| a + b >= self.votes))
        })
    }

    fn door(&self) -> &str {
        self.hosts.get(self.door).map_or("", |host| &host.door)
    }

    fn lab(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.herder);
        command.arg("lab").args(arguments).args(["--name", LAB]);
        command
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.door()).args(arguments);
        command
    }

    /// Returns docker's standard output.
    fn says(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&self.docker(arguments).stderr(Stdio::null()).output()?.stdout).into_owned())
    }

    /// Without what docker prints, unless it fails.
    fn does(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = self.docker(arguments).output()?;
        if !output.status.success() {
            bail!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let started = Instant::now();
        while !holds()? {
            if started.elapsed() > PATIENCE {
                let _ = self.docker(&["service", "ls"]).status();
                bail!("waited {PATIENCE:?} in vain for {what}; `docker service ls` says the above");
            }
            std::thread::sleep(LOOK_PERIOD);
        }
        Ok(())
    }
}

impl Voter {
    fn begin<'h>(hosts: impl Iterator<Item = &'h Host>) -> Voter {
        let urls: Vec<String> = hosts.map(|host| format!("http://{}:{VOTE_PORT}/", host.address)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let thread = thread::spawn(move || {
            let mut tally = Tally::default();
            for (number, url) in urls.iter().cycle().enumerate() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let vote = if number % 3 == 2 { "vote=b" } else { "vote=a" };
                let mut cast = Command::new("curl");
                cast.args(["-sf", "--max-time", "10", "-o", "/dev/null", "-d", vote, url]);
                match cast.status() {
                    Ok(status) if status.success() => tally.accepted += 1,
                    _ => tally.failed += 1,
                }
                thread::sleep(VOTE_PERIOD);
            }
            tally
        });
        Voter { stop, thread }
    }

    fn end(self) -> anyhow::Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the voter ended early"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        println!("\nCleaning up …");
        // The processes of the authority.
        let pids = std::fs::read_to_string(self.authority.join("pebble.pid")).unwrap_or_default();
        for pid in pids.split_whitespace() {
            let _ = Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status();
        }
        let _ = std::fs::remove_file(self.authority.join("pebble.pid"));
        let _ = self.lab(&["down"]).status();
    }
}
