//! The source of a revision: Compose files with everything that they refer to, as a caller sent them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use herder_compose::{
    Content, Desired, Diagnostic, FILE_MAX, Options, Sources, Step, Variable, is_project_name, load, objects, to_yaml,
};
use serde::{Deserialize, Serialize};

/// Bytes of all files of a bundle at most. A bundle is one entry of the managers' log.
pub(crate) const BYTES_MAX: usize = 4 << 20;
/// Bytes of one file at most: a config may have as many.
const FILE_BYTES_MAX: usize = FILE_MAX;
/// Files of a bundle at most.
const FILES_MAX: usize = 512;
/// The folder that relative paths of a bundle refer to, where the caller names none.
const FOLDER: &str = "/stack";
/// Rounds of [`Options::files`] that the loader may ask for: each include may name another file.
const ROUNDS_MAX: usize = 64;

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum File {
    Text(String),
    Base64 { base64: String },
}

impl File {
    pub fn of(bytes: &[u8]) -> File {
        match std::str::from_utf8(bytes) {
            Ok(text) => File::Text(text.to_owned()),
            Err(_) => File::Base64 { base64: BASE64.encode(bytes) },
        }
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            File::Text(text) => Some(text.clone().into_bytes()),
            File::Base64 { base64 } => BASE64.decode(base64).ok(),
        }
    }
}

/// Compose files, the files that they refer to, and the variables of the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bundle {
    /// Keyed by path. Relative paths are below `directory`; null is a file that does not exist.
    pub files: BTreeMap<String, Option<File>>,
    /// The Compose files, in the order in which they are merged; the usual names if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub main: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub directory: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Environment files in place of `.env`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_files: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
}

/// The reason for which a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The request itself is wrong.
    #[error("{0}")]
    Wrong(String),
    /// The files are wrong.
    #[error("{}", .0.first().map_or_else(|| "the files are refused".to_owned(), ToString::to_string))]
    Files(Vec<Diagnostic>),
}

/// A bundle as the loader understands it.
#[derive(Debug)]
pub struct Loaded {
    /// The project's own name.
    pub name: String,
    /// The canonical file.
    pub canonical: serde_json::Value,
    pub canonical_yaml: String,
    /// The services as they are named in the files, in the order of the files.
    pub services: Vec<String>,
    pub variables: Vec<Variable>,
    /// Warnings and notes.
    pub notes: Vec<Diagnostic>,
    pub desired: Desired,
    pub sources: Sources,
}

/// Names of the file of a project, the first that exists.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// Names of the file that is merged onto it, where it exists.
const OVERRIDES: [&str; 4] =
    ["compose.override.yaml", "compose.override.yml", "docker-compose.override.yml", "docker-compose.override.yaml"];

impl Bundle {
    /// Loads the files. `stack` is the name of the stack; without one, the project's own name counts.
    pub fn load(&self, stack: Option<&str>) -> Result<Loaded, BundleError> {
        let directory = if self.directory.is_empty() { FOLDER } else { self.directory.trim_end_matches('/') };
        let sources = self.sources(directory)?;
        let options = Options {
            files: self.main_files(directory, &sources)?,
            directory: directory.to_owned(),
            environment: self.environment.clone(),
            env_files: self.env_files.as_ref().map(|all| all.iter().map(|it| absolute(directory, it)).collect()),
            profiles: self.profiles.clone(),
            // The stack's name is that of the project, as far as it can be.
            name: stack.filter(|name| is_project_name(name)).map(str::to_owned),
        };
        self.load_with(sources, &options, directory, stack).map_err(|error| match error {
            BundleError::Files(all) => {
                let all = all.into_iter().map(|it| shown(it, directory));
                // Without errors there would be nothing to mend.
                BundleError::Files(all.collect())
            }
            error => error,
        })
    }

    fn load_with(
        &self,
        mut sources: Sources,
        options: &Options,
        directory: &str,
        stack: Option<&str>,
    ) -> Result<Loaded, BundleError> {
        let mut rounds = 0;
        let project = loop {
            rounds += 1;
            match load(&sources, options) {
                Step::Done(project) => break project,
                Step::Refused(diagnostics) => return Err(BundleError::Files(diagnostics)),
                Step::Need(paths) if rounds <= ROUNDS_MAX => {
                    for path in paths {
                        let content = self.find(directory, &path)?;
                        sources.insert(path, content);
                    }
                }
                Step::Need(paths) => {
                    return Err(BundleError::Wrong(format!(
                        "the files refer to too many others: {}",
                        paths.join(", ")
                    )));
                }
            }
        };
        let name = stack.unwrap_or(&project.name);
        check_name(name)?;
        let (desired, mut notes) = objects(&project, name, &self.environment).map_err(BundleError::Files)?;
        for object in desired.secrets.iter().chain(&desired.configs) {
            let Content::File(path) = &object.content else { continue };
            if sources.get(path).is_some_and(Option::is_some) {
                continue;
            }
            let content = self.find(directory, path)?;
            if content.is_none() {
                let path = path.strip_prefix(&format!("{directory}/")).unwrap_or(path);
                return Err(BundleError::Wrong(format!("{}: its file {path} is not among the files", object.name)));
            }
            sources.insert(path.clone(), content);
        }
        let mut all = project.diagnostics.clone();
        all.append(&mut notes);
        let mut canonical = project.export();
        let canonical_yaml = to_yaml(&canonical);
        canonical.sort_all_objects();
        Ok(Loaded {
            name: project.name.clone(),
            canonical,
            canonical_yaml,
            services: project.services().map(|(name, _)| name.to_owned()).collect(),
            variables: project.variables.clone(),
            notes: all.into_iter().map(|it| shown(it, directory)).collect(),
            desired,
            sources,
        })
    }

    fn sources(&self, directory: &str) -> Result<Sources, BundleError> {
        if self.files.len() > FILES_MAX {
            return Err(BundleError::Wrong(format!("{} files; a bundle may have {FILES_MAX}", self.files.len())));
        }
        let mut sources = Sources::new();
        let mut total = 0;
        for (path, file) in &self.files {
            let content = match file {
                None => None,
                Some(file) => {
                    let bytes = file.bytes();
                    let bytes = bytes.ok_or_else(|| BundleError::Wrong(format!("{path}: its base64 is not valid")))?;
                    if bytes.len() > FILE_BYTES_MAX {
                        let message = format!("{path} has {} bytes; a file may have {FILE_BYTES_MAX}", bytes.len());
                        return Err(BundleError::Wrong(message));
                    }
                    total += bytes.len();
                    Some(bytes)
                }
            };
            sources.insert(absolute(directory, path), content);
        }
        if total > BYTES_MAX {
            return Err(BundleError::Wrong(format!("the files have {total} bytes together; {BYTES_MAX} are allowed")));
        }
        Ok(sources)
    }

    fn main_files(&self, directory: &str, sources: &Sources) -> Result<Vec<String>, BundleError> {
        if !self.main.is_empty() {
            return Ok(self.main.iter().map(|path| absolute(directory, path)).collect());
        }
        let found = |names: &[&str]| {
            let mut paths = names.iter().map(|name| format!("{directory}/{name}"));
            paths.find(|path| sources.get(path).is_some_and(Option::is_some))
        };
        if let Some(main) = found(&NAMES) {
            return Ok([Some(main), found(&OVERRIDES)].into_iter().flatten().collect());
        }
        match self.files.len() {
            1 => Ok(self.files.keys().map(|path| absolute(directory, path)).collect()),
            _ => {
                Err(BundleError::Wrong(format!("none of the files is called {}; name it in `main`", NAMES.join(", "))))
            }
        }
    }

    /// The content of a path that the files refer to: that path, or else the one file with this name.
    fn find(&self, directory: &str, path: &str) -> Result<Option<Vec<u8>>, BundleError> {
        let of = |file: &Option<File>| file.as_ref().and_then(File::bytes);
        if let Some((_, file)) = self.files.iter().find(|(it, _)| absolute(directory, it) == path) {
            return Ok(of(file));
        }
        // A caller that sends a folder of files by their names alone: no file of the bundle has a folder in its path.
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_flat = self.files.keys().all(|it| !it.trim_start_matches("./").contains('/'));
        let named = self.files.iter().find(|(it, _)| is_flat && it.trim_start_matches("./") == name);
        Ok(named.and_then(|(_, file)| of(file)))
    }
}

/// Refuses a text that cannot be the name of a stack.
pub(crate) fn check_name(name: &str) -> Result<(), BundleError> {
    let fits = name.starts_with(|it: char| it.is_ascii_alphanumeric())
        && name.len() <= 63
        && name.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_'));
    let message = || format!("`{name}` cannot be the name of a stack: use up to 63 letters, digits, - and _");
    if fits { Ok(()) } else { Err(BundleError::Wrong(message())) }
}

/// A path of a bundle as the loader knows it.
fn absolute(directory: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = directory.split('/').collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.len() > 1 => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A diagnostic with the path as the caller wrote it.
fn shown(mut diagnostic: Diagnostic, directory: &str) -> Diagnostic {
    if directory != FOLDER {
        return diagnostic;
    }
    let cut = |file: &mut String| {
        if let Some(rest) = file.strip_prefix(FOLDER).and_then(|it| it.strip_prefix('/')) {
            *file = rest.to_owned();
        }
    };
    cut(&mut diagnostic.file);
    diagnostic.related.iter_mut().for_each(|it| cut(&mut it.file));
    diagnostic
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as `path=content`, and what becomes of them: names of the objects, or the first fault.
    fn outcome(files: &[(&str, &str)], main: &[&str]) -> String {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), Some(File::Text((*text).to_owned()))));
        let bundle = Bundle {
            files: files.collect(),
            main: main.iter().map(|it| (*it).to_owned()).collect(),
            ..Bundle::default()
        };
        match bundle.load(Some("s")) {
            Err(error) => error.to_string(),
            Ok(loaded) => {
                let services = loaded.desired.services.iter().map(|it| it.name.clone());
                let configs = loaded.desired.configs.iter().map(|it| {
                    let data = it.data(&loaded.sources).unwrap_or_default();
                    format!("{}={}", it.name, String::from_utf8_lossy(data))
                });
                services.chain(configs).collect::<Vec<_>>().join(" ")
            }
        }
    }

    const WEB: &str = "services: {web: {image: busybox, configs: [c]}}\nconfigs: {c: {file: ./conf/c.txt}}\n";

    #[test]
    fn files_of_a_bundle_are_found_by_their_paths_and_refused_with_line_and_column() {
        assert_eq!(outcome(&[("compose.yaml", "services: {web: {image: busybox}}")], &[]), "s_web");
        assert_eq!(outcome(&[("x.yml", "services: {web: {image: busybox}}")], &[]), "s_web");
        assert_eq!(
            outcome(&[("a/x.yml", WEB), ("a/conf/c.txt", "1")], &["a/x.yml"]),
            "s_c: its file conf/c.txt is not among the files"
        );
        assert_eq!(outcome(&[("compose.yml", WEB), ("conf/c.txt", "1")], &[]), "s_web s_c=1");
        assert_eq!(outcome(&[("compose.yml", WEB), ("c.txt", "2"), ("more.txt", "")], &[]), "s_web s_c=2");
        assert_eq!(
            outcome(&[("a.yml", WEB), ("b.yml", "")], &[]),
            "none of the files is called compose.yaml, compose.yml, docker-compose.yml, docker-compose.yaml; name it in `main`"
        );
        assert_eq!(
            outcome(&[("compose.yml", "services:\n  web: {imag: busybox}")], &[]),
            "compose.yml:2:9: error: services.web.imag: unknown key of a service"
        );
    }

    #[test]
    fn a_bundle_is_stored_as_it_was_sent() {
        let bundle = Bundle {
            files: [
                ("a".to_owned(), Some(File::of(b"text"))),
                ("b".to_owned(), Some(File::of(&[255]))),
                ("c".to_owned(), None),
            ]
            .into(),
            ..Bundle::default()
        };
        let text = serde_json::to_string(&bundle).expect("JSON");
        assert_eq!(text, r#"{"files":{"a":"text","b":{"base64":"/w=="},"c":null}}"#);
        assert_eq!(serde_json::from_str::<Bundle>(&text).expect("a bundle"), bundle);
    }
}
