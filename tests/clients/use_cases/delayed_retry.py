"""Work that fails is tried again after a while: it waits in a queue whose messages expire into the queue of the work.
After three attempts it is given up. Usage: delayed_retry.py URL"""

import sys
import time

import pika

URL = sys.argv[1]
WORK, RETRY = "use-case.work", "use-case.retry"
DELAY_MS = 100
ATTEMPTS_MAX = 3


def attempts(properties):
    """How often it was tried before, as its history tells."""
    deaths = (properties.headers or {}).get("x-death", [])
    return sum(death["count"] for death in deaths if death["queue"] == WORK and death["reason"] == "rejected")


def main():
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    channel.exchange_declare(WORK, "direct", auto_delete=True)
    channel.exchange_declare(RETRY, "direct", auto_delete=True)
    channel.queue_declare(WORK, exclusive=True, arguments={"x-dead-letter-exchange": RETRY})
    delay = {"x-dead-letter-exchange": WORK, "x-message-ttl": DELAY_MS}
    channel.queue_declare(RETRY, exclusive=True, arguments=delay)
    for key in ("flaky", "hopeless"):
        channel.queue_bind(WORK, WORK, key)
        channel.queue_bind(RETRY, RETRY, key)
    channel.confirm_delivery()
    for key in ("flaky", "hopeless"):
        channel.basic_publish(WORK, key, b"job", mandatory=True)

    began, log = time.monotonic(), []
    for method, properties, _ in channel.consume(WORK, inactivity_timeout=10):
        assert method, f"nothing came after {log}"
        key, before = method.routing_key, attempts(properties)
        waited = (time.monotonic() - began) * 1000
        assert waited >= before * DELAY_MS, f"attempt {before + 1} of {key} came after {waited} ms"
        if key == "flaky" and before == 1:
            log.append("flaky done")
            channel.basic_ack(method.delivery_tag)
        elif before + 1 == ATTEMPTS_MAX:
            log.append(f"{key} given up")
            channel.basic_ack(method.delivery_tag)
        else:
            log.append(f"{key} failed")
            channel.basic_reject(method.delivery_tag, requeue=False)
        if len(log) == 5:
            break
    expected = ["flaky failed", "hopeless failed", "flaky done", "hopeless failed", "hopeless given up"]
    assert log == expected, log
    connection.close()


main()
