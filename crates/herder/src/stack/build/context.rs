//! The folder that an image is built from, as an archive.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use herder_docker::{Body, BoxError};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio_util::io::ReaderStream;

/// Names of a Dockerfile that is not part of the folder.
const INLINE: &str = ".dockerfile.herder";

/// Files and folders of a context at most: more is a mistake, such as the root folder.
const ENTRIES_MAX: usize = 200_000;

/// Packs a folder into an archive on the disk, without what its `.dockerignore` names. The archive and the name of the Dockerfile in it
/// come back.
pub(super) fn pack(folder: &str, dockerfile: Option<&str>, inline: Option<&str>) -> anyhow::Result<(File, String)> {
    let folder = Path::new(folder);
    if !folder.is_dir() {
        bail!("{}: there is no such folder to build from", folder.display());
    }
    let dockerfile = dockerfile.unwrap_or("Dockerfile");
    let outside = Path::new(dockerfile).is_absolute() || dockerfile.starts_with("..");
    let name = if inline.is_some() || outside { INLINE } else { dockerfile.trim_start_matches("./") };
    let ignored = Ignored::of(&std::fs::read_to_string(folder.join(".dockerignore")).unwrap_or_default());
    let mut archive = tar::Builder::new(tempfile::tempfile().context("no temporary file for the archive")?);
    archive.follow_symlinks(false);
    let mut left = vec![String::new()];
    let mut count = 0;
    while let Some(below) = left.pop() {
        let entries = std::fs::read_dir(folder.join(&below)).with_context(|| format!("cannot read {below}"))?;
        let mut entries: Vec<_> = entries.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let file = entry.file_name();
            let file = file.to_str().with_context(|| format!("{}: the name is not UTF-8", entry.path().display()))?;
            let path = if below.is_empty() { file.to_owned() } else { format!("{below}/{file}") };
            count += 1;
            if count > ENTRIES_MAX {
                bail!(
                    "{} has more than {ENTRIES_MAX} files; name what is not needed in .dockerignore",
                    folder.display()
                );
            }
            let is_folder = entry.file_type()?.is_dir();
            // The builder needs both of these, whatever the file says.
            let is_kept = path == name || path == ".dockerignore" || !ignored.matches(&path);
            if is_folder && (is_kept || ignored.has_exceptions) {
                left.push(path.clone());
            }
            if is_kept {
                archive.append_path_with_name(entry.path(), &path).with_context(|| format!("cannot read {path}"))?;
            }
        }
    }
    let added = match inline {
        Some(text) => Some(text.to_owned()),
        None if outside => {
            let path = folder.join(dockerfile);
            Some(std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?)
        }
        None => None,
    };
    if let Some(text) = added {
        let mut head = tar::Header::new_gnu();
        head.set_size(text.len() as u64);
        head.set_mode(0o644);
        archive.append_data(&mut head, name, text.as_bytes())?;
    } else if !folder.join(name).is_file() {
        bail!("{}: there is no {name}", folder.display());
    }
    let mut file = archive.into_inner()?;
    file.seek(SeekFrom::Start(0))?;
    Ok((file, name.to_owned()))
}

/// An archive as the body of a request, read bit by bit.
pub(super) fn body(archive: File) -> Body {
    let pieces = ReaderStream::new(tokio::fs::File::from_std(archive));
    StreamBody::new(pieces.map_ok(Frame::data).map_err(|error| -> BoxError { error.into() })).boxed_unsync()
}

/// The patterns of a `.dockerignore`. The last one that fits counts.
struct Ignored {
    patterns: Vec<(Vec<String>, bool)>,
    has_exceptions: bool,
}

impl Ignored {
    fn of(text: &str) -> Ignored {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let patterns: Vec<(Vec<String>, bool)> = lines
            .map(|line| {
                let (pattern, is_exception) = line.strip_prefix('!').map_or((line, false), |it| (it.trim(), true));
                let parts = pattern.split('/').filter(|part| !part.is_empty() && *part != ".");
                (parts.map(str::to_owned).collect(), is_exception)
            })
            .collect();
        Ignored { has_exceptions: patterns.iter().any(|(_, is_exception)| *is_exception), patterns }
    }

    fn matches(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        // What is in a folder that fits fits as well.
        let fits = |pattern: &[String]| (1..=parts.len()).any(|end| path_fits(pattern, &parts[..end]));
        let last = self.patterns.iter().rev().find(|(pattern, _)| fits(pattern));
        last.is_some_and(|(_, is_exception)| !is_exception)
    }
}

/// True if all parts of a path fit; `**` stands for any number of them.
fn path_fits(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            path_fits(rest, path) || path.split_first().is_some_and(|(_, below)| path_fits(pattern, below))
        }
        (Some((first, rest)), Some((name, below))) => {
            let pattern: Vec<char> = first.chars().collect();
            part_fits(&pattern, &name.chars().collect::<Vec<_>>()) && path_fits(rest, below)
        }
        _ => false,
    }
}

/// `*` stands for any characters of one part of a path, `?` for one.
fn part_fits(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => {
            part_fits(rest, name) || name.split_first().is_some_and(|(_, later)| part_fits(pattern, later))
        }
        (Some((one, rest)), Some((other, later))) if *one == '?' || one == other => part_fits(rest, later),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::{Ignored, pack};

    #[test]
    fn patterns_are_dockers() {
        let table = [
            ("*.log", "a.log", true),
            ("*.log", "b/a.log", false),
            ("**/*.log", "b/c/a.log", true),
            ("**/*.log", "a.log", true),
            ("target", "target/debug/x", true),
            ("/target/", "target", true),
            ("./a/?.txt", "a/b.txt", true),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "other", true),
            ("# note\n\n", "a", false),
        ];
        for (text, path, expected) in table {
            assert_eq!(Ignored::of(text).matches(path), expected, "{text:?} {path}");
        }
    }

    #[test]
    fn a_folder_is_packed_without_what_is_ignored() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("written");
        };
        write("Dockerfile", "FROM scratch");
        write("app/main", "x");
        write("secret/key", "hidden");
        write(".dockerignore", "secret\nDockerfile");
        let path = folder.path().to_str().expect("UTF-8");
        let names = |dockerfile: Option<&str>, inline: Option<&str>| {
            let (file, name) = pack(path, dockerfile, inline).expect("an archive");
            let mut archive = tar::Archive::new(file);
            let mut names: Vec<String> = Vec::new();
            for entry in archive.entries().expect("entries") {
                let mut entry = entry.expect("an entry");
                let mut text = String::new();
                entry.read_to_string(&mut text).expect("a text");
                names.push(entry.path().expect("a path").display().to_string());
            }
            names.sort();
            format!("{name}: {}", names.join(" "))
        };
        assert_eq!(names(None, None), "Dockerfile: .dockerignore Dockerfile app app/main");
        assert_eq!(names(None, Some("FROM x")), ".dockerfile.herder: .dockerfile.herder .dockerignore app app/main");
        let missing = pack(path, Some("Other"), None).expect_err("no Dockerfile").to_string();
        assert!(missing.ends_with("there is no Other"), "{missing}");
    }
}
