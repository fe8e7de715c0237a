"""Urgent work overtakes what waits already. Usage: priority_queue.py URL"""

import sys

import pika

URL = sys.argv[1]


def main():
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    channel.confirm_delivery()
    queue = channel.queue_declare("", exclusive=True, arguments={"x-max-priority": 3}).method.queue

    def publish(body, priority):
        channel.basic_publish("", queue, body.encode(), pika.BasicProperties(priority=priority))

    for number in range(3):
        publish(f"report {number}", 0)
    publish("invoice", 2)
    publish("password reset", 3)
    # Above the queue's highest level is its highest level.
    publish("alarm", 200)

    channel.basic_qos(prefetch_count=1)
    order = []
    for method, _, body in channel.consume(queue, inactivity_timeout=10):
        assert method, f"nothing came after {order}"
        order.append(body.decode())
        if order == ["password reset"]:
            # What comes later is not ahead of what is on its way, but of everything that waits.
            publish("invoice, too", 2)
        channel.basic_ack(method.delivery_tag)
        if len(order) == 7:
            break
    expected = ["password reset", "alarm", "invoice", "invoice, too", "report 0", "report 1", "report 2"]
    assert order == expected, order
    connection.close()


main()
