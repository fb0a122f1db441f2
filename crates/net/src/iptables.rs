//! Rules in the chain that Docker Engines leave to their users.

use std::process::Command;

use crate::NetError;

const CHAIN: &str = "DOCKER-USER";
/// Every forwarded packet comes by here; the engine sends it on to the chain for users.
const FORWARD: &str = "FORWARD";
const JUMP: &str = "-j DOCKER-USER";

/// Rules of the chain, as `iptables -S` prints them; `None` if there is no such chain. A chain that no packet reaches has no rules:
/// `iptables -F` leaves such a one.
pub(crate) fn rules() -> Result<Option<Vec<String>>, NetError> {
    let Some(rules) = rules_of(CHAIN)? else { return Ok(None) };
    let is_reached = rules_of(FORWARD)?.is_some_and(|all| all.iter().any(|rule| rule == JUMP));
    Ok(Some(if is_reached { rules } else { Vec::new() }))
}

fn rules_of(chain: &str) -> Result<Option<Vec<String>>, NetError> {
    let output = Command::new("iptables").args(["-w", "-S", chain]).output();
    let output = output.map_err(|source| NetError::Program { program: "iptables", source })?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let prefix = format!("-A {chain} ");
    Ok(Some(text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()))
}

/// True if one of these rules is missing from the chain. Blocks for as long as `iptables` runs.
pub fn lacks_rules(wanted: &[String]) -> bool {
    rules().is_ok_and(|there| there.is_none_or(|there| wanted.iter().any(|rule| !there.contains(rule))))
}

/// Inserts a rule before the last `RETURN`, so that rules of people come first. A chain that was removed is made again, as the engine
/// does when it starts: until then no firewall script gets it back.
pub(crate) fn put(rule: &str) -> Result<(), NetError> {
    let all = match rules_of(CHAIN)? {
        Some(all) => all,
        None => {
            run(&["-N", CHAIN], "")?;
            Vec::new()
        }
    };
    if !rules_of(FORWARD)?.is_some_and(|all| all.iter().any(|rule| rule == JUMP)) {
        run(&["-I", FORWARD, "1"], JUMP)?;
    }
    if all.iter().any(|it| it == rule) {
        return Ok(());
    }
    let end = all.iter().rposition(|it| it == "-j RETURN").unwrap_or(all.len());
    run(&["-I", CHAIN, &(end + 1).to_string()], rule)
}

pub(crate) fn remove(rule: &str) -> Result<(), NetError> {
    run(&["-D", CHAIN], rule)
}

fn run(verb: &[&str], rule: &str) -> Result<(), NetError> {
    let output = Command::new("iptables").arg("-w").args(verb).args(rule.split_ascii_whitespace()).output();
    let output = output.map_err(|source| NetError::Program { program: "iptables", source })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
    Err(NetError::Refused { program: "iptables", message })
}
