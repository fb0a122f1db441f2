//! `cargo xtask bench`: measurements, each printed with what it is measured against. None gates anything.

use anyhow::bail;

use crate::run;

/// Name → the arguments of cargo that run it.
const BENCHES: &[(&str, &[&str])] = &[];

pub(crate) fn run(what: &str) -> anyhow::Result<()> {
    let chosen: Vec<_> = BENCHES.iter().filter(|(name, _)| what == "all" || *name == what).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        bail!("there is no benchmark `{what}`; there are: {}", names.join(", "));
    }
    for (name, arguments) in chosen {
        println!("== {name}");
        run::cargo(arguments)?;
    }
    Ok(())
}
