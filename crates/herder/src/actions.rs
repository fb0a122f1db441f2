//! Settings of DockerMod's actions from the command line and from DockerMod's own file.

use anyhow::{Context as _, bail};
use herder_cli::ActionArgs;
use herder_decide::actions::conf::{self, Conf};
use herder_front::actions::ActionSettings;

/// What the file says, and how actions behave. What has no effect is told.
pub(crate) fn settings(args: &ActionArgs) -> anyhow::Result<(Conf, ActionSettings)> {
    let mut conf = Conf::default();
    if let Some(path) = &args.conf {
        let text = std::fs::read_to_string(path).with_context(|| format!("--conf {}", path.display()))?;
        let (read, notes) =
            conf::parse(&text).map_err(anyhow::Error::msg).with_context(|| format!("--conf {}", path.display()))?;
        notes.iter().for_each(|note| tracing::warn!("{}: {note}", path.display()));
        conf = read;
    }
    if let Some(folder) = args.templates.as_ref().filter(|folder| !folder.is_dir()) {
        bail!("--templates {}: there is no such folder", folder.display());
    }
    let settings = ActionSettings {
        templates: args.templates.clone(),
        task_timeout: conf.task_timeout,
        new_container_timeout: conf.new_container_timeout,
    };
    Ok((conf, settings))
}
