//! `cargo xtask bench`: measurements, each printed with what it is measured against. None gates anything.

use anyhow::bail;

use crate::{packages, run};

/// Arguments for cargo, which builds in release first.
const HERDER: &[&str] = &["build", "--release", "--package", "herder"];
const FAKES: &[&str] = &["build", "--release", "--package", "herder-pool", "--features", "fake", "--example", "fakes"];

/// A measurement.
struct Bench {
    name: &'static str,
    /// Commands of cargo that build what is measured.
    builds: &'static [&'static [&'static str]],
    what: What,
    needs: &'static [packages::Packages],
}

enum What {
    /// A benchmark of this package.
    Of(&'static str),
    /// A verb of the program that measures herder from outside.
    Outside,
}

impl Bench {
    /// The arguments of cargo that run it; those after them are its own.
    fn run(&self) -> Vec<String> {
        let line = match self.what {
            What::Of(package) => {
                format!("bench --quiet --package {package} --bench {} --", self.name.replace('-', "_"))
            }
            What::Outside => format!("run --quiet --release --package herder-benches -- {}", self.name),
        };
        line.split(' ').map(str::to_owned).collect()
    }
}

/// The one that plays the same again and again.
const IN_ROUNDS: &str = "failover";

/// Those that take long: only when they are named. `--minutes` after `--` makes the soak shorter.
const LONG: [&str; 2] = ["soak", "storm"];

/// Those that belong to `net`: it means all of them.
const NET: [&str; 2] = ["networks", "allocate"];

/// For benchmarks that need no programs of the machine.
const NOTHING: &[packages::Packages] = &[];

const BENCHES: [Bench; 17] = [
    Bench { name: "schedule", builds: &[], what: What::Of("herder-decide"), needs: NOTHING },
    Bench { name: "swarm-schedule", builds: &[], what: What::Of("herder-decide"), needs: NOTHING },
    Bench { name: "list", builds: &[], what: What::Of("herder-decide"), needs: NOTHING },
    Bench { name: "bus", builds: &[], what: What::Of("herder-bus"), needs: NOTHING },
    Bench { name: "store", builds: &[], what: What::Of("herder-store"), needs: NOTHING },
    Bench { name: "control", builds: &[], what: What::Of("herder-manager"), needs: NOTHING },
    Bench { name: "ingress", builds: &[], what: What::Of("herder-ingress"), needs: NOTHING },
    Bench { name: "allocate", builds: &[], what: What::Of("herder-decide"), needs: NOTHING },
    Bench { name: "networks", builds: &[], what: What::Of("herder-agent"), needs: &[packages::TABLES] },
    Bench { name: "net", builds: &[HERDER], what: What::Outside, needs: &[packages::LAB, packages::LOAD] },
    Bench { name: "stacks", builds: &[], what: What::Of("herder-stacks"), needs: NOTHING },
    Bench { name: "pool", builds: &[HERDER], what: What::Outside, needs: &[packages::LAB] },
    Bench { name: "swarm", builds: &[HERDER], what: What::Outside, needs: &[packages::LAB] },
    Bench { name: "failover", builds: &[HERDER], what: What::Outside, needs: &[packages::LAB] },
    Bench { name: "soak", builds: &[HERDER], what: What::Outside, needs: &[packages::LAB] },
    Bench { name: "storm", builds: &[HERDER], what: What::Outside, needs: &[packages::LAB] },
    Bench { name: "scale", builds: &[HERDER, FAKES], what: What::Outside, needs: NOTHING },
];

/// Runs benchmarks. `what` is a name or `all`; `format` is `table` or `json`; so many `rounds` of each fault;
/// `arguments` are the benchmark's own.
pub(crate) fn run(what: &str, format: &str, rounds: u32, arguments: &[String]) -> anyhow::Result<()> {
    let is_meant = |bench: &&Bench| {
        what == "all" && !LONG.contains(&bench.name) || bench.name == what || what == "net" && NET.contains(&bench.name)
    };
    let chosen: Vec<&Bench> = BENCHES.iter().filter(is_meant).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!("there is no benchmark `{what}`; there are: {}, all", names.join(", "));
    }
    for bench in chosen {
        packages::ensure(bench.needs)?;
        for build in bench.builds {
            run::cargo(build)?;
        }
        let (run, rounds) = (bench.run(), rounds.to_string());
        let run: Vec<&str> = run.iter().map(String::as_str).collect();
        let more: &[&str] = if bench.name == IN_ROUNDS { &["--rounds", &rounds] } else { &[] };
        let own: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run::cargo(&[&run, &["--format", format][..], more, &own].concat())?;
    }
    Ok(())
}
