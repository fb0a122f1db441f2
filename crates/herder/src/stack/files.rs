//! Reads the files of a stack: the loader asks, this module looks on the disk.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use herder_cli::StackFiles;
use herder_compose::{
    Content, Desired, Diagnostic, FILE_MAX, Options, Project, Sources, Step, is_project_name, load, objects,
};

/// Names of the file of a project, the first that exists.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// Names of the file that is merged onto it, where it exists.
const OVERRIDES: [&str; 4] =
    ["compose.override.yaml", "compose.override.yml", "docker-compose.override.yml", "docker-compose.override.yaml"];
/// Maximum bytes of a secret or config (swarmkit: 500 KiB and 1000 KiB); the cluster refuses the rest by kind.
const CONTENT_MAX: u64 = 1000 << 10;

/// The files of a stack are refused; the text is every fault with its line.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl Refused {
    pub(super) fn of(text: String) -> Refused {
        Refused(text)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A loaded project with the files that it was loaded from.
pub(super) struct Files {
    pub(super) project: Box<Project>,
    pub(super) sources: Sources,
    options: Options,
}

impl Files {
    /// The Compose files, in the order in which they are merged.
    pub(super) fn main(&self) -> &[String] {
        &self.options.files
    }

    pub(super) fn directory(&self) -> &str {
        &self.options.directory
    }

    pub(super) fn env_files(&self) -> Option<&[String]> {
        self.options.env_files.as_deref()
    }

    pub(super) fn profiles(&self) -> &[String] {
        &self.options.profiles
    }

    pub(super) fn environment(&self) -> &BTreeMap<String, String> {
        &self.options.environment
    }

    /// Finds, reads and loads the files that the command line names. The name of the stack is that of the project, where
    /// there is one.
    pub(super) fn load(asked: &StackFiles, stack: Option<&str>) -> anyhow::Result<Files> {
        let environment: BTreeMap<String, String> = std::env::vars().collect();
        let mut options = options(asked, environment)?;
        options.name = stack.filter(|name| is_project_name(name)).map(str::to_owned);
        Files::of(options, Sources::new())
    }

    fn of(options: Options, mut sources: Sources) -> anyhow::Result<Files> {
        loop {
            match load(&sources, &options) {
                Step::Need(paths) => {
                    for path in paths {
                        let content = read(&path)?;
                        sources.insert(path, content);
                    }
                }
                Step::Done(project) => return Ok(Files { project, sources, options }),
                Step::Refused(diagnostics) => {
                    return Err(Refused(diagnostics.iter().map(|it| render(it, &sources)).collect()).into());
                }
            }
        }
    }

    /// Names the images of services that were built; the Compose files are as if they named them.
    pub(super) fn name_images(&mut self, images: &BTreeMap<String, String>) -> anyhow::Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        let services = images.iter().map(|(service, image)| {
            format!("  {}: {{image: {}, build: !reset null}}\n", quoted(service), quoted(image))
        });
        let text: String = std::iter::once("services:\n".to_owned()).chain(services).collect();
        let path = format!("{}/{BUILT}", self.options.directory.trim_end_matches('/'));
        let (mut options, mut sources) = (self.options.clone(), std::mem::take(&mut self.sources));
        sources.insert(path.clone(), Some(text.into_bytes()));
        options.files.push(path);
        *self = Files::of(options, sources)?;
        Ok(())
    }

    /// The objects of the project under a name, or under its own.
    pub(super) fn objects(&self, name: Option<&str>) -> anyhow::Result<(Desired, Vec<Diagnostic>)> {
        let name = name.unwrap_or(&self.project.name);
        let fits = name.starts_with(|it: char| it.is_ascii_alphanumeric())
            && name.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_'));
        if !fits {
            bail!("`{name}` cannot be the name of a stack: use letters, digits, - and _");
        }
        let (desired, mut notes) = objects(&self.project, name, self.environment())
            .map_err(|diagnostics| Refused(diagnostics.iter().map(|it| self.render(it)).collect()))?;
        let mut all = self.project.diagnostics.clone();
        all.append(&mut notes);
        Ok((desired, all))
    }

    /// Reads the files that secrets and configs are made of.
    pub(super) fn read_contents(&mut self, desired: &Desired) -> anyhow::Result<()> {
        for object in desired.secrets.iter().chain(&desired.configs) {
            let Content::File(path) = &object.content else { continue };
            let size = std::fs::metadata(path).with_context(|| format!("{}: {path}", object.name))?.len();
            if size > CONTENT_MAX {
                bail!(
                    "{}: {path} has {size} bytes; a config may have {CONTENT_MAX}, a secret half of that",
                    object.name
                );
            }
            let content = std::fs::read(path).with_context(|| format!("{}: {path}", object.name))?;
            self.sources.insert(path.clone(), Some(content));
        }
        Ok(())
    }

    /// A diagnostic with the line that it is about.
    pub(super) fn render(&self, diagnostic: &Diagnostic) -> String {
        render(diagnostic, &self.sources)
    }
}

fn render(diagnostic: &Diagnostic, sources: &Sources) -> String {
    let text = sources.get(&diagnostic.file).and_then(|it| it.as_deref()).map(String::from_utf8_lossy);
    diagnostic.render(text.as_deref())
}

fn options(asked: &StackFiles, environment: BTreeMap<String, String>) -> anyhow::Result<Options> {
    let here = std::env::current_dir().context("the current folder is gone")?;
    let mut files: Vec<PathBuf> = asked.files.clone();
    if files.is_empty()
        && let Some(list) = environment.get("COMPOSE_FILE").filter(|list| !list.is_empty())
    {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").map_or(":", String::as_str);
        files = list.split(separator).map(PathBuf::from).collect();
    }
    if files.is_empty() {
        files = default_files(&here)?;
    }
    let directory = match (&asked.project_directory, files.first()) {
        (Some(directory), _) => here.join(directory),
        (None, Some(first)) if first != Path::new("-") => {
            here.join(first).parent().map_or_else(|| here.clone(), Path::to_path_buf)
        }
        (None, _) => here.clone(),
    };
    let text = |path: &Path| -> anyhow::Result<String> {
        path.to_str().map(str::to_owned).with_context(|| format!("{}: the path is not UTF-8", path.display()))
    };
    let absolute = |path: &PathBuf| if path == Path::new("-") { Ok(STDIN.to_owned()) } else { text(&here.join(path)) };
    let env_files: Vec<String> = asked.env_file.iter().map(absolute).collect::<anyhow::Result<_>>()?;
    Ok(Options {
        files: files.iter().map(absolute).collect::<anyhow::Result<_>>()?,
        directory: text(&directory)?,
        env_files: (!env_files.is_empty()).then_some(env_files),
        profiles: asked.profile.clone(),
        name: None,
        environment,
    })
}

/// A text in double quotes, where a dollar stands for itself.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace('$', "$$")).to_string()
}

/// The file that names built images. It is merged onto the others, and goes with them into the stack's record.
const BUILT: &str = "herder.built.yaml";

/// The path that stands for the standard input.
const STDIN: &str = "/dev/stdin";

/// The Compose file of this folder or the nearest one above it, with its override file.
fn default_files(here: &Path) -> anyhow::Result<Vec<PathBuf>> {
    for folder in here.ancestors() {
        let found = |names: &[&str]| names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        if let Some(file) = found(&NAMES) {
            return Ok([Some(file), found(&OVERRIDES)].into_iter().flatten().collect());
        }
    }
    bail!("no Compose file is named, and there is none in {} or above it; name it with -c", here.display())
}

/// The content of a file; `None` if it does not exist. One byte more than the limit is enough to refuse it.
fn read(path: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
    };
    let mut content = Vec::new();
    file.take(FILE_MAX as u64 + 1).read_to_end(&mut content).with_context(|| format!("cannot read {path}"))?;
    Ok(Some(content))
}
