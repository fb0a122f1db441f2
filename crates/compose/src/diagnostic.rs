//! Complaints about a Compose file, each with its place and a way out.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::node::Position;

/// Severity of a [`Diagnostic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The project is refused.
    Error,
    /// The project loads, but probably not as its author meant it.
    Warning,
    /// The key has no meaning on a cluster, or is understood otherwise than it reads.
    Note,
}

/// One complaint about one place of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// A stable name of the kind of fault, such as `unknown-key`.
    pub code: &'static str,
    pub file: String,
    /// Line, from 1; 0 when the complaint concerns the project as a whole.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// The path of the value, such as `services.web.ports[0]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    pub message: String,
    /// The way out, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Further places, each with what is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

/// Another place that a [`Diagnostic`] refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
}

impl Diagnostic {
    /// The diagnostic as compilers print it, with the line of the file and a caret below the column. `source` is the
    /// text of the file, where it is known.
    pub fn render(&self, source: Option<&str>) -> String {
        let mut text = format!("{self}\n");
        let line = source.and_then(|source| source.lines().nth((self.line as usize).checked_sub(1)?));
        if let Some(line) = line {
            let number = self.line.to_string();
            let shown: String = line.chars().take(LINE_SHOWN_MAX).collect();
            let column = (self.column as usize).saturating_sub(1).min(LINE_SHOWN_MAX);
            let _ = writeln!(text, " {number} | {shown}");
            let _ = writeln!(text, " {} | {}^", " ".repeat(number.len()), " ".repeat(column));
        }
        if let Some(help) = &self.help {
            let _ = writeln!(text, "   = help: {help}");
        }
        for related in &self.related {
            let Related { file, line, column, message } = related;
            let _ = writeln!(text, "   = {file}:{line}:{column}: {message}");
        }
        text
    }
}

/// Characters of a line that [`Diagnostic::render`] shows at most.
const LINE_SHOWN_MAX: usize = 200;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        if self.line > 0 {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        }
        write!(f, "{severity}: ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The path of a value while a tree is walked. It is a list of steps on the stack, printed only when
/// needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    pub(crate) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    pub(crate) fn key<'b>(&'b self, key: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    pub(crate) fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = self.parent.filter(|parent| !matches!(parent.step, Step::Root));
        if let Some(parent) = parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) if parent.is_some() => write!(f, ".{key}"),
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The names of the files read so far, and the complaints about them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    files: Vec<String>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Maximum number of complaints: a file with more of them is not a Compose file, and memory stays bounded.
const DIAGNOSTICS_MAX: usize = 1_000;

impl Report {
    /// An empty report about the files of a loaded project.
    pub(crate) fn of_files(files: &[String]) -> Report {
        Report { files: files.to_vec(), diagnostics: Vec::new() }
    }

    /// The names of the files, in the order of [`Position::file`].
    pub(crate) fn files(&self) -> &[String] {
        &self.files
    }

    /// The index of a file, for [`Position::file`].
    pub(crate) fn file(&mut self, name: &str) -> u16 {
        let known = self.files.iter().position(|file| file == name);
        let index = known.unwrap_or_else(|| {
            self.files.push(name.to_owned());
            self.files.len() - 1
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    pub(crate) fn file_name(&self, at: Position) -> &str {
        self.files.get(usize::from(at.file)).map_or("", String::as_str)
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.diagnostics.iter().any(|it| it.severity == Severity::Error)
    }

    pub(crate) fn error(
        &mut self,
        code: &'static str,
        at: Position,
        path: impl fmt::Display,
        message: impl Into<String>,
    ) {
        self.add(Severity::Error, code, at, path, message.into(), None);
    }

    /// An error with its way out.
    pub(crate) fn refuse(
        &mut self,
        code: &'static str,
        at: Position,
        path: impl fmt::Display,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, code, at, path, message.into(), Some(help.into()));
    }

    pub(crate) fn warn(
        &mut self,
        code: &'static str,
        at: Position,
        path: impl fmt::Display,
        message: impl Into<String>,
    ) {
        self.add(Severity::Warning, code, at, path, message.into(), None);
    }

    pub(crate) fn note(
        &mut self,
        code: &'static str,
        at: Position,
        path: impl fmt::Display,
        message: impl Into<String>,
    ) {
        self.add(Severity::Note, code, at, path, message.into(), None);
    }

    /// Adds another place to the newest complaint.
    pub(crate) fn related(&mut self, at: Position, message: impl Into<String>) {
        let file = self.file_name(at).to_owned();
        if let Some(diagnostic) = self.diagnostics.last_mut() {
            let Position { line, column, .. } = at;
            diagnostic.related.push(Related { file, line, column, message: message.into() });
        }
    }

    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: Position,
        path: impl fmt::Display,
        message: String,
        help: Option<String>,
    ) {
        if self.diagnostics.len() >= DIAGNOSTICS_MAX {
            return;
        }
        let diagnostic = Diagnostic {
            severity,
            code,
            file: self.file_name(at).to_owned(),
            line: at.line,
            column: at.column,
            path: path.to_string(),
            message,
            help,
            related: Vec::new(),
        };
        // A value that an anchor or a base brings to several places is complained about once for each path only.
        if !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }
}
