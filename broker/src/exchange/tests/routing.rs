//! Which queues a message reaches.

use std::cell::{Cell, LazyCell};

use super::*;
use ExchangeKind::{Direct, Fanout, Headers, Topic};

fn with_alternate(kind: ExchangeKind, alternate: &str) -> ExchangeSettings {
    ExchangeSettings { alternate: Some(exchange(alternate)), ..ExchangeSettings::new(kind) }
}

#[test]
fn the_default_exchange_routes_by_queue_name() {
    let mut vhost = Vhost::new(&[], &["a", "b"]);
    assert_eq!(vhost.routed("", "a"), "a");
    assert_eq!(vhost.routed("", "c"), "");
    assert_eq!(vhost.routed_by("", &["a", "b", "a", "c"], &Table::new()), "a b");
    drop(vhost.router.remove_queue(vhost.queues["a"]));
    assert_eq!(vhost.routed("", "a"), "");
}

#[test]
fn direct_and_fanout_follow_the_key_and_ignore_it() {
    let mut vhost = Vhost::new(&[("d", Direct), ("f", Fanout)], &["a", "b"]);
    vhost.bind_all(&[("d", "a", "x"), ("d", "b", "x"), ("d", "b", "y"), ("d", "a", ""), ("f", "a", "x")]);
    for (source, key, queues) in
        [("d", "x", "a b"), ("d", "y", "b"), ("d", "", "a"), ("d", "*", ""), ("f", "z", "a"), ("f", "", "a")]
    {
        assert_eq!(vhost.routed(source, key), queues, "{source} {key:?}");
    }
}

#[test]
fn an_empty_binding_key_matches_in_its_own_topic_exchange_only() {
    let mut vhost = Vhost::new(&[("one", Topic), ("other", Topic)], &["a", "b"]);
    vhost.bind_all(&[("one", "a", ""), ("other", "b", "#")]);
    assert_eq!(vhost.routed("one", ""), "a");
    assert_eq!(vhost.routed("other", ""), "b");
}

#[test]
fn more_than_two_hashes_in_a_pattern_are_allowed() {
    let mut vhost = Vhost::new(&[("t", Topic)], &["a"]);
    vhost.bind_all(&[("t", "a", "#.x.#.y.#.z.#")]);
    assert_eq!(vhost.routed("t", "1.x.y.2.z"), "a");
    assert_eq!(vhost.routed("t", "1.x.z.2.y"), "");
}

#[test]
fn several_matching_bindings_give_one_copy() {
    let mut vhost = Vhost::new(&[("t", Topic)], &["a"]);
    vhost.bind_all(&[("t", "a", "#"), ("t", "a", "x.*"), ("t", "a", "x.y"), ("t", "a", "#.y")]);
    assert_eq!(vhost.routed("t", "x.y"), "a");
}

#[test]
fn header_bindings_match_as_in_rabbitmq() {
    let text = |text: &str| Value::from(text);
    let red = || table([("color", text("red")), ("size", Value::Int(1))]);
    let matched = |mode: Option<&str>, mut asked: Table, headers: &Table| {
        let mut vhost = Vhost::new(&[("h", Headers)], &["a"]);
        if let Some(mode) = mode {
            asked.insert("x-match".to_owned(), text(mode));
        }
        let binding = Binding { arguments: asked, ..vhost.binding("h", "a", "") };
        vhost.router.bind(binding).unwrap();
        vhost.routed_by("h", &["ignored"], headers) == "a"
    };
    let cases: [(Option<&str>, Table, bool, &str); 20] = [
        (None, red(), true, "all is the default"),
        (Some("all"), red(), true, "all are there"),
        (Some("all"), table([("color", text("red")), ("weight", Value::Int(1))]), false, "one is missing"),
        (Some("all"), table([("color", text("blue"))]), false, "another value"),
        (Some("any"), table([("color", text("blue")), ("size", Value::Int(1))]), true, "one is enough"),
        (Some("any"), table([("color", text("blue"))]), false, "none fits"),
        (Some("all"), table([]), true, "no arguments: all matches everything"),
        (Some("any"), table([]), false, "no arguments: any matches nothing"),
        (Some("all-with-x"), table([]), true, "no arguments"),
        (Some("any-with-x"), table([]), false, "no arguments"),
        (Some("all"), table([("color", Value::Null)]), true, "void: present"),
        (Some("any"), table([("weight", Value::Null)]), false, "void: not present"),
        (Some("all"), table([("size", Value::Float(1.0))]), false, "1 is not 1.0"),
        (Some("all"), table([("size", text("1"))]), false, "1 is not text"),
        (Some("all"), table([("color", Value::Bytes(b"red".to_vec()))]), true, "the type tag does not count"),
        (Some("all"), table([("x-trace", text("no"))]), true, "x- arguments do not count"),
        (Some("any"), table([("x-trace", text("yes"))]), false, "x- arguments do not count"),
        (Some("all-with-x"), table([("x-trace", text("yes"))]), true, "x- arguments count"),
        (Some("all-with-x"), table([("x-trace", text("no"))]), false, "x- arguments count"),
        (Some("any-with-x"), table([("x-trace", text("yes"))]), true, "x- arguments count"),
    ];
    let mut headers = red();
    headers.insert("x-trace".to_owned(), text("yes"));
    for (mode, asked, expected, why) in cases {
        assert_eq!(matched(mode, asked.clone(), &headers), expected, "{mode:?} {asked:?}: {why}");
    }
    assert!(matched(Some("all"), table([]), &Table::new()), "no headers match an empty all");
    assert!(!matched(Some("all"), red(), &Table::new()));
}

#[test]
fn headers_are_decoded_once_and_only_for_bindings_that_need_them() {
    let mut vhost = Vhost::new(&[("f", Fanout), ("h1", Headers), ("h2", Headers), ("idle", Headers)], &["a"]);
    vhost.bind_all(&[("f", "h1", ""), ("f", "h2", ""), ("h1", "a", ""), ("h2", "a", "")]);
    vhost.bind_all(&[("amq.direct", "a", "x")]);
    let mut route = Route::default();
    for (source, decodings, cacheable) in
        [("f", 1, false), ("h1", 1, false), ("idle", 0, true), ("amq.direct", 0, true), ("", 0, true)]
    {
        let decoded = Cell::new(0);
        let headers = LazyCell::new(|| {
            decoded.set(decoded.get() + 1);
            Table::new()
        });
        let message = Routable { key: "x", further_keys: &[], headers: &headers };
        vhost.router.route(Publisher::Client, source, &message, &mut route).unwrap();
        assert_eq!((decoded.get(), route.is_cacheable()), (decodings, cacheable), "{source:?}");
    }
}

#[test]
fn further_keys_are_routed_by_the_same_exchange_and_give_one_copy() {
    let mut vhost = Vhost::new(&[("d", Direct), ("t", Topic), ("h", Headers)], &["a", "b", "c"]);
    vhost.bind_all(&[
        ("d", "a", "x"),
        ("d", "b", "y"),
        ("d", "c", "z"),
        ("t", "a", "x.*"),
        ("t", "b", "#.y"),
    ]);
    vhost.bind_all(&[("h", "a", "")]);
    for (source, keys, queues) in [
        ("d", &["x", "y"][..], "a b"),
        ("d", &["none", "y", "y"], "b"),
        ("d", &["x", "x", "z", "x"], "a c"),
        ("t", &["x.y", "x.y"], "a b"),
        ("t", &["", "x.1"], "a"),
        ("h", &["x", "y"], "a"),
    ] {
        assert_eq!(vhost.routed_by(source, keys, &Table::new()), queues, "{source} {keys:?}");
        assert!(!vhost.route.is_cacheable(), "the cache knows one key only");
    }
}

#[test]
fn cycles_of_exchanges_end_and_give_one_copy() {
    let mut vhost = Vhost::new(&[("x", Fanout), ("y", Fanout), ("z", Direct)], &["a", "b"]);
    vhost.bind_all(&[("x", "y", ""), ("y", "x", ""), ("x", "x", ""), ("y", "z", ""), ("z", "x", "k")]);
    vhost.bind_all(&[("x", "a", ""), ("y", "a", ""), ("z", "a", "k"), ("z", "b", "k")]);
    for source in ["x", "y", "z"] {
        assert_eq!(vhost.routed(source, "k"), "a b", "{source}");
    }
    assert_eq!(vhost.routed("x", "other"), "a");
}

#[test]
fn a_long_chain_of_exchanges_is_followed_to_its_end() {
    let mut vhost = Vhost::new(&[], &["a"]);
    for link in 0..10_000 {
        vhost.declare(&format!("x{link}"), ExchangeSettings::new(Fanout)).unwrap();
    }
    for link in 1..10_000 {
        vhost.bind(&format!("x{}", link - 1), &format!("x{link}"), "").unwrap();
    }
    vhost.bind("x9999", "a", "").unwrap();
    assert_eq!(vhost.routed("x0", ""), "a");
}

#[test]
fn an_alternate_exchange_takes_what_its_own_exchange_does_not() {
    let mut vhost = Vhost::new(&[("rest", Fanout), ("front", Fanout)], &["a", "lost"]);
    vhost.declare("d", with_alternate(Direct, "rest")).unwrap();
    vhost.bind_all(&[("d", "a", "x"), ("rest", "lost", "")]);
    assert_eq!(vhost.routed("d", "x"), "a");
    assert_eq!(vhost.routed("d", "y"), "lost");
    assert_eq!(vhost.routed_by("d", &["x", "y"], &Table::new()), "a", "one key found something");
    vhost.bind_all(&[("front", "d", ""), ("front", "a", "")]);
    assert_eq!(vhost.routed("front", "y"), "a lost", "also inside a chain of bindings");
}

#[test]
fn alternate_exchanges_chain_and_their_cycles_end() {
    let mut vhost = Vhost::new(&[("last", Direct)], &["a", "k"]);
    vhost.declare("one", with_alternate(Topic, "two")).unwrap();
    vhost.declare("two", with_alternate(Headers, "last")).unwrap();
    vhost.declare("self", with_alternate(Direct, "self")).unwrap();
    vhost.declare("ping", with_alternate(Direct, "pong")).unwrap();
    vhost.declare("pong", with_alternate(Direct, "ping")).unwrap();
    vhost.declare("queues", with_alternate(Direct, "")).unwrap();
    vhost.bind_all(&[("last", "a", "x")]);
    for (source, key, queues) in [
        ("one", "x", "a"),
        ("one", "y", ""),
        ("self", "x", ""),
        ("ping", "x", ""),
        ("queues", "k", "k"),
        ("queues", "none", ""),
    ] {
        assert_eq!(vhost.routed(source, key), queues, "{source} {key}");
        assert!(vhost.route.missing_alternates().is_empty());
    }
}

#[test]
fn a_destination_that_was_visited_already_is_still_a_destination() {
    let mut vhost = Vhost::new(&[("x", Fanout), ("rest", Fanout)], &["a", "lost"]);
    vhost.declare("back", with_alternate(Direct, "rest")).unwrap();
    vhost.bind_all(&[("x", "back", ""), ("x", "a", ""), ("back", "x", "k"), ("rest", "lost", "")]);
    assert_eq!(vhost.routed("x", "k"), "a", "`back` did match, so its alternate is not asked");
    assert_eq!(vhost.routed("x", "other"), "a lost");
}

#[test]
fn a_missing_alternate_exchange_is_reported() {
    let mut vhost = Vhost::new(&[], &["a"]);
    vhost.declare("d", with_alternate(Direct, "later")).unwrap();
    assert_eq!(vhost.routed("d", "x"), "");
    assert_eq!(vhost.route.missing_alternates(), [exchange("later")]);
    let before = vhost.router.generation();
    vhost.declare("later", ExchangeSettings::new(Fanout)).unwrap();
    assert!(vhost.router.generation() > before, "what was cached without it is void");
    vhost.bind_all(&[("later", "a", "")]);
    assert_eq!(vhost.routed("d", "x"), "a");
    assert!(vhost.route.missing_alternates().is_empty());
}

#[test]
fn an_internal_exchange_is_closed_to_clients_only() {
    let mut vhost = Vhost::new(&[("open", Fanout)], &["a"]);
    let internal = ExchangeSettings { internal: true, ..ExchangeSettings::new(Fanout) };
    vhost.declare("inside", internal).unwrap();
    vhost.declare("front", with_alternate(Direct, "inside")).unwrap();
    vhost.bind_all(&[("open", "inside", ""), ("inside", "a", ""), ("amq.leveret.log", "a", "#")]);
    assert_eq!(vhost.routed("open", ""), "a", "through a binding");
    assert_eq!(vhost.routed("front", ""), "a", "as an alternate exchange");
    let message = Routable { key: "", further_keys: &[], headers: &&Table::new() };
    for name in ["inside", "amq.leveret.log"] {
        let refused = vhost.router.route(Publisher::Client, name, &message, &mut vhost.route).unwrap_err();
        assert_eq!(refused, ExchangeError::Internal(exchange(name)));
        assert_eq!(refused.code(), 403);
        assert!(vhost.route.queues().is_empty(), "nothing is left from the message before");
        vhost.router.route(Publisher::Broker, name, &message, &mut vhost.route).unwrap();
        assert_eq!(vhost.names(vhost.route.queues()), "a", "from the broker: {name}");
    }
}

#[test]
fn publishing_to_a_missing_exchange_is_refused() {
    let mut vhost = Vhost::new(&[], &[]);
    let message = Routable { key: "", further_keys: &[], headers: &&Table::new() };
    let refused = vhost.router.route(Publisher::Client, "nowhere", &message, &mut vhost.route).unwrap_err();
    assert_eq!((refused.code(), refused.to_string().as_str()), (404, "no exchange 'nowhere'"));
}

#[test]
fn many_ways_to_the_same_queues_give_one_copy_each() {
    let mut vhost = Vhost::new(&[("in", Fanout)], &[]);
    let queues: Vec<QueueId> = (0..300).map(|queue| vhost.add_queue(&format!("q{queue}"))).collect();
    for middle in 0..20 {
        let middle = format!("m{middle}");
        vhost.declare(&middle, ExchangeSettings::new(Fanout)).unwrap();
        vhost.bind("in", &middle, "").unwrap();
        for queue in 0..300 {
            vhost.bind(&middle, &format!("q{queue}"), "").unwrap();
        }
    }
    vhost.routed("in", "");
    assert_eq!(vhost.route.queues(), queues);
}
