//! The trie against a matcher that is too simple to be wrong, and against patterns that mean harm.

use leveret_protocol::{RoutingKey, Table};
use proptest::prelude::*;

use super::*;
use crate::exchange::Routable;
use crate::exchange::tests::{split, topic_matches};
use crate::store::QueueId;

/// Patterns in a topic table, each with the queue of its index, and the places that a router would keep.
struct Patterns {
    table: TopicTable,
    walk: Walk,
    found: Found,
}

impl Patterns {
    fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = TopicTable::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            table.insert(&key(pattern), BindingId(index), Target::Queue(QueueId(index as u64)));
        }
        Self { table, walk: Walk::default(), found: Found::default() }
    }

    /// The indexes of the patterns that match.
    fn matching(&mut self, key: &str) -> Vec<usize> {
        self.found.start(&Routable { key, further_keys: &[], headers: &&Table::new() });
        self.table.collect(key, &mut self.walk, &mut self.found);
        self.found.finish();
        self.found.queues().iter().map(|queue| queue.0 as usize).collect()
    }
}

fn key(text: &str) -> RoutingKey {
    RoutingKey::new(text).unwrap()
}

#[test]
fn words_and_wildcards_match_as_in_rabbitmq() {
    let cases: [(&str, &[&str], &[&str]); 22] = [
        ("", &[""], &["a", ".", "a.b"]),
        ("#", &["", "a", "a.b", ".", "a..b"], &[]),
        ("#.#", &["", "a", "a.b", "a.b.c"], &[]),
        ("*", &["a", "*", "#"], &["", "a.b", "."]),
        ("*.#", &["a", "a.b", "."], &[""]),
        ("#.*", &["a", "a.b", "."], &[""]),
        ("a.#", &["a", "a.b", "a.b.c", "a."], &["", "b", "ab", ".a"]),
        ("#.a", &["a", "b.a", "b.c.a"], &["", "a.b", "a."]),
        ("#.a.#", &["a", "b.a", "a.b", "b.a.c"], &["", "b", "ab"]),
        ("a.*", &["a.b", "a."], &["a", "a.b.c"]),
        ("a.*.b", &["a.x.b", "a..b"], &["a.b", "a.x.y.b"]),
        ("a.", &["a."], &["a", "a.."]),
        (".a", &[".a"], &["a", "a."]),
        (".", &["."], &["", "..", "a"]),
        ("a..b", &["a..b"], &["a.b", "a.x.b"]),
        ("a*", &["a*"], &["ab", "a"]),
        ("a.b", &["a.b"], &["a", "a.c", "a.*", "a.#", "#"]),
        ("*.*", &["a.b", "."], &["a", "a.b.c"]),
        ("a.#.b.#.c", &["a.b.c", "a.x.b.y.c", "a.b.b.c"], &["a.c", "a.c.b"]),
        ("#.a.#.a.#.a.#", &["a.a.a", "x.a.a.y.a"], &["a.a", "a.x.a"]),
        ("#.*.#", &["a", "a.b"], &[""]),
        ("a.#.#.b", &["a.b", "a.x.b"], &["a", "b"]),
    ];
    for (pattern, fitting, others) in cases {
        let mut patterns = Patterns::new([pattern]);
        for key in fitting {
            assert_eq!(patterns.matching(key), [0], "{pattern:?} matches {key:?}");
        }
        for key in others {
            assert!(patterns.matching(key).is_empty(), "{pattern:?} does not match {key:?}");
        }
    }
}

#[test]
fn the_cost_of_hostile_patterns_is_linear_in_the_words() {
    // 2^9 + 2^8 + … patterns of up to nine `#`, all of which look for words that the key is full of.
    let mut hostile = vec!["#".to_owned()];
    for _ in 0..8 {
        let longer: Vec<String> =
            hostile.iter().flat_map(|it| [format!("{it}.a.#"), format!("{it}.*.#")]).collect();
        hostile.extend(longer);
        hostile.sort_unstable();
        hostile.dedup();
    }
    assert!(hostile.len() >= 500, "{}", hostile.len());
    let cases = [
        ("a thousand alike", (0..1000).map(|_| "#.a.#.a.#".to_owned()).collect::<Vec<_>>()),
        ("a thousand that differ at the end", (0..1000).map(|n| format!("#.a.#.a.#.{n}")).collect()),
        ("every mixture", hostile),
        ("as long as a pattern can be", vec!["#.a.".repeat(63) + "#"]),
    ];
    for (name, patterns) in cases {
        let mut table = Patterns::new(patterns.iter().map(String::as_str));
        let nodes = table.table.patterns.nodes.iter().count();
        for words in [1, 16, 127] {
            let key = vec!["a"; words].join(".");
            table.matching(&key);
            // Each node once a word, and each `#` once more when it is reached through its parent.
            let bound = 2 * nodes * (words + 1);
            assert!(table.found.steps() <= bound, "{name}: {} steps > {bound}", table.found.steps());
        }
    }
}

#[test]
fn the_deepest_pattern_and_the_longest_key_are_matched() {
    let stars = vec!["*"; 128].join(".");
    let hashes = vec!["#"; 128].join(".");
    let dots = ".".repeat(127);
    let mut patterns = Patterns::new([stars.as_str(), hashes.as_str(), dots.as_str()]);
    assert_eq!(patterns.matching(&dots), [0, 1, 2]);
    assert_eq!(patterns.matching(&vec!["a"; 128].join(".")), [0, 1]);
    assert_eq!(patterns.matching(""), [1]);
}

#[test]
fn a_trie_whose_bindings_have_gone_is_empty_again() {
    let patterns = ["a.*.b", "a.*.c", "a.#", "#", "#.#.#", "*", "*.", ".*", "a.*.b"];
    let mut table = TopicTable::default();
    let places: Vec<usize> = (patterns.iter().enumerate())
        .map(|(index, pattern)| {
            table.insert(&key(pattern), BindingId(index), Target::Queue(QueueId(index as u64)))
        })
        .collect();
    assert_eq!(places[8], 1, "the second of its pattern");
    // From the back, so that no place moves.
    for (pattern, place) in patterns.iter().zip(&places).rev() {
        assert_eq!(table.remove(&key(pattern), *place), None, "{pattern}");
    }
    let trie = &table.patterns;
    assert_eq!((trie.nodes.iter().count(), trie.edges.len(), trie.words.len()), (1, 0, 0));
    assert!(trie.is_empty());
}

fn text(words: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(words), 0..=most).prop_map(|words| words.join("."))
}

proptest! {
    #[test]
    fn the_trie_agrees_with_the_naive_matcher(
        patterns in prop::collection::vec(text(&["a", "b", "", "*", "#", "#"], 7), 1..40),
        keys in prop::collection::vec(text(&["a", "b", "c", "", "*", "#"], 8), 1..20),
    ) {
        let mut table = Patterns::new(patterns.iter().map(String::as_str));
        for key in &keys {
            let expected: Vec<usize> = (0..patterns.len())
                .filter(|index| topic_matches(&split(&patterns[*index]), &split(key)))
                .collect();
            prop_assert_eq!(table.matching(key), expected, "key {:?} patterns {:?}", key, patterns);
        }
    }
}
