//! `cargo xtask demo`: three hosts, herder on each, a swarm on them, the voting application on top. It then scales,
//! updates, and loses a host.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::{packages, run};

const LAB: &str = "demo";
/// Limit of every wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// The target whose programs need no libraries: the image is one file.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn run(once: bool) -> anyhow::Result<()> {
    // Before anything is made: Ctrl-C then ends the waiting, not the program, so that everything is removed.
    let (sender, ctrl_c) = mpsc::channel();
    ctrlc::set_handler(move || {
        // A second Ctrl-C finds nobody waiting any more.
        let _ = sender.send(());
    })?;
    packages::ensure(&[packages::LAB])?;
    println!("Building herder and the voting application …");
    run::cargo(&["build", "--package", "herder"])?;
    let mut build = Command::new(run::cargo_path());
    build.args(["build", "--release", "--package", "voting", "--target", STATIC_TARGET]);
    run::check(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let demo = Demo::start()?;
    demo.swarm()?;
    demo.deploy()?;
    demo.vote()?;
    demo.change()?;
    demo.heal()?;
    demo.invite()?;
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
}

impl Demo {
    fn start() -> anyhow::Result<Demo> {
        let mut demo = Demo { herder: run::target()?.join("debug/herder"), hosts: Vec::new() };
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
        for (host, zone) in [("h1", "zone=a"), ("h2", "zone=b"), ("h3", "zone=c")] {
            self.does(&["node", "update", "--label-add", zone, host])?;
        }
        self.until("three managers", || {
            Ok(self.says(&["node", "ls", "--format", "{{.ManagerStatus}}"])?.matches("Reachable").count() == 2)
        })?;
        run::check(&mut self.docker(&["node", "ls"]))
    }

    /// The voting application as a stack, its image without a registry, its secret only in memory.
    fn deploy(&self) -> anyhow::Result<()> {
        println!("\nDeploying the voting application …");
        let program = run::target()?.join(STATIC_TARGET).join("release");
        let mut tar =
            Command::new("tar").arg("-C").arg(program).args(["-c", "voting"]).stdout(Stdio::piped()).spawn()?;
        let image = tar.stdout.take().context("a pipe")?;
        let change = ["--change", r#"ENTRYPOINT ["/voting"]"#, "--change", r#"CMD ["vote"]"#];
        run::check(
            self.docker(&["import"]).args(change).args(["-", "voting:latest"]).stdin(image).stdout(Stdio::null()),
        )?;
        tar.wait()?;
        let mut random = Command::new("head").args(["-c", "24", "/dev/urandom"]).stdout(Stdio::piped()).spawn()?;
        let mut key =
            Command::new("base64").stdin(random.stdout.take().context("a pipe")?).stdout(Stdio::piped()).spawn()?;
        let key_text = key.stdout.take().context("a pipe")?;
        run::check(self.docker(&["secret", "create", "store_key", "-"]).stdin(key_text).stdout(Stdio::null()))?;
        random.wait()?;
        key.wait()?;
        let arguments = ["stack", "deploy", "--resolve-image", "never", "-c", "examples/voting/stack.yml", "voting"];
        let mut deploy = self.docker(&arguments);
        run::check(deploy.env("QUEUE_HOST", &self.hosts[0].address).env("STORE_HOST", &self.hosts[1].address))?;
        self.settled()?;
        run::check(&mut self.docker(&["stack", "services", "voting"]))
    }

    fn vote(&self) -> anyhow::Result<()> {
        let votes = self.published("vote")?;
        for (number, url) in votes.iter().cycle().take(6).enumerate() {
            let vote = if number % 3 == 2 { "vote=b" } else { "vote=a" };
            let line = ["-sf", "--retry", "5", "--retry-connrefused", "-o", "/dev/null", "-d", vote, url];
            run::check(Command::new("curl").args(line))?;
        }
        self.counted()?;
        println!("\nSix votes were cast and counted.");
        Ok(())
    }

    fn change(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        self.does(&["service", "scale", "--detach", "voting_vote=6"])?;
        self.settled()?;
        println!("Scaled the vote page from 3 to 6 in {:.1?}.", began.elapsed());
        let began = Instant::now();
        let update = ["service", "update", "--detach", "--env-add", "OPTION_B=Birds", "--update-parallelism", "2"];
        self.does(&[&update[..], &["--no-resolve-image", "voting_vote"]].concat())?;
        self.until("a completed update", || {
            Ok(self.says(&["service", "inspect", "voting_vote", "--format", "{{.UpdateStatus.State}}"])?.trim()
                == "completed")
        })?;
        println!(
            "Rolled out another option, two at a time, each new one healthy before an old one went, in {:.1?}.",
            began.elapsed()
        );
        Ok(())
    }

    /// A host loses power, and comes back.
    fn heal(&self) -> anyhow::Result<()> {
        println!("\nHost h3 loses power …");
        run::check(&mut self.lab(&["crash", "h3"]))?;
        let began = Instant::now();
        self.until("h3 to be seen as down", || {
            Ok(self.says(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])?.contains("h3 Down"))
        })?;
        println!("noticed after {:.1?};", began.elapsed());
        self.settled()?;
        println!("everything runs on the other two after {:.1?}.", began.elapsed());
        self.counted()?;
        run::check(&mut self.lab(&["boot", "h3"]))?;
        self.until("h3 to be back", || {
            Ok(self.says(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])?.contains("h3 Ready"))
        })?;
        println!("h3 has power again, and is a manager as before.\n");
        run::check(&mut self.docker(&["stack", "services", "voting"]))
    }

    fn invite(&self) -> anyhow::Result<()> {
        println!("\nLook:");
        for service in ["vote", "result"] {
            for url in self.published(service)? {
                println!("  {service:<8} {url}");
            }
        }
        println!("\nTry:\n  export DOCKER_HOST={}", self.hosts[0].door);
        println!("  docker info; docker node ls; docker service ls; docker service ps voting_vote");
        println!("  docker service scale voting_vote=12; docker service logs voting_worker");
        println!("  {} why voting_vote -H $DOCKER_HOST", self.herder.display());
        println!("  {} lab crash h2 --name {LAB}; docker service ls", self.herder.display());
        println!("  docker ps; docker run --rm -it busybox");
        Ok(())
    }

    /// Every service runs as often as it was declared.
    fn settled(&self) -> anyhow::Result<()> {
        self.until("all tasks to run", || {
            let replicas = self.says(&["stack", "services", "voting", "--format", "{{.Replicas}}"])?;
            let full = |line: &str| line.split_once('/').is_some_and(|(run, wanted)| run == wanted);
            Ok(replicas.lines().count() == 5 && replicas.lines().all(full))
        })
    }

    /// Waits until any result page shows the six votes.
    fn counted(&self) -> anyhow::Result<()> {
        self.until("six votes", || {
            let Some(result) = self.published("result")?.into_iter().next() else { return Ok(false) };
            let scores = Command::new("curl").args(["-sf", "--max-time", "5", &format!("{result}/scores")]).output()?;
            Ok(String::from_utf8_lossy(&scores.stdout).contains(r#""a":4,"b":2"#))
        })
    }

    /// `http://host:port` of each task of a service.
    fn published(&self, service: &str) -> anyhow::Result<Vec<String>> {
        let name = format!("voting_{service}");
        let arguments =
            ["service", "ps", &name, "--filter", "desired-state=running", "--format", "{{.Node}} {{.Ports}}"];
        let text = self.says(&arguments)?;
        // `h2 *:32768->80/tcp`
        let url = |line: &str| {
            let (node, ports) = line.split_once(' ')?;
            let host = self.hosts.get(node.strip_prefix('h')?.parse::<usize>().ok()?.checked_sub(1)?)?;
            let port = ports.split_once("*:")?.1.split_once("->")?.0;
            Some(format!("http://{}:{port}", host.address))
        };
        Ok(text.lines().filter_map(url).collect())
    }

    fn lab(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.herder);
        command.arg("lab").args(arguments).args(["--name", LAB]);
        command
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.hosts.first().map_or("", |host| &host.door)).args(arguments);
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

impl Drop for Demo {
    fn drop(&mut self) {
        println!("\nCleaning up …");
        let _ = self.lab(&["down"]).status();
    }
}
