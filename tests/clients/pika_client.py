"""What pika can do with a broker, in brief. Usage: pika_client.py URL"""

import sys
import uuid

import pika
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, NackError, UnroutableError

URL = sys.argv[1]
# Longer than anything takes; whoever waits for longer reports a broken promise.
PATIENCE = 10


class Session:
    """A connection with a channel that confirms."""

    def __init__(self):
        self.connection = pika.BlockingConnection(pika.URLParameters(URL))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()

    def queue(self, **arguments):
        """A queue that goes with the connection."""
        arguments = {"x-" + name.replace("_", "-"): value for name, value in arguments.items()}
        return self.channel.queue_declare("", exclusive=True, arguments=arguments).method.queue

    def exchange(self, kind, **arguments):
        name = f"pika.{kind}.{uuid.uuid4()}"
        self.channel.exchange_declare(name, kind, auto_delete=True, arguments=arguments)
        return name

    def publish(self, queue, body, exchange="", **properties):
        properties = pika.BasicProperties(**properties)
        self.channel.basic_publish(exchange, queue, body, properties, mandatory=True)

    def next(self, queue):
        """The next delivery: its method, properties and body."""
        method, properties, body = next(self.channel.consume(queue, inactivity_timeout=PATIENCE))
        assert method is not None, f"nothing came within {PATIENCE} s"
        return method, properties, body.decode()

    def drain(self, queue):
        bodies = []
        while True:
            method, _, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                return bodies
            bodies.append(body.decode())


def consumed_and_acknowledged_messages_are_gone(session):
    queue = session.queue()
    for number in range(20):
        session.publish(queue, str(number))
    for number in range(20):
        method, _, body = session.next(queue)
        assert (body, method.redelivered) == (str(number), False)
        session.channel.basic_ack(method.delivery_tag)
    session.channel.cancel()
    assert session.drain(queue) == []


def requeued_messages_come_again_and_rejected_ones_do_not(session):
    queue = session.queue()
    session.publish(queue, "job")
    method, _, _ = session.next(queue)
    session.channel.basic_nack(method.delivery_tag, requeue=True)
    method, _, body = session.next(queue)
    assert (body, method.redelivered) == ("job", True)
    session.channel.basic_reject(method.delivery_tag, requeue=False)
    session.channel.cancel()
    assert session.drain(queue) == []


def properties_arrive_as_they_were_sent(session):
    queue = session.queue()
    sent = dict(
        content_type="application/json", content_encoding="utf-8", delivery_mode=2, priority=3,
        correlation_id="c1", reply_to="answers", expiration="60000", message_id="m1",
        timestamp=1_700_000_000, type="order", user_id="guest", app_id="shop",
        headers={"text": "höchst", "number": -7, "large": 1 << 40, "flag": True, "list": [1, "two"],
                 "table": {"inner": None}},
    )
    session.publish(queue, "x" * 300_000, **sent)
    _, properties, body = session.next(queue)
    assert {name: getattr(properties, name) for name in sent} == sent
    assert len(body) == 300_000


def what_nobody_gets_is_returned_and_what_does_not_fit_refused(session):
    try:
        session.publish("nobody.listens", "lost", exchange="amq.topic")
        raise AssertionError("it was not returned")
    except UnroutableError as error:
        assert error.messages[0].method.reply_code == 312
    queue = session.queue(max_length=1, overflow="reject-publish")
    session.publish(queue, "fits")
    try:
        session.publish(queue, "does not")
        raise AssertionError("it was not refused")
    except NackError:
        assert session.drain(queue) == ["fits"]


def rejected_and_expired_messages_are_dead_lettered(session):
    dead = session.queue()
    target = dict(dead_letter_exchange="", dead_letter_routing_key=dead)
    rejecting, expiring, own = session.queue(**target), session.queue(**target, message_ttl=10), session.queue(**target)
    session.publish(rejecting, "rejected")
    method, _, _ = session.next(rejecting)
    session.channel.basic_nack(method.delivery_tag, requeue=False)
    session.channel.cancel()
    for queue, reason in ((rejecting, "rejected"), (expiring, "expired"), (own, "expired")):
        if queue != rejecting:
            session.publish(queue, reason, expiration="10" if queue == own else None)
        method, properties, body = session.next(dead)
        session.channel.basic_ack(method.delivery_tag)
        death = properties.headers["x-death"][0]
        assert (body, death["reason"], death["queue"], death["count"]) == (reason, reason, queue, 1), death
        assert properties.headers["x-first-death-queue"] == queue


def priorities_topics_headers_and_exchanges_behind_exchanges_route(session):
    queue = session.queue(max_priority=9)
    topic, headers = session.exchange("topic"), session.exchange("headers")
    session.channel.queue_bind(queue, topic, "a.*.#")
    session.channel.queue_bind(queue, headers, arguments={"x-match": "all", "kind": "pdf"})
    session.publish("a.low", "low", exchange=topic, priority=1)
    session.publish("", "high", exchange=headers, priority=9, headers={"kind": "pdf", "pages": 2})
    outer = session.exchange("fanout")
    session.channel.exchange_bind(topic, outer, "")
    session.publish("a.b.c", "middle", exchange=outer, priority=5)
    assert session.drain(queue) == ["high", "middle", "low"]


def a_transaction_happens_whole_or_not_at_all(session):
    channel, queue = session.connection.channel(), session.queue()
    channel.tx_select()
    for end in (channel.tx_rollback, channel.tx_commit):
        channel.basic_publish("", queue, end.__name__)
        assert session.drain(queue) == []
        end()
    assert session.drain(queue) == ["tx_commit"]


def the_prefetch_limits_what_is_on_its_way(session):
    queue, came = session.queue(), []
    for body in "123":
        session.publish(queue, body)
    session.channel.basic_qos(prefetch_count=2)
    session.channel.basic_consume(queue, lambda *delivery: came.append(delivery[3].decode()))
    # The answer comes after the deliveries.
    left = session.channel.queue_declare(queue, passive=True).method.message_count
    session.connection.process_data_events(0)
    assert (came, left) == (["1", "2"], 1)


def a_queue_that_is_deleted_cancels_its_consumers(session):
    queue, cancelled = session.queue(), []
    session.channel.add_on_cancel_callback(cancelled.append)
    tag = session.channel.basic_consume(queue, lambda *_: None)
    session.connection.channel().queue_delete(queue)
    session.connection.process_data_events(PATIENCE)
    assert [frame.method.consumer_tag for frame in cancelled] == [tag]


def mistakes_close_the_channel_with_rabbitmqs_words(session):
    try:
        session.channel.queue_declare("not-there", passive=True)
        raise AssertionError("it is not there")
    except ChannelClosedByBroker as error:
        expected = (404, "NOT_FOUND - no queue 'not-there' in vhost '/'")
        assert (error.reply_code, error.reply_text) == expected, error
    assert session.connection.is_open


def a_wrong_password_is_refused(_):
    parameters = pika.URLParameters(URL)
    parameters.credentials = pika.PlainCredentials("guest", "wrong")
    try:
        pika.BlockingConnection(parameters)
        raise AssertionError("it was let in")
    except AMQPConnectionError:
        pass


CASES = [
    consumed_and_acknowledged_messages_are_gone,
    requeued_messages_come_again_and_rejected_ones_do_not,
    properties_arrive_as_they_were_sent,
    what_nobody_gets_is_returned_and_what_does_not_fit_refused,
    rejected_and_expired_messages_are_dead_lettered,
    priorities_topics_headers_and_exchanges_behind_exchanges_route,
    a_transaction_happens_whole_or_not_at_all,
    the_prefetch_limits_what_is_on_its_way,
    a_queue_that_is_deleted_cancels_its_consumers,
    mistakes_close_the_channel_with_rabbitmqs_words,
    a_wrong_password_is_refused,
]

for case in CASES:
    session = Session()
    print(f"{case.__name__} ... ", end="", flush=True)
    case(session)
    session.connection.close()
    print("ok")
