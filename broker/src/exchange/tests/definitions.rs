//! What may be declared, bound and deleted, and what goes with it.

use super::*;
use ExchangeKind::{Direct, Fanout, Headers, Topic};

fn auto_delete(kind: ExchangeKind) -> ExchangeSettings {
    ExchangeSettings { auto_delete: true, ..ExchangeSettings::new(kind) }
}

#[test]
fn every_vhost_has_the_predeclared_exchanges() {
    let router = Router::new();
    let mut names: Vec<String> =
        router.exchanges().map(|(name, settings)| format!("{name}={}", settings.kind)).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "amq.direct=direct",
            "amq.fanout=fanout",
            "amq.headers=headers",
            "amq.leveret.log=topic",
            "amq.match=headers",
            "amq.topic=topic"
        ]
    );
}

#[test]
fn exchange_types_have_the_names_of_amqp() {
    for kind in [Direct, Fanout, Topic, Headers] {
        assert_eq!(kind.as_str().parse(), Ok(kind));
        assert!(ExchangeKind::NAMES.contains(&kind.as_str()));
    }
    let unknown = "x-random".parse::<ExchangeKind>().unwrap_err();
    assert_eq!(unknown.code(), 406);
    assert_eq!(
        unknown.to_string(),
        "unknown exchange type 'x-random'; the types are direct, fanout, topic, headers"
    );
}

#[test]
fn an_equivalent_declaration_succeeds_and_any_other_names_the_difference() {
    let mut vhost = Vhost::new(&[], &[]);
    let orders = ExchangeSettings { alternate: Some(exchange("rest")), ..ExchangeSettings::new(Direct) };
    assert_eq!(vhost.declare("orders", orders.clone()), Ok(true));
    assert_eq!(vhost.declare("orders", orders.clone()), Ok(false));
    let is = |text: &str| format!("inequivalent arg {text}");
    let cases = [
        (
            ExchangeSettings { kind: Topic, durable: false, ..orders.clone() },
            is("'type' for exchange 'orders': received 'topic' but current is 'direct'"),
        ),
        (
            ExchangeSettings { durable: false, auto_delete: true, ..orders.clone() },
            is("'durable' for exchange 'orders': received 'false' but current is 'true'"),
        ),
        (
            ExchangeSettings { auto_delete: true, internal: true, ..orders.clone() },
            is("'auto_delete' for exchange 'orders': received 'true' but current is 'false'"),
        ),
        (
            ExchangeSettings { internal: true, alternate: None, ..orders.clone() },
            is("'internal' for exchange 'orders': received 'true' but current is 'false'"),
        ),
        (
            ExchangeSettings { alternate: None, ..orders.clone() },
            is(
                "'alternate-exchange' for exchange 'orders': received none but current is the value 'rest' of type 'longstr'",
            ),
        ),
    ];
    for (settings, text) in cases {
        let refused = vhost.declare("orders", settings).unwrap_err();
        assert_eq!((refused.code(), refused.to_string()), (406, text));
    }
    assert_eq!(vhost.router.declare_passive(&exchange("orders")), Ok(&orders), "nothing has changed");
}

#[test]
fn a_passive_declaration_only_asks_whether_the_exchange_is_there() {
    let vhost = Vhost::new(&[("orders", Direct)], &[]);
    assert!(vhost.router.declare_passive(&exchange("orders")).is_ok());
    let missing = vhost.router.declare_passive(&exchange("other")).unwrap_err();
    assert_eq!((missing.code(), missing.to_string().as_str()), (404, "no exchange 'other'"));
}

#[test]
fn only_known_arguments_of_an_exchange_count() {
    let parse = |arguments| ExchangeSettings::new(Direct).with_arguments(&arguments);
    let unknown = parse(table([("x-custom", Value::Int(1))])).unwrap();
    assert_eq!(unknown, ExchangeSettings::new(Direct));
    let named = parse(table([("alternate-exchange", "rest".into())])).unwrap();
    assert_eq!(named.alternate, Some(exchange("rest")));
    let refused = parse(table([("alternate-exchange", Value::Int(1))])).unwrap_err();
    let text =
        "invalid arg 'alternate-exchange': received an integer, expected the name of an exchange, as text";
    assert_eq!((refused.code(), refused.to_string().as_str()), (406, text));
    let refused = parse(table([("alternate-exchange", "two\nlines".into())])).unwrap_err();
    assert_eq!(refused.code(), 406, "{refused}");
}

#[test]
fn the_default_exchange_cannot_be_declared_deleted_bound_or_unbound() {
    let mut vhost = Vhost::new(&[("x", Fanout)], &["a"]);
    let (default, direct) = (exchange(""), ExchangeSettings::new(Direct));
    let (from, to) = (vhost.binding("", "a", "a"), vhost.binding("x", "", ""));
    let refused = [
        vhost.router.declare(&default, direct).unwrap_err(),
        vhost.router.declare_passive(&default).unwrap_err(),
        vhost.router.delete(&default, false).unwrap_err(),
        vhost.router.bind(from.clone()).unwrap_err(),
        vhost.router.bind(to.clone()).unwrap_err(),
        vhost.router.unbind(&from).unwrap_err(),
        vhost.router.unbind(&to).unwrap_err(),
    ];
    for error in refused {
        assert_eq!((&error, error.code()), (&ExchangeError::DefaultExchange, 403));
    }
}

#[test]
fn names_of_the_broker_can_be_redeclared_but_neither_created_nor_deleted() {
    let mut vhost = Vhost::new(&[], &[]);
    assert_eq!(vhost.declare("amq.topic", ExchangeSettings::new(Topic)), Ok(false));
    assert_eq!(vhost.declare("amq.topic", ExchangeSettings::new(Direct)).unwrap_err().code(), 406);
    let created = vhost.declare("amq.mine", ExchangeSettings::new(Topic)).unwrap_err();
    assert_eq!((created.code(), &created), (403, &ExchangeError::ReservedName(exchange("amq.mine"))));
    for name in ["amq.topic", "amq.mine"] {
        let deleted = vhost.router.delete(&exchange(name), false).unwrap_err();
        assert_eq!((deleted.code(), &deleted), (403, &ExchangeError::SystemExchange(exchange(name))));
    }
}

#[test]
fn binding_twice_is_one_binding_and_unbinding_nothing_succeeds() {
    let mut vhost = Vhost::new(&[("d", Direct)], &["a"]);
    let fresh = vhost.router.generation();
    assert_eq!(vhost.bind("d", "a", "x"), Ok(true));
    let bound = vhost.router.generation();
    assert!(bound > fresh);
    assert_eq!(vhost.bind("d", "a", "x"), Ok(false));
    assert_eq!(vhost.unbind("d", "a", "y"), Removed::default());
    assert_eq!(vhost.unbind("missing", "a", "x"), Removed::default());
    assert_eq!(vhost.router.generation(), bound, "routes that are cached stay valid");
    assert_eq!(vhost.unbind("d", "a", "x").bindings.len(), 1);
    assert!(vhost.router.generation() > bound);
    assert_eq!(vhost.routed("d", "x"), "");
}

#[test]
fn bindings_that_differ_in_any_part_coexist() {
    let mut vhost = Vhost::new(&[("d", Direct), ("e", Direct)], &["a", "b"]);
    let plain = vhost.binding("d", "a", "x");
    let with = |arguments| Binding { arguments, ..plain.clone() };
    let bindings = [
        plain.clone(),
        vhost.binding("e", "a", "x"),
        vhost.binding("d", "b", "x"),
        vhost.binding("d", "a", "y"),
        with(table([("k", Value::Int(1))])),
        with(table([("k", Value::Float(1.0))])),
        with(table([("k", Value::Float(f64::NAN))])),
        with(table([("k", Value::List(vec![Value::Float(f64::NAN)]))])),
        with(table([("k", Value::Table(table([("k", Value::Int(1))])))])),
    ];
    for binding in &bindings {
        assert_eq!(vhost.router.bind(binding.clone()), Ok(true), "{binding:?}");
        assert_eq!(vhost.router.bind(binding.clone()), Ok(false), "{binding:?}");
    }
    assert_eq!(vhost.router.bindings().count(), bindings.len());
    for binding in &bindings {
        assert!(vhost.routed("d", "x").contains('a'), "until the last one has gone");
        let removed = vhost.router.unbind(binding).unwrap();
        assert_eq!(*removed.bindings[0], *binding);
    }
    assert_eq!(vhost.router.bindings().count(), 0);
    assert_eq!(vhost.routed("d", "x"), "");
}

#[test]
fn a_binding_needs_both_its_ends() {
    let mut vhost = Vhost::new(&[("d", Direct)], &["a"]);
    for (source, destination, text) in
        [("none", "a", "no exchange 'none'"), ("d", "none", "no exchange 'none'")]
    {
        let refused = vhost.bind(source, destination, "").unwrap_err();
        assert_eq!((refused.code(), refused.to_string().as_str()), (404, text));
    }
    let queue = Binding { destination: Destination::Queue(QueueId(7)), ..vhost.binding("d", "a", "") };
    let refused = vhost.router.bind(queue).unwrap_err();
    assert_eq!((refused.code(), refused.to_string().as_str()), (404, "no queue number 7"));
}

#[test]
fn x_match_takes_four_values_and_only_a_headers_exchange_reads_it() {
    let mut vhost = Vhost::new(&[("h", Headers), ("d", Direct)], &["a"]);
    for (value, shown) in [
        (Value::from("some"), "\"some\""),
        (Value::from(""), "\"\""),
        (Value::Bool(true), "true"),
        (Value::Null, "null"),
    ] {
        let arguments = table([("x-match", value)]);
        let binding = Binding { arguments, ..vhost.binding("h", "a", "") };
        let refused = vhost.router.bind(binding.clone()).unwrap_err();
        let text =
            format!("invalid arg 'x-match': received {shown}, expected all, any, all-with-x or any-with-x");
        assert_eq!((refused.code(), refused.to_string()), (406, text));
        assert_eq!(vhost.router.bindings().count(), 0);
        let elsewhere = Binding { source: exchange("d"), ..binding };
        assert_eq!(vhost.router.bind(elsewhere.clone()), Ok(true));
        drop(vhost.router.unbind(&elsewhere).unwrap());
    }
}

#[test]
fn deleting_nothing_succeeds_and_if_unused_counts_bindings_from_the_exchange() {
    let mut vhost = Vhost::new(&[("x", Fanout), ("y", Fanout)], &["a"]);
    assert_eq!(vhost.router.delete(&exchange("none"), true), Ok(Removed::default()));
    vhost.bind_all(&[("x", "y", ""), ("x", "a", "")]);
    let refused = vhost.router.delete(&exchange("x"), true).unwrap_err();
    assert_eq!(
        (refused.code(), refused.to_string().as_str()),
        (406, "exchange 'x' in use: it has 2 bindings")
    );
    let removed = vhost.router.delete(&exchange("y"), true).unwrap();
    assert_eq!(
        (exchanges_of(&removed).as_str(), removed.bindings.len()),
        ("y", 1),
        "bindings to it do not count"
    );
    let removed = vhost.router.delete(&exchange("x"), false).unwrap();
    assert_eq!((exchanges_of(&removed).as_str(), removed.bindings.len()), ("x", 1));
    assert_eq!(vhost.router.exchanges().count(), 6);
}

#[test]
fn an_exchange_deletes_itself_with_the_last_binding_from_it_only() {
    let mut vhost = Vhost::new(&[("in", Fanout)], &["a", "b"]);
    vhost.declare("x", auto_delete(Direct)).unwrap();
    vhost.bind_all(&[("in", "x", "")]);
    assert_eq!(exchanges_of(&vhost.unbind("in", "x", "")), "", "never before it had one, nor by one to it");
    vhost.bind_all(&[("in", "x", ""), ("x", "a", "1"), ("x", "b", "2")]);
    assert_eq!(exchanges_of(&vhost.unbind("x", "a", "1")), "");
    let removed = vhost.unbind("x", "b", "2");
    assert_eq!((exchanges_of(&removed).as_str(), removed.bindings.len()), ("x", 2), "with the binding to it");
    assert!(vhost.router.declare_passive(&exchange("x")).is_err());
}

#[test]
fn auto_delete_cascades_through_exchanges_that_are_bound_to_each_other() {
    let mut vhost = Vhost::new(&[("stays", Fanout)], &["a"]);
    for name in ["x", "y", "z"] {
        vhost.declare(name, auto_delete(Fanout)).unwrap();
    }
    vhost.bind_all(&[
        ("stays", "x", ""),
        ("x", "y", ""),
        ("y", "z", ""),
        ("z", "a", ""),
        ("z", "a", "again"),
    ]);
    let removed = vhost.router.remove_queue(vhost.queues["a"]);
    assert_eq!((exchanges_of(&removed).as_str(), removed.bindings.len()), ("x y z", 5));
    assert_eq!(vhost.router.bindings().count(), 0);
    assert!(vhost.router.declare_passive(&exchange("stays")).is_ok());
}

#[test]
fn a_queue_that_is_thinned_out_keeps_what_exchanges_live_by() {
    let mut vhost = Vhost::new(&[("stays", Topic)], &["a", "b"]);
    for name in ["x", "y"] {
        vhost.declare(name, auto_delete(Direct)).unwrap();
    }
    for number in 0..5 {
        vhost.bind_all(&[("stays", "a", &format!("{number}.#")), ("x", "a", &number.to_string())]);
    }
    vhost.bind_all(&[("stays", "b", "0.*"), ("y", "a", "1"), ("y", "b", "1")]);
    let (queue, generation) = (vhost.queues["a"], vhost.router.generation());
    assert!(vhost.router.thin_out(queue, 4));
    assert_eq!(vhost.router.bindings_to(queue), 7);
    while vhost.router.thin_out(queue, 4) {}
    assert_eq!(vhost.router.bindings_to(queue), 1, "the last one of `x`");
    assert_eq!(vhost.router.generation(), generation);
    assert_eq!((vhost.routed("stays", "0.1").as_str(), vhost.routed("y", "1").as_str()), ("b", "b"));
    let removed = vhost.router.remove_queue(queue);
    assert_eq!((exchanges_of(&removed).as_str(), removed.bindings.len()), ("x", 1));
    assert!(vhost.router.declare_passive(&exchange("y")).is_ok());
}

#[test]
fn an_exchange_that_is_bound_to_itself_can_be_deleted() {
    let mut vhost = Vhost::new(&[], &["a"]);
    vhost.declare("x", auto_delete(Fanout)).unwrap();
    vhost.bind_all(&[("x", "x", ""), ("x", "a", "")]);
    assert_eq!(exchanges_of(&vhost.unbind("x", "a", "")), "", "the binding to itself is one from it");
    let removed = vhost.router.delete(&exchange("x"), false).unwrap();
    assert_eq!((exchanges_of(&removed).as_str(), removed.bindings.len()), ("x", 1));
}

#[test]
fn a_queue_whose_name_or_number_is_taken_is_not_added() {
    let mut vhost = Vhost::new(&[], &["a"]);
    let (taken, free) = (vhost.queues["a"], QueueId(1));
    assert!(!vhost.router.add_queue(&QueueName::new("a").unwrap(), free));
    assert!(!vhost.router.add_queue(&QueueName::new("b").unwrap(), taken));
    assert_eq!(vhost.routed("", "b"), "");
    assert_eq!(vhost.routed("", "a"), "a");
    assert_eq!(vhost.router.remove_queue(free), Removed::default());
}
