//! Headers exchanges route by what the publisher said, in whichever protocol.

use leveret_protocol::amqp::{self, Envelope};
use leveret_protocol::{ExchangeName, Properties, PropertiesFormat, RoutingKey};

use super::*;
use crate::topology::{BindingDefinition, DeclareExchange};

/// The header `colour: red`, in a format.
fn red(format: PropertiesFormat) -> bytes::Bytes {
    let headers = Table::from([("colour".to_owned(), "red".into())]);
    let native = Properties { headers, ..Properties::default() }.encode().unwrap();
    match format {
        PropertiesFormat::Native => native,
        PropertiesFormat::Amqp => amqp::to_amqp(PropertiesFormat::Native, &native, &Envelope::default())
            .unwrap()
            .into_owned()
            .into(),
    }
}

#[test]
fn publishes_and_dead_letters_are_routed_by_the_headers_of_either_format() {
    for format in [PropertiesFormat::Native, PropertiesFormat::Amqp] {
        let mut world = World::new();
        let exchange = ExchangeName::new("by-colour").unwrap();
        let declare =
            DeclareExchange::new(exchange.clone(), "headers", false, false, false, &Table::new()).unwrap();
        world.vhost.declare_exchange(declare).unwrap();
        world.queue("first", &[("x-dead-letter-exchange", "by-colour".into())]);
        let last = world.queue("last", &[]);
        let bind = |queue: &str| {
            let binding = BindingDefinition {
                vhost: world.vhost.name.clone(),
                source: exchange.clone(),
                destination: leveret_protocol::Destination::Queue(name(queue)),
                routing_key: RoutingKey::default(),
                arguments: Table::from([("colour".to_owned(), "red".into())]),
            };
            world.vhost.bind(&binding, CONNECTION).unwrap();
        };
        bind("first");
        let properties = red(format);
        let publication = Publication {
            exchange: "by-colour",
            routing_key: "",
            cc: Vec::new(),
            bcc: Vec::new(),
            persistent: false,
            priority: 0,
            ttl_ms: None,
            properties_format: format,
            properties_bytes: properties.len(),
            content: &[&*properties, b"body"].concat(),
        };
        let mut publisher = Publisher::default();
        let ticket = Ticket { channel: 1, number: None };
        assert!(publisher.add(&world.vhost, publication, ticket, 1).unwrap(), "{format:?}");
        publisher.flush(&world.vhost, &mut world.work, &mut ConfirmRuns::default()).unwrap();
        bind("last");

        let mut channel = world.channel();
        channel.get(1, &name("first"), false, &mut world.work).unwrap().unwrap();
        channel.settle(1, &[(1, 1)], &Verb::Reject { note: None }, &mut world.work).unwrap();
        assert_eq!(last.counts().ready, 1, "{format:?}");
        let letter = channel.get(2, &name("last"), false, &mut world.work).unwrap().unwrap();
        assert_eq!(letter.delivery.message.properties_format, format);
    }
}
