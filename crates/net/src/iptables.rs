//! Rules in the chain that Docker Engines leave to their users.

use std::process::Command;

use crate::NetError;

const CHAIN: &str = "DOCKER-USER";

/// Rules of the chain, as `iptables -S` prints them; none if there is no such chain.
pub(crate) fn rules() -> Result<Option<Vec<String>>, NetError> {
    let output = Command::new("iptables").args(["-w", "-S", CHAIN]).output();
    let output = output.map_err(|source| NetError::Program { program: "iptables", source })?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let prefix = format!("-A {CHAIN} ");
    Ok(Some(text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()))
}

/// True if one of these rules is missing from the chain. Blocks for as long as `iptables` runs.
pub fn lacks_rules(wanted: &[String]) -> bool {
    rules().is_ok_and(|there| there.is_none_or(|there| wanted.iter().any(|rule| !there.contains(rule))))
}

/// Inserts a rule before the last `RETURN`, so that rules of people come first.
pub(crate) fn put(rule: &str) -> Result<(), NetError> {
    let Some(all) = rules()? else {
        let message = format!("no chain {CHAIN}: the engine has not set up its firewall rules");
        return Err(NetError::Refused { program: "iptables", message });
    };
    let end = all.iter().rposition(|it| it == "-j RETURN").unwrap_or(all.len());
    run(&["-I", CHAIN, &(end + 1).to_string()], rule)
}

pub(crate) fn remove(rule: &str) -> Result<(), NetError> {
    run(&["-D", CHAIN], rule)
}

fn run(verb: &[&str], rule: &str) -> Result<(), NetError> {
    let output = Command::new("iptables").arg("-w").args(verb).args(rule.split(' ')).output();
    let output = output.map_err(|source| NetError::Program { program: "iptables", source })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
    Err(NetError::Refused { program: "iptables", message })
}
