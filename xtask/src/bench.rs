//! `cargo xtask bench`: measurements, each printed with what it is measured against. None gates anything.

use anyhow::bail;

use crate::{packages, run};

/// What cargo builds before, in release.
const HERDER: &[&str] = &["build", "--release", "--package", "herder"];
const FAKES: &[&str] = &["build", "--release", "--package", "herder-pool", "--features", "fake", "--example", "fakes"];

/// A measurement.
struct Bench {
    name: &'static str,
    /// Commands of cargo that build what is measured.
    builds: &'static [&'static [&'static str]],
    /// The arguments of cargo that run it; those after them are its own.
    run: &'static [&'static str],
    needs_lab: bool,
}

/// The one that plays the same again and again.
const IN_ROUNDS: &str = "failover";

const BENCHES: [Bench; 10] = [
    Bench {
        name: "schedule",
        builds: &[],
        run: &["bench", "--quiet", "--package", "herder-decide", "--bench", "schedule", "--"],
        needs_lab: false,
    },
    Bench {
        name: "swarm-schedule",
        builds: &[],
        run: &["bench", "--quiet", "--package", "herder-decide", "--bench", "swarm_schedule", "--"],
        needs_lab: false,
    },
    Bench {
        name: "list",
        builds: &[],
        run: &["bench", "--quiet", "--package", "herder-decide", "--bench", "list", "--"],
        needs_lab: false,
    },
    Bench {
        name: "bus",
        builds: &[],
        run: &["bench", "--quiet", "--package", "herder-bus", "--bench", "bus", "--"],
        needs_lab: false,
    },
    Bench {
        name: "store",
        builds: &[],
        run: &["bench", "--quiet", "--package", "herder-store", "--bench", "store", "--"],
        needs_lab: false,
    },
    Bench {
        name: "control",
        builds: &[],
        run: &["bench", "--quiet", "--package", "herder-manager", "--bench", "control", "--"],
        needs_lab: false,
    },
    Bench {
        name: "pool",
        builds: &[HERDER],
        run: &["run", "--quiet", "--release", "--package", "herder-benches", "--", "pool"],
        needs_lab: true,
    },
    Bench {
        name: "swarm",
        builds: &[HERDER],
        run: &["run", "--quiet", "--release", "--package", "herder-benches", "--", "swarm"],
        needs_lab: true,
    },
    Bench {
        name: "failover",
        builds: &[HERDER],
        run: &["run", "--quiet", "--release", "--package", "herder-benches", "--", "failover"],
        needs_lab: true,
    },
    Bench {
        name: "scale",
        builds: &[HERDER, FAKES],
        run: &["run", "--quiet", "--release", "--package", "herder-benches", "--", "scale"],
        needs_lab: false,
    },
];

/// `what` is a name or `all`; `format` is `table` or `json`; so many `rounds` of each fault.
pub(crate) fn run(what: &str, format: &str, rounds: u32) -> anyhow::Result<()> {
    let chosen: Vec<&Bench> = BENCHES.iter().filter(|bench| what == "all" || bench.name == what).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!("there is no benchmark `{what}`; there are: {}, all", names.join(", "));
    }
    for bench in chosen {
        if bench.needs_lab {
            packages::ensure(&[packages::LAB])?;
        }
        for build in bench.builds {
            run::cargo(build)?;
        }
        let rounds = rounds.to_string();
        let more: &[&str] = if bench.name == IN_ROUNDS { &["--rounds", &rounds] } else { &[] };
        run::cargo(&[bench.run, &["--format", format], more].concat())?;
    }
    Ok(())
}
