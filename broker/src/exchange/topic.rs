//! The topic exchange: patterns of words, `*` (exactly one word) and `#` (any number of words, also none).
//!
//! Words are what stands between dots; they may be empty. Only the empty key has no words at all, so it
//! matches `#` and the empty pattern, but not `*`. Wildcards count only as whole words and only in patterns.
//!
//! Patterns are a trie that is walked one word of the key at a time, with the set of all nodes that the words
//! so far can have led to. No node enters that set twice, so the walk is linear in the words of the key,
//! whatever the patterns are. Descending into each possibility in turn is exponential in the number of `#`;
//! RabbitMQ refuses more than two of them in a pattern for that reason, and here any number is allowed.

use std::collections::HashMap;
use std::mem;

use leveret_protocol::RoutingKey;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::direct::KeyTable;
use super::route::Found;
use super::slab::Slab;
use super::targets::{BindingId, Target, Targets};

/// The bindings of a topic exchange.
#[derive(Debug, Default)]
pub(super) struct TopicTable {
    /// Patterns without wildcards: one look-up instead of a walk, and often all that there is.
    exact: KeyTable,
    patterns: Trie,
}

impl TopicTable {
    /// Adds a binding and returns its place among those of the same pattern.
    pub(super) fn insert(&mut self, pattern: &RoutingKey, binding: BindingId, target: Target) -> usize {
        if has_wildcard(pattern.as_str()) {
            self.patterns.insert(pattern.as_str(), binding, target)
        } else {
            self.exact.insert(pattern, binding, target)
        }
    }

    /// Removes a binding and returns the one that has moved to its place.
    pub(super) fn remove(&mut self, pattern: &RoutingKey, place: usize) -> Option<BindingId> {
        if has_wildcard(pattern.as_str()) {
            self.patterns.remove(pattern.as_str(), place)
        } else {
            self.exact.remove(pattern, place)
        }
    }

    pub(super) fn collect(&self, key: &str, walk: &mut Walk, found: &mut Found) {
        self.exact.collect(key, found);
        if !self.patterns.is_empty() {
            self.patterns.collect(key, walk, found);
        }
    }
}

fn words(key: &str) -> impl DoubleEndedIterator<Item = &str> {
    (!key.is_empty()).then(|| key.split('.')).into_iter().flatten()
}

fn has_wildcard(pattern: &str) -> bool {
    words(pattern).any(|word| matches!(word, "*" | "#"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct NodeId(usize);

/// A word's number. Never used twice, so that no stale edge can mean another word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct WordId(u64);

const ROOT: NodeId = NodeId(0);

/// Patterns by their words. Empty branches are pruned at once: a trie of patterns that come and go must not
/// grow.
#[derive(Debug)]
struct Trie {
    nodes: Slab<Node>,
    /// The children that stand for a literal word. One table for the whole trie is smaller than one a node.
    edges: HashMap<(NodeId, WordId), NodeId>,
    /// Every literal word of any pattern: each word of a key is hashed once, however many nodes ask for it.
    words: HashMap<Box<str>, Word>,
    words_made: u64,
}

#[derive(Debug)]
struct Word {
    id: WordId,
    /// How many edges bear it.
    edges: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// How many children it has in [`Trie::edges`].
    literals: usize,
    star: Option<NodeId>,
    hash: Option<NodeId>,
    /// Whether it is a `#` somewhere below another `#`. Only such a node can be reached twice by one key.
    reached_again: bool,
    /// Whether it is a `#`, or stands below one.
    below_hash: bool,
    targets: Targets,
}

impl Node {
    /// Whether a word of the key can lead on from here.
    fn has_steps(&self) -> bool {
        self.literals > 0 || self.star.is_some()
    }

    fn is_idle(&self) -> bool {
        !self.has_steps() && self.hash.is_none() && self.targets.is_empty()
    }
}

/// The memory of a walk, kept by the caller so that routing does not allocate.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Where exactly the words so far have led to.
    current: Vec<NodeId>,
    /// Where the next word leads to.
    next: Vec<NodeId>,
    /// The `#` nodes that were reached: a `#` takes every further word too, so they stay.
    staying: Vec<NodeId>,
    /// Those of them that could be reached again.
    reached: FxHashSet<NodeId>,
}

impl Default for Trie {
    fn default() -> Self {
        let mut nodes = Slab::default();
        nodes.insert(Node::default());
        Self { nodes, edges: HashMap::new(), words: HashMap::new(), words_made: 0 }
    }
}

impl Trie {
    fn is_empty(&self) -> bool {
        self.node(ROOT).is_none_or(Node::is_idle)
    }

    fn insert(&mut self, pattern: &str, binding: BindingId, target: Target) -> usize {
        let mut at = ROOT;
        for word in words(pattern) {
            at = self.child(at, word).unwrap_or_else(|| self.add_child(at, word));
        }
        self.nodes.get_mut(at.0).map_or(0, |node| node.targets.insert(binding, target))
    }

    fn remove(&mut self, pattern: &str, place: usize) -> Option<BindingId> {
        let mut parents: SmallVec<[NodeId; 8]> = SmallVec::new();
        let mut at = ROOT;
        for word in words(pattern) {
            parents.push(at);
            at = self.child(at, word)?;
        }
        let moved = self.nodes.get_mut(at.0)?.targets.remove(place);
        for (word, parent) in words(pattern).rev().zip(parents.into_iter().rev()) {
            if !self.node(at).is_some_and(Node::is_idle) {
                break;
            }
            self.nodes.remove(at.0);
            self.remove_edge(parent, word);
            at = parent;
        }
        moved
    }

    fn collect(&self, key: &str, walk: &mut Walk, found: &mut Found) {
        walk.current.clear();
        walk.next.clear();
        walk.staying.clear();
        walk.reached.clear();
        self.enter(ROOT, walk, found);
        mem::swap(&mut walk.current, &mut walk.next);
        for word in words(key) {
            if walk.current.is_empty() && walk.staying.is_empty() {
                return;
            }
            let word = self.words.get(word).map(|word| word.id);
            // The nodes that this word reaches may only take the next one.
            let staying = walk.staying.len();
            let mut current = mem::take(&mut walk.current);
            for node in current.drain(..) {
                self.step(node, word, walk, found);
            }
            for at in 0..staying {
                if let Some(node) = walk.staying.get(at).copied() {
                    self.step(node, word, walk, found);
                }
            }
            walk.current = mem::replace(&mut walk.next, current);
        }
        for node in &walk.current {
            if let Some(node) = self.node(*node) {
                found.add_all(&node.targets);
            }
        }
    }

    /// Takes one word of the key from a node. `None` is a word that no pattern has.
    fn step(&self, id: NodeId, word: Option<WordId>, walk: &mut Walk, found: &mut Found) {
        found.count_step();
        let Some(node) = self.node(id) else { return };
        if node.literals > 0
            && let Some(child) = word.and_then(|word| self.edges.get(&(id, word)))
        {
            self.enter(*child, walk, found);
        }
        if let Some(child) = node.star {
            self.enter(child, walk, found);
        }
    }

    /// Reaches a node, and with it the `#` below it, which may take no word at all, and the `#` below that.
    fn enter(&self, id: NodeId, walk: &mut Walk, found: &mut Found) {
        walk.next.push(id);
        let mut hash = self.node(id).and_then(|node| node.hash);
        while let Some((id, node)) = hash.and_then(|id| Some((id, self.node(id)?))) {
            found.count_step();
            if node.reached_again && !walk.reached.insert(id) {
                return;
            }
            // It takes all words that are left, so its bindings match already.
            found.add_all(&node.targets);
            if node.has_steps() {
                walk.staying.push(id);
            }
            hash = node.hash;
        }
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0)
    }

    fn child(&self, parent: NodeId, word: &str) -> Option<NodeId> {
        match word {
            "*" => self.node(parent)?.star,
            "#" => self.node(parent)?.hash,
            word => self.edges.get(&(parent, self.words.get(word)?.id)).copied(),
        }
    }

    fn add_child(&mut self, parent: NodeId, word: &str) -> NodeId {
        let below_hash = self.node(parent).is_some_and(|node| node.below_hash);
        let node = Node {
            below_hash: below_hash || word == "#",
            reached_again: below_hash && word == "#",
            ..Node::default()
        };
        let child = NodeId(self.nodes.insert(node));
        if let Some(parent) = self.nodes.get_mut(parent.0) {
            match word {
                "*" => parent.star = Some(child),
                "#" => parent.hash = Some(child),
                _ => parent.literals += 1,
            }
        }
        if !matches!(word, "*" | "#") {
            let word = self.take_word(word);
            self.edges.insert((parent, word), child);
        }
        child
    }

    fn remove_edge(&mut self, parent: NodeId, word: &str) {
        if let Some(parent) = self.nodes.get_mut(parent.0) {
            match word {
                "*" => parent.star = None,
                "#" => parent.hash = None,
                _ => parent.literals -= 1,
            }
        }
        if !matches!(word, "*" | "#")
            && let Some(entry) = self.words.get_mut(word)
        {
            self.edges.remove(&(parent, entry.id));
            entry.edges -= 1;
            if entry.edges == 0 {
                self.words.remove(word);
            }
        }
    }

    /// The word's number, with one edge more.
    fn take_word(&mut self, word: &str) -> WordId {
        if let Some(entry) = self.words.get_mut(word) {
            entry.edges += 1;
            return entry.id;
        }
        let id = WordId(self.words_made);
        self.words_made += 1;
        self.words.insert(Box::from(word), Word { id, edges: 1 });
        id
    }
}

#[cfg(test)]
#[path = "tests/topic.rs"]
mod tests;
