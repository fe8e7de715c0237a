"""Events go to everybody who asked for their kind, each in a queue of its own. Usage: topic_fan_out.py URL"""

import sys

import pika

URL = sys.argv[1]
EVENTS = "use-case.events"
SUBSCRIPTIONS = {
    "everything": ["#"],
    "orders": ["order.*"],
    "payments and refunds": ["*.paid", "*.refunded"],
    "one customer": ["order.created", "customer.42.#"],
}
PUBLISHED = ["order.created", "order.paid", "invoice.paid", "order.refunded", "customer.42", "customer.42.moved.away"]
EXPECTED = {
    "everything": PUBLISHED,
    "orders": ["order.created", "order.paid", "order.refunded"],
    "payments and refunds": ["order.paid", "invoice.paid", "order.refunded"],
    "one customer": ["order.created", "customer.42", "customer.42.moved.away"],
}


class Subscriber:
    def __init__(self, patterns):
        self.connection = pika.BlockingConnection(pika.URLParameters(URL))
        self.channel = self.connection.channel()
        self.queue = self.channel.queue_declare("", exclusive=True).method.queue
        for pattern in patterns:
            self.channel.queue_bind(self.queue, EVENTS, pattern)

    def take(self, count):
        keys = []
        for method, _, _ in self.channel.consume(self.queue, auto_ack=True, inactivity_timeout=10):
            assert method, f"nothing came after {keys}"
            keys.append(method.routing_key)
            if len(keys) == count:
                break
        assert self.channel.cancel() == 0, "more came than expected"
        self.connection.close()
        return keys


def main():
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    channel.exchange_declare(EVENTS, "topic", auto_delete=True)
    subscribers = {name: Subscriber(patterns) for name, patterns in SUBSCRIPTIONS.items()}
    channel.confirm_delivery()
    for key in PUBLISHED:
        channel.basic_publish(EVENTS, key, b"event", mandatory=True)
    for name, subscriber in subscribers.items():
        keys = subscriber.take(len(EXPECTED[name]))
        assert keys == EXPECTED[name], f"{name}: {keys}"
    connection.close()


main()
