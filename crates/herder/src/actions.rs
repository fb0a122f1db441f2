//! Settings of DockerMod's actions from the command line and from DockerMod's own file.

use anyhow::{Context as _, bail};
use herder_cli::ActionArgs;
use herder_decide::actions::conf::{self, Conf};
use herder_front::actions::ActionSettings;
use herder_pool::Settings;

/// Returns the settings of the file, overridden by the command line, and those of actions. What has no effect is told.
pub(crate) fn settings(args: &ActionArgs) -> anyhow::Result<(Conf, ActionSettings)> {
    let mut conf = Conf::default();
    if let Some(path) = &args.conf {
        let file = || format!("--conf {}", path.display());
        let text = std::fs::read_to_string(path).with_context(file)?;
        let (read, notes) = conf::parse(&text).map_err(anyhow::Error::msg).with_context(file)?;
        notes.iter().for_each(|note| tracing::warn!("{}: {note}", path.display()));
        conf = read;
    }
    conf.task_timeout = args.task_timeout.unwrap_or(conf.task_timeout);
    conf.new_container_timeout = args.new_container_timeout.unwrap_or(conf.new_container_timeout);
    conf.announce_interval = args.announce_interval.or(conf.announce_interval);
    conf.tracking_interval = args.tracking_service_interval.or(conf.tracking_interval);
    if let Some(folder) = args.templates.as_ref().filter(|folder| !folder.is_dir()) {
        bail!("--templates {}: there is no such folder", folder.display());
    }
    let settings = ActionSettings {
        templates: args.templates.clone(),
        task_timeout: conf.task_timeout,
        new_container_timeout: conf.new_container_timeout,
        engine_port: port(&conf).unwrap_or(ActionSettings::default().engine_port),
    };
    Ok((conf, settings))
}

/// Engines are registered by their host alone; they listen on the same port as the one of the file.
fn port(conf: &Conf) -> Option<u16> {
    conf.engine.as_ref()?.rsplit_once(':')?.1.parse().ok()
}

/// Returns the intervals at which nodes are read, where the original's settings name them.
pub(crate) fn with_conf(conf: &Conf, settings: Settings) -> Settings {
    let (refresh_min, refresh_max) = match conf.tracking_interval {
        Some(interval) => (interval, interval),
        None => (settings.refresh_min, settings.refresh_max),
    };
    let ping_period = conf.announce_interval.unwrap_or(settings.ping_period);
    Settings { refresh_min, refresh_max, ping_period, ..settings }
}
