//! herder makes many Docker hosts behave as one: configuration → parts → shutdown.

mod actions;
mod backup;
mod bus;
mod certificates;
mod certs;
mod doctor;
mod door;
mod export;
mod ingress;
mod listen;
mod manage;
mod members;
mod node;
mod plan;
mod registrator;
mod render;
mod service;
mod stack;
mod swarm;
mod token;
mod top;
mod up;
mod why;

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::{CommandFactory as _, Parser as _};
use herder_cli::config::{self, Config};
use herder_cli::{Cli, ConfigVerb, Global, PAGES, UsageError, Verb, argv};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    end_quietly_when_nobody_reads();
    let words: Vec<String> = argv::normalize(std::env::args());
    let (mut cli, effective) = match configured(&words) {
        Ok(cli) => cli,
        Err(error) => {
            eprintln!("herder: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(effective) = effective {
        anstream::print!("{effective}");
        return ExitCode::SUCCESS;
    }
    if let Verb::Render(asked) = &cli.verb
        && let Some(level) = &asked.log_level
    {
        cli.global.log_level.clone_from(level);
    }
    start_log(&cli.global);
    match carry_out(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("herder: {error:#}");
            if let Some(usage) = error.downcast_ref::<UsageError>() {
                eprintln!("see `herder explain {}`", usage.code());
            }
            ExitCode::FAILURE
        }
    }
}

/// Parses the command line, for `up` and `manage` with the configuration file. Returns also the settings in force, if
/// they are to be printed.
fn configured(words: &[String]) -> Result<(Cli, Option<String>), config::ConfigError> {
    let cli = Cli::parse_from(words);
    if !matches!(cli.verb, Verb::Up(_) | Verb::Manage(_)) {
        return Ok((cli, None));
    }
    let file = Config::load(cli.global.config.as_deref())?;
    let applied = file.apply(words).unwrap_or_else(|error| {
        if !file.path().as_os_str().is_empty() {
            eprintln!("herder: with the configuration file {}:", file.path().display());
        }
        error.exit()
    });
    let effective = cli.global.print_config.then(|| file.effective(&applied));
    Ok((applied.cli, effective))
}

/// `config check`: form, names and meaning of a whole file.
fn check_config(global: &Global, verb: ConfigVerb) -> anyhow::Result<()> {
    let ConfigVerb::Check { file } = verb;
    let named = file.as_deref().or(global.config.as_deref());
    let config = Config::load(named)?;
    if config.path().as_os_str().is_empty() {
        bail!("there is no {}; name another file", config::DEFAULT_FILE);
    }
    for verb in config.verbs() {
        config.check(verb).with_context(|| format!("{}, [{verb}]", config.path().display()))?;
    }
    anstream::println!("{}: ok", config.path().display());
    Ok(())
}

/// Exit code of a shell for a program that SIGPIPE ended.
const NOBODY_READS: i32 = 128 + 13;

/// Beginnings of panics of std's and anstream's `println`, and of clap_complete.
const PRINTS: [&str; 2] = ["failed printing to stdout", "failed to write completion file"];

/// Ends quietly when the reader of the output stops, as in `herder lab status | head`. Rust's own way is to panic on
/// the next print.
fn end_quietly_when_nobody_reads() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        match panic.payload_as_str().filter(|it| PRINTS.iter().any(|print| it.starts_with(print))) {
            Some(why) if why.contains("Broken pipe") || why.contains("BrokenPipe") => std::process::exit(NOBODY_READS),
            Some(why) => {
                eprintln!("herder: {why}");
                std::process::exit(1);
            }
            None => told(panic),
        }
    }));
}

fn carry_out(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.verb {
        // Its code says whether there are changes.
        Verb::Plan(asked) => runtime()?.block_on(plan::run(asked)),
        // Its code says whether all is well.
        Verb::Doctor(asked) => runtime()?.block_on(doctor::run(asked)),
        Verb::Stack(asked) => runtime()?.block_on(stack::run(*asked)),
        // Its codes are those of consul-template.
        Verb::Render(asked) => runtime()?.block_on(render::run(*asked)),
        verb => carry_out_verb(verb, &cli.global).map(|()| ExitCode::SUCCESS),
    }
}

fn carry_out_verb(verb: Verb, global: &Global) -> anyhow::Result<()> {
    match verb {
        Verb::Up(up) if up.print_unit => {
            let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--print-unit").collect();
            if herder_cli::without_token(arguments.iter().cloned()).1.is_some() {
                eprintln!("herder: every user can read units: put the join code into {}", herder_cli::ENVIRONMENT);
            }
            anstream::print!("{}", herder_cli::unit(&std::env::current_exe()?.display().to_string(), &arguments));
            Ok(())
        }
        Verb::Up(up) => {
            hide_token();
            let settings = up.settings()?;
            runtime()?.block_on(up::run(settings, global.experimental))
        }
        Verb::Token(token) if token.rotate => runtime()?.block_on(token::rotate(&token)),
        Verb::Token(token) => token::print(&token),
        Verb::Bus(asked) => runtime()?.block_on(bus::run(asked)),
        Verb::Node(node) => runtime()?.block_on(node::run(node)),
        Verb::Swarm(asked) => runtime()?.block_on(swarm::run(asked.verb)),
        Verb::Why(asked) => runtime()?.block_on(why::run(asked)),
        Verb::Ingress(asked) => runtime()?.block_on(ingress::run(asked.verb)),
        Verb::Export(asked) => runtime()?.block_on(export::run(asked.verb)),
        Verb::Cert(asked) => runtime()?.block_on(certificates::run(asked.verb)),
        Verb::Plan(asked) => runtime()?.block_on(plan::run(asked)).map(drop),
        Verb::Stack(asked) => runtime()?.block_on(stack::run(*asked)).map(drop),
        Verb::Service(asked) => runtime()?.block_on(service::run(asked)),
        Verb::Top(asked) => runtime()?.block_on(top::run(asked)),
        Verb::Backup(asked) => runtime()?.block_on(backup::write(asked)),
        Verb::Restore(asked) => runtime()?.block_on(backup::restore(asked)),
        Verb::Manage(manage) => {
            let settings = manage.settings()?;
            runtime()?.block_on(manage::run(settings, global.experimental))
        }
        Verb::Join(join) => {
            let settings = join.settings()?;
            runtime()?.block_on(members::join(settings))
        }
        Verb::List(list) => {
            let found = runtime()?.block_on(members::list(list.settings()?))?;
            if list.format == "json" {
                anstream::println!("{}", serde_json::json!(found));
            } else {
                found.iter().for_each(|address| anstream::println!("{address}"));
            }
            Ok(())
        }
        Verb::Create(_) => Err(UsageError::Create.into()),
        Verb::Render(asked) => runtime()?.block_on(render::run(*asked)).map(drop),
        Verb::Registrator(asked) => runtime()?.block_on(registrator::run(*asked)),
        Verb::Config(asked) => check_config(global, asked.verb),
        Verb::Certs(certs) => certs::make(&certs),
        Verb::Doctor(asked) => runtime()?.block_on(doctor::run(asked)).map(drop),
        Verb::NetDns(asked) => {
            let serving = herder_dns::serve(&asked.socket, &asked.folder, tokio_util::sync::CancellationToken::new());
            Ok(runtime()?.block_on(serving)?)
        }
        Verb::NetTunnel(asked) => Ok(runtime()?.block_on(herder_tunnel::serve(&asked.socket, &asked.folder))?),
        Verb::IngressHold => Ok(herder_ingress::hold()?),
        Verb::FenceWatch(asked) => Ok(herder_agent::fence::watch(&asked.state)?),
        Verb::Lab(lab) => herder_lab::run(*lab),
        Verb::Completion(completion) => {
            clap_complete::generate(completion.shell, &mut Cli::command(), "herder", &mut std::io::stdout());
            Ok(())
        }
        Verb::Explain(explain) => {
            let code = explain.code.to_uppercase();
            let Some((_, page)) = PAGES.iter().find(|(known, _)| *known == code) else {
                let codes: Vec<&str> = PAGES.iter().map(|(code, _)| *code).collect();
                bail!("there is no error code `{}`; there are {}", explain.code, codes.join(", "));
            };
            anstream::print!("{page}");
            Ok(())
        }
    }
}

/// Starts this program anew without the join code in its arguments, which every user can read. It is in the environment
/// then, which only root and the same user can read. Does nothing where no code is given, and where that fails.
fn hide_token() {
    let (arguments, token) = herder_cli::without_token(std::env::args().skip(1));
    let (Some(token), Ok(program)) = (token, std::env::current_exe()) else { return };
    let mut again = Command::new(program);
    again.args(arguments).env("HERDER_TOKEN", token);
    if let Some(name) = std::env::args_os().next() {
        again.arg0(name);
    }
    let error = again.exec();
    tracing::warn!(%error, "cannot hide the join code from other users; give it with --token-file");
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Logs go to stderr, with colours only for a person.
fn start_log(global: &Global) {
    let level = global.log_level.to_lowercase();
    let level = match level.as_str() {
        _ if global.debug => "debug",
        "warning" => "warn",
        "fatal" | "panic" => "error",
        level => level,
    };
    let filter = EnvFilter::try_from_env("HERDER_LOG").unwrap_or_else(|_| {
        // Libraries speak only when something is wrong, unless everything is asked for.
        let parts =
            ["herder", "herder_pool", "herder_front", "herder_docker", "herder_bus", "herder_wire", "herder_access"];
        let herder = parts.map(|part| format!("{part}={level}"));
        // Raft writes a warning for each heartbeat that fails; the store tells of a manager that is silent once.
        EnvFilter::new(format!("warn,openraft=error,{}", herder.join(",")))
    });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if global.log_format == "json" {
        log.json().flatten_event(true).with_current_span(false).init();
    } else {
        log.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
    }
}
