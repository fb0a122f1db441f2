//! Index of containers by name. It finds a name, or shows that it is free, without a look at every container of the
//! pool.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::Container;

/// A name that is looked up on many nodes: hashed once for all of them.
#[derive(Clone, Copy, Debug)]
pub struct Name<'t> {
    text: &'t str,
    hash: u64,
}

impl<'t> Name<'t> {
    /// Without the leading slash.
    pub fn new(text: &'t str) -> Name<'t> {
        Name { text, hash: hash(text) }
    }
}

/// The containers of one node by the hash of their name. The hashes stand side by side: a look at a thousand nodes reads a few
/// lines of memory of each, not thirty names all over the heap.
#[derive(Clone, Debug, Default)]
pub struct NameIndex {
    /// Hashes of the names, sorted.
    hashes: Vec<u64>,
    /// The containers, in the order of `hashes`.
    containers: Vec<Arc<Container>>,
}

impl NameIndex {
    pub(crate) fn put(&mut self, container: Arc<Container>) {
        let hash = hash(&container.name);
        let at = self.hashes.partition_point(|other| *other < hash);
        self.hashes.insert(at, hash);
        self.containers.insert(at, container);
    }

    /// Takes out exactly this one, not another with its name.
    pub(crate) fn remove(&mut self, container: &Arc<Container>) {
        let (first, count) = self.range(hash(&container.name));
        let same = |other: &Arc<Container>| Arc::ptr_eq(other, container);
        if let Some(at) = self.containers[first..first + count].iter().position(same) {
            self.hashes.remove(first + at);
            self.containers.remove(first + at);
        }
    }

    pub(crate) fn find<'n>(&'n self, name: &Name<'n>) -> impl Iterator<Item = &'n Arc<Container>> {
        let (first, count) = self.range(name.hash);
        let text = name.text;
        self.containers[first..first + count].iter().filter(move |container| container.name == text)
    }

    /// All containers of the node, in an order without meaning that lasts as long as this picture.
    pub fn containers(&self) -> &[Arc<Container>] {
        &self.containers
    }

    /// Returns the first index of this hash and the number of its entries.
    fn range(&self, hash: u64) -> (usize, usize) {
        let first = self.hashes.partition_point(|other| *other < hash);
        (first, self.hashes[first..].iter().take_while(|other| **other == hash).count())
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Node;

    fn container(id: &str, name: &str) -> Arc<Container> {
        Arc::new(Container { id: id.into(), name: name.into(), ..Container::default() })
    }

    #[track_caller]
    fn check(node: &Node, name: &str, ids: &str) {
        let mut found: Vec<&str> = node.named(&Name::new(name)).map(|container| container.id.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found.join(" "), ids, "{name}");
    }

    #[test]
    fn names_follow_what_is_put_in_renamed_and_taken_out() {
        let mut node = Node::default();
        for (id, name) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "")] {
            node.put_container(container(id, name));
        }
        check(&node, "a", "1 3");
        check(&node, "b", "2");
        check(&node, "c", "");
        node.put_container(container("1", "c"));
        check(&node, "a", "3");
        check(&node, "c", "1");
        node.put_container(container("2", "b"));
        check(&node, "b", "2");
        node.remove_container("3");
        node.remove_container("3");
        check(&node, "a", "");
        assert_eq!(node.names.hashes.len(), node.containers.len());
    }
}
