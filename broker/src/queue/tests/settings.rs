use super::*;

type Arguments<'a> = &'a [(&'a str, Value)];

fn read(given: Arguments<'_>) -> Result<Settings, String> {
    Settings::from_arguments(true, false, false, &arguments(given)).map_err(|error| error.to_string())
}

#[test]
fn every_argument_is_read_and_checked() {
    let cases: [(&str, Value, bool); 47] = [
        ("x-message-ttl", 0.into(), true),
        ("x-message-ttl", (-1).into(), false),
        ("x-message-ttl", "10".into(), false),
        ("x-message-ttl", 10.0.into(), false),
        ("x-message-ttl", u64::MAX.into(), false),
        ("x-expires", 1.into(), true),
        ("x-expires", 0.into(), false),
        ("x-max-length", 0.into(), true),
        ("x-max-length", (-1).into(), false),
        ("x-max-length-bytes", 0.into(), true),
        ("x-max-length-bytes", true.into(), false),
        ("x-overflow", "drop-head".into(), true),
        ("x-overflow", "reject-publish".into(), true),
        ("x-overflow", "reject-publish-dlx".into(), true),
        ("x-overflow", "drop-tail".into(), false),
        ("x-overflow", 1.into(), false),
        ("x-dead-letter-exchange", "".into(), true),
        ("x-dead-letter-exchange", "d\n".into(), false),
        ("x-dead-letter-routing-key", "key".into(), false),
        ("x-max-priority", 1.into(), true),
        ("x-max-priority", 255.into(), true),
        ("x-max-priority", 0.into(), false),
        ("x-max-priority", 256.into(), false),
        ("x-single-active-consumer", true.into(), true),
        ("x-single-active-consumer", "true".into(), false),
        ("x-delivery-limit", (-1).into(), true),
        ("x-delivery-limit", (-2).into(), false),
        ("x-queue-type", "classic".into(), true),
        ("x-queue-type", "quorum".into(), true),
        ("x-queue-type", "stream".into(), false),
        ("x-queue-type", "lazy".into(), false),
        ("x-dead-letter-strategy", "at-least-once".into(), true),
        ("x-dead-letter-strategy", "twice".into(), false),
        ("x-consumer-timeout", 1000.into(), true),
        ("x-consumer-timeout", (-1).into(), false),
        ("x-queue-mode", "lazy".into(), true),
        ("x-queue-mode", "eager".into(), false),
        ("x-queue-version", 2.into(), true),
        ("x-queue-version", 3.into(), false),
        ("x-max-in-memory-length", 0.into(), true),
        ("x-max-in-memory-bytes", (-1).into(), false),
        ("x-quorum-initial-group-size", 3.into(), true),
        ("x-quorum-initial-group-size", 0.into(), false),
        ("x-queue-leader-locator", "balanced".into(), true),
        ("x-queue-master-locator", 1.into(), false),
        ("x-max-age", "1D".into(), false),
        ("x-initial-cluster-size", 3.into(), false),
    ];
    for (argument, value, good) in cases {
        let result = read(&[(argument, value.clone())]);
        assert_eq!(result.is_ok(), good, "{argument} = {value}: {result:?}");
        if let Err(error) = result {
            assert!(error.contains(&format!("invalid arg '{argument}'")), "{error}");
        }
    }
}

#[test]
fn an_argument_error_says_what_would_be_right() {
    assert_eq!(
        read(&[("x-max-priority", 300.into())]).unwrap_err(),
        "invalid arg 'x-max-priority': it has to be a priority from 1 to 255, and this is 300 (an integer)"
    );
    assert_eq!(
        read(&[("x-queue-type", "stream".into())]).unwrap_err(),
        "invalid arg 'x-queue-type': this broker has no streams; it has 'classic' and 'quorum'"
    );
}

#[test]
fn values_end_up_where_they_belong() {
    let settings = read(&[
        ("x-message-ttl", 1.into()),
        ("x-expires", 2.into()),
        ("x-max-length", 3.into()),
        ("x-max-length-bytes", 4.into()),
        ("x-overflow", "reject-publish-dlx".into()),
        ("x-dead-letter-exchange", "dlx".into()),
        ("x-dead-letter-routing-key", "key".into()),
        ("x-max-priority", 5.into()),
        ("x-single-active-consumer", true.into()),
        ("x-delivery-limit", 6.into()),
    ])
    .unwrap();
    let counts = (settings.message_ttl_ms, settings.expires_ms, settings.length_max, settings.bytes_max);
    assert_eq!(counts, (Some(1), Some(2), Some(3), Some(4)));
    assert_eq!(settings.overflow, Overflow::RejectPublishDeadLetter);
    let dead_letter = settings.dead_letter.unwrap();
    assert_eq!((dead_letter.exchange.as_str(), dead_letter.routing_key.unwrap().as_str()), ("dlx", "key"));
    assert_eq!(
        (settings.priority_max, settings.single_active, settings.delivery_limit),
        (Some(5), true, Some(6))
    );
}

#[test]
fn the_delivery_limit_is_20_with_a_dead_letter_exchange_and_none_without() {
    let exchange = ("x-dead-letter-exchange", Value::from("dlx"));
    let cases: [(Arguments<'_>, Option<u32>); 4] = [
        (&[], None),
        (std::slice::from_ref(&exchange), Some(20)),
        (&[exchange.clone(), ("x-delivery-limit", (-1).into())], None),
        (&[("x-delivery-limit", 3.into())], Some(3)),
    ];
    for (given, limit) in cases {
        assert_eq!(read(given).unwrap().delivery_limit, limit, "{given:?}");
    }
}

#[test]
fn an_exclusive_queue_is_never_durable() {
    assert!(!Settings::from_arguments(true, true, false, &Table::new()).unwrap().durable);
}

#[test]
fn a_redeclaration_has_to_be_equivalent() {
    let ttl = |ms: i32| ("x-message-ttl", Value::from(ms));
    let cases: [(Arguments<'_>, Arguments<'_>, Option<&str>); 11] = [
        (&[], &[], None),
        (&[ttl(5)], &[ttl(5)], None),
        // Integers of all widths are one type: int versus long is no difference.
        (&[("x-message-ttl", 5u64.into())], &[("x-message-ttl", 5i64.into())], None),
        (
            &[ttl(5)],
            &[ttl(6)],
            Some("'x-message-ttl' for queue 'q' in vhost '/': received '6' but current is '5'"),
        ),
        (
            &[ttl(5)],
            &[],
            Some(
                "'x-message-ttl' for queue 'q' in vhost '/': received none but current is the value '5' of type 'signedint'",
            ),
        ),
        (
            &[],
            &[("x-overflow", "drop-head".into())],
            Some(
                "'x-overflow' for queue 'q' in vhost '/': received the value 'drop-head' of type 'longstr' but current is none",
            ),
        ),
        (&[], &[("x-queue-type", "classic".into())], None),
        (
            &[],
            &[("x-queue-type", "quorum".into())],
            Some(
                "'x-queue-type' for queue 'q' in vhost '/': received the value 'quorum' of type 'longstr' but current is none",
            ),
        ),
        (
            &[("x-queue-type", "quorum".into())],
            &[("x-queue-type", "classic".into())],
            Some("'x-queue-type' for queue 'q' in vhost '/': received 'classic' but current is 'quorum'"),
        ),
        // What has no effect here is compared all the same.
        (
            &[("x-queue-mode", "lazy".into())],
            &[("x-queue-mode", "default".into())],
            Some("'x-queue-mode' for queue 'q' in vhost '/': received 'default' but current is 'lazy'"),
        ),
        // Unknown arguments are kept, but neither validated nor compared.
        (&[("x-mine", 1.into())], &[("x-mine", "other".into()), ("x-more", true.into())], None),
    ];
    for (current, asked, difference) in cases {
        let result = read(current).unwrap().check_equivalent(&read(asked).unwrap(), "q", "/");
        let expected = difference.map(|text| format!("inequivalent arg {text}"));
        assert_eq!(result.err().map(|error| error.to_string()), expected);
    }
    assert_eq!(read(&[("x-mine", 1.into())]).unwrap().arguments, arguments(&[("x-mine", 1.into())]));
}

#[test]
fn a_quorum_queue_is_durable_shared_and_lasting() {
    let quorum = arguments(&[("x-queue-type", "quorum".into())]);
    let cases = [
        ((true, false, false), None),
        ((false, false, false), Some("non-durable")),
        ((true, true, false), Some("exclusive-owner")),
        ((true, false, true), Some("auto-delete")),
    ];
    for ((durable, exclusive, auto_delete), wrong) in cases {
        let read = Settings::from_arguments(durable, exclusive, auto_delete, &quorum);
        let expected = wrong.map(|property| ArgumentError::NotForQuorum { property });
        assert_eq!(read.err(), expected);
    }
}

#[test]
fn a_queue_from_an_older_version_is_not_lost_for_arguments_without_effect() {
    for (argument, value) in [("x-queue-mode", 1.into()), ("x-max-age", "1D".into())] {
        let given = arguments(&[(argument, value), ("x-queue-type", "quorum".into())]);
        assert!(Settings::from_arguments(true, false, false, &given).is_err(), "{argument}");
        assert!(Settings::restored(true, false, true, &given).is_ok(), "{argument}");
    }
}

#[test]
fn durable_is_compared_before_auto_delete_and_both_before_arguments() {
    let settings = |durable, auto_delete, ttl: i32| {
        let arguments = arguments(&[("x-message-ttl", ttl.into())]);
        Settings::from_arguments(durable, false, auto_delete, &arguments).unwrap()
    };
    let current = settings(true, false, 1);
    let cases = [
        (settings(false, true, 2), "durable", "'false'", "'true'"),
        (settings(true, true, 2), "auto_delete", "'true'", "'false'"),
        (settings(true, false, 2), "x-message-ttl", "'2'", "'1'"),
    ];
    for (asked, argument, received, was) in cases {
        let error = current.check_equivalent(&asked, "q", "/").unwrap_err();
        assert_eq!((error.argument, &*error.received, &*error.current), (argument, received, was));
    }
}
