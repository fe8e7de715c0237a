"""A consumer that outlives a restart of the broker, as pika's documentation has it: it connects again and goes on.
Usage: recovery.py URL. When it says "ready", the broker is to be restarted."""

import sys
import time

import pika
from pika.exceptions import AMQPConnectionError, ConnectionClosedByBroker

URL = sys.argv[1]
QUEUE = "clients.recovery"
PATIENCE = 30


def connect():
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(QUEUE, durable=True)
    return connection, channel


def publish(channel, body, delivery_mode):
    properties = pika.BasicProperties(delivery_mode=delivery_mode, headers={"kept": delivery_mode == 2})
    channel.basic_publish("", QUEUE, body, properties, mandatory=True)


def reconnect():
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return connect()
        except AMQPConnectionError:
            assert time.monotonic() < deadline, "the broker does not come back"
            time.sleep(0.05)


connection, channel = connect()
for body in (b"done", b"begun", b"waiting"):
    publish(channel, body, 2)
publish(channel, b"transient", 1)
# One is acknowledged, and one is not yet when the broker goes.
channel.basic_qos(prefetch_count=1)
deliveries = channel.consume(QUEUE, inactivity_timeout=PATIENCE)
method, _, body = next(deliveries)
assert body == b"done", body
channel.basic_ack(method.delivery_tag)
method, _, body = next(deliveries)
assert body == b"begun", body
print("ready", flush=True)
try:
    next(deliveries)
    raise AssertionError("the broker did not go")
except ConnectionClosedByBroker as error:
    assert error.reply_code == 320, error

connection, channel = reconnect()
for expected, redelivered in ((b"begun", True), (b"waiting", False)):
    method, properties, body = next(channel.consume(QUEUE, inactivity_timeout=PATIENCE))
    assert (body, method.redelivered) == (expected, redelivered), (body, method)
    assert properties.headers["kept"] is True
    channel.basic_ack(method.delivery_tag)
assert channel.cancel() == 0, "the transient message is still there"
publish(channel, b"after", 2)
assert channel.basic_get(QUEUE, auto_ack=True)[2] == b"after"
channel.queue_delete(QUEUE)
connection.close()
