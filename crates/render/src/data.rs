//! Queries of templates to a source, and its answers so far. Pure.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herder_kv::Entries;
use serde_json::Value;

/// One thing that a template depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dep {
    /// One key, without a slash in front.
    Key(String),
    /// All keys below a folder, without slashes around.
    Tree(String),
    /// A file of this host.
    File(String),
    /// Names and tags of Consul's catalogue.
    Services,
    /// Instances of a service in Consul's catalogue.
    Service { name: String, tag: String, datacentre: String, passing: bool },
    /// Nodes of Consul's catalogue.
    Nodes,
    /// One node of Consul's catalogue.
    Node(String),
}

impl std::fmt::Display for Dep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dep::Key(key) => write!(f, "key({key})"),
            Dep::Tree(dir) => write!(f, "tree({dir})"),
            Dep::File(path) => write!(f, "file({path})"),
            Dep::Services => f.write_str("services"),
            Dep::Service { name, tag, .. } if tag.is_empty() => write!(f, "service({name})"),
            Dep::Service { name, tag, .. } => write!(f, "service({tag}.{name})"),
            Dep::Nodes => f.write_str("nodes"),
            Dep::Node(name) => write!(f, "node({name})"),
        }
    }
}

/// A message of a source.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Entries of a tree, or of a key. A tree has an entry for each path below it; a key has one
    /// without a name, or none.
    Entries(Arc<Entries>),
    Json(Arc<Value>),
    /// A file; none if it is not there.
    Text(Option<String>),
}

/// All answers so far.
#[derive(Debug, Default)]
pub struct Data {
    answers: BTreeMap<Dep, Answer>,
}

impl Data {
    /// Takes an answer; false if nothing changed by it.
    pub fn set(&mut self, dep: Dep, answer: Answer) -> bool {
        if self.answers.get(&dep) == Some(&answer) {
            return false;
        }
        self.answers.insert(dep, answer);
        true
    }

    /// Drops unused dependencies.
    pub fn keep(&mut self, used: &BTreeSet<Dep>) {
        self.answers.retain(|dep, _| used.contains(dep));
    }
}

/// One run of a template over the answers: notes what it asks for, and what was not answered yet.
#[derive(Debug)]
pub struct Asking<'d> {
    data: &'d Data,
    used: RefCell<BTreeSet<Dep>>,
    missing: RefCell<BTreeSet<Dep>>,
}

impl<'d> Asking<'d> {
    pub fn new(data: &'d Data) -> Asking<'d> {
        Asking { data, used: RefCell::default(), missing: RefCell::default() }
    }

    /// The answer, if there is one.
    pub fn ask(&self, dep: Dep) -> Option<&'d Answer> {
        let answer = self.data.answers.get(&dep);
        if answer.is_none() {
            self.missing.borrow_mut().insert(dep.clone());
        }
        self.used.borrow_mut().insert(dep);
        answer
    }

    /// The answer is there, and is not enough: a key that must exist and does not.
    pub fn wait_for(&self, dep: Dep) {
        self.missing.borrow_mut().insert(dep);
    }

    /// Returns the queries of a rendering, and those that are not answered yet.
    pub fn done(self) -> (BTreeSet<Dep>, BTreeSet<Dep>) {
        (self.used.into_inner(), self.missing.into_inner())
    }
}

/// The outcome of a rendering.
#[derive(Debug, PartialEq, Eq)]
pub enum Rendered {
    Text(String),
    /// Queries without an answer: no file may be written before they have one.
    Missing(BTreeSet<Dep>),
    /// The template cannot run over these answers.
    Failed(String),
}
