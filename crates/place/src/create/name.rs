//! Names for containers that were not given one. Engines only know their own containers, so that two of them may invent the
//! same name; here it is free on all nodes. Pure.

use std::sync::Arc;

use herder_model::{Name, Node};
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;

const MOODS: [&str; 40] = [
    "able", "amber", "bold", "brave", "bright", "brisk", "calm", "clever", "cosy", "crisp", "deft", "eager", "early",
    "fair", "fleet", "fond", "free", "gentle", "glad", "golden", "grand", "hardy", "honest", "jolly", "keen", "kind",
    "lively", "loyal", "lucky", "merry", "mild", "neat", "noble", "placid", "proud", "quick", "quiet", "ready",
    "sunny", "swift",
];

const ANIMALS: [&str; 40] = [
    "alpaca", "badger", "beaver", "bison", "bunting", "camel", "caribou", "collie", "crane", "curlew", "dipper",
    "donkey", "dunlin", "ermine", "falcon", "finch", "gander", "gecko", "goat", "goose", "heifer", "heron", "ibex",
    "kestrel", "lamb", "lark", "llama", "marten", "merlin", "mule", "osprey", "otter", "pigeon", "plover", "pony",
    "raven", "sheep", "stoat", "thrush", "yak",
];

/// A name that no container on these nodes has.
pub fn free(nodes: &[Arc<Node>], rng: &mut impl rand::Rng) -> String {
    let taken = |name: &str| {
        let name = Name::new(name);
        nodes.iter().any(|node| node.named(&name).next().is_some())
    };
    let mut word = |words: &[&'static str; 40]| words.choose(rng).copied().unwrap_or("herder");
    let name = format!("{}_{}", word(&MOODS), word(&ANIMALS));
    if !taken(&name) {
        return name;
    }
    loop {
        let numbered = format!("{name}_{}", rng.random_range(2..1_000_000));
        if !taken(&numbered) {
            return numbered;
        }
    }
}

#[cfg(test)]
mod tests {
    use herder_model::Container;
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn two_thousand_names_are_all_different() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut node = Node::default();
        for number in 0..2_000 {
            let name = free(&[Arc::new(node.clone())], &mut rng);
            assert!(node.containers.values().all(|other| other.name != name), "{name} is there already");
            node.put_container(Arc::new(Container { id: number.to_string(), name, ..Container::default() }));
        }
    }
}
