//! `cargo xtask demo`: three hosts, herder over them, the voting application on top.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::{packages, run};

const LAB: &str = "demo";
/// Where herder listens for the demo.
const DOOR: &str = "127.0.0.1:23750";
/// How long things may take to come up on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_PERIOD: Duration = Duration::from_millis(200);
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
    demo.deploy()?;
    demo.show()?;
    if once {
        return Ok(());
    }
    println!("\nCtrl-C ends the demo and removes everything that it made.");
    ctrl_c.recv().map_err(Into::into)
}

/// What was started; its end cleans up.
struct Demo {
    herder: PathBuf,
    folder: PathBuf,
    manager: Child,
}

impl Demo {
    fn start() -> anyhow::Result<Demo> {
        let herder = run::target()?.join("debug/herder");
        let folder = std::env::temp_dir().join("herder-demo");
        fs::create_dir_all(&folder)?;
        let lab = |arguments: &[&str]| {
            let mut command = Command::new(&herder);
            command.arg("lab").args(arguments).args(["--name", LAB]);
            command
        };
        println!("Starting a lab of three hosts …");
        run::check(&mut lab(&["down"]))?;
        let labels = [
            "h1:zone=a,disk=hdd,status=active",
            "h2:zone=b,disk=ssd,status=active",
            "h3:zone=c,disk=hdd,status=draining",
        ];
        run::check(lab(&["up", "--hosts", "3"]).args(labels.iter().flat_map(|label| ["--labels", label])))?;
        let status: serde_json::Value = serde_json::from_str(&run::read(&mut lab(&["status", "--format", "json"]))?)?;
        let hosts = status["hosts"].as_array().into_iter().flatten();
        let engines: Vec<&str> =
            hosts.filter_map(|host| host["docker_host"].as_str()?.strip_prefix("tcp://")).collect();
        let log = fs::File::create(folder.join("herder.log"))?;
        let mut manage = Command::new(&herder);
        manage.args(["manage", "--host", &format!("tcp://{DOOR}"), &engines.join(",")]).stdin(Stdio::null());
        // Ctrl-C is for the demo, which then ends its parts in order.
        std::os::unix::process::CommandExt::process_group(&mut manage, 0);
        let manager = manage.stderr(log.try_clone()?).stdout(log).spawn().context("cannot start herder")?;
        let demo = Demo { herder: herder.clone(), folder, manager };
        demo.until("three healthy nodes", || {
            let info = demo.docker(&["info"]).stderr(Stdio::null()).output();
            info.is_ok_and(|info| String::from_utf8_lossy(&info.stdout).matches("Status: Healthy").count() == 3)
        })?;
        Ok(demo)
    }

    /// The voting application by Compose, its image without a registry.
    fn deploy(&self) -> anyhow::Result<()> {
        println!("Bringing the voting application to the nodes …");
        let program = run::target()?.join(STATIC_TARGET).join("release");
        let mut tar =
            Command::new("tar").arg("-C").arg(program).args(["-c", "voting"]).stdout(Stdio::piped()).spawn()?;
        let image = tar.stdout.take().context("a pipe")?;
        let change = ["--change", r#"ENTRYPOINT ["/voting"]"#, "--change", r#"CMD ["vote"]"#];
        run::check(
            self.docker(&["import"]).args(change).args(["-", "voting:latest"]).stdin(image).stdout(Stdio::null()),
        )?;
        tar.wait()?;
        let mut compose = Command::new("docker-compose");
        compose.args(["-f", "examples/voting/docker-compose.yml", "-p", "voting", "up", "-d", "--scale", "vote=3"]);
        compose
            .env("DOCKER_HOST", format!("tcp://{DOOR}"))
            .env("QUEUE_HOST", self.address(1))
            .env("STORE_HOST", self.address(2));
        run::check(&mut compose)
    }

    fn show(&self) -> anyhow::Result<()> {
        run::check(&mut self.docker(&["ps", "--format", "table {{.Names}}\t{{.Status}}\t{{.Ports}}"]))?;
        let votes = self.published("vote")?;
        let result = self.published("result")?.into_iter().next().context("the result page is not there")?;
        for (number, url) in votes.iter().cycle().take(6).enumerate() {
            let vote = if number % 3 == 2 { "vote=b" } else { "vote=a" };
            let line = ["-sf", "--retry", "5", "--retry-connrefused", "-o", "/dev/null", "-d", vote, url];
            run::check(Command::new("curl").args(line))?;
        }
        self.until("six votes", || {
            let scores = Command::new("curl").args(["-sf", &format!("{result}/scores")]).output();
            scores.is_ok_and(|scores| String::from_utf8_lossy(&scores.stdout).contains(r#""a":4,"b":2"#))
        })?;
        println!("\nSix votes were cast and counted. Look:");
        for url in &votes {
            println!("  vote     {url}");
        }
        println!("  result   {result}\n\nTry:\n  export DOCKER_HOST=tcp://{DOOR}");
        println!("  docker info; docker ps; docker run --rm -it busybox");
        println!("  docker run -d -e constraint:disk==ssd --name here busybox sleep 1000");
        println!("  {} lab kill --name {LAB} h3; docker ps -a", self.herder.display());
        Ok(())
    }

    /// `http://host:port` of each container of a service.
    fn published(&self, service: &str) -> anyhow::Result<Vec<String>> {
        let filter = format!("label=com.docker.compose.service={service}");
        let text = run::read(&mut self.docker(&["ps", "--filter", &filter, "--format", "{{.Ports}}"]))?;
        let urls = text.lines().filter_map(|line| line.split("->").next()).map(|address| format!("http://{address}"));
        Ok(urls.collect())
    }

    fn address(&self, host: u16) -> String {
        let mut command = Command::new(&self.herder);
        let text = run::read(command.args(["lab", "env", "--name", LAB, &format!("h{host}")])).unwrap_or_default();
        text.rsplit("//").next().and_then(|it| it.split(':').next()).unwrap_or_default().to_owned()
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("tcp://{DOOR}")).args(arguments);
        command
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
        let started = Instant::now();
        while !holds() {
            if started.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.join("herder.log")).unwrap_or_default();
                bail!(
                    "no {what} within {PATIENCE:?}; herder's log ends with:\n{}",
                    log.lines().last().unwrap_or_default()
                );
            }
            std::thread::sleep(LOOK_PERIOD);
        }
        Ok(())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        println!("\nCleaning up …");
        let _ = self.manager.kill();
        let _ = self.manager.wait();
        let _ = Command::new(&self.herder).args(["lab", "down", "--name", LAB]).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
