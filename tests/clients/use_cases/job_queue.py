"""Jobs for several workers, one at a time each; a job that fails goes to a queue of its own. Usage: job_queue.py URL"""

import sys
import threading

import pika

URL = sys.argv[1]
JOBS, FAILED = "use-case.jobs", "use-case.jobs.failed"


def connect():
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    return connection, connection.channel()


def declare(channel):
    channel.queue_declare(FAILED, durable=True)
    to_failed = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": FAILED}
    channel.queue_declare(JOBS, durable=True, arguments=to_failed)


def publish(channel, jobs):
    channel.confirm_delivery()
    for job in jobs:
        persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        channel.basic_publish("", JOBS, job.encode(), persistent, mandatory=True)


def work(done, stop):
    """Does jobs until there are no more."""
    connection, channel = connect()
    channel.basic_qos(prefetch_count=1)

    def on_job(channel, method, _, body):
        job = body.decode()
        if job.startswith("bad"):
            channel.basic_nack(method.delivery_tag, requeue=False)
        else:
            done.append((threading.current_thread().name, job))
            channel.basic_ack(method.delivery_tag)

    channel.basic_consume(JOBS, on_job)
    while not stop.is_set():
        connection.process_data_events(0.1)
    connection.close()


def main():
    connection, channel = connect()
    declare(channel)
    jobs = [f"good {number}" for number in range(20)] + ["bad 1", "bad 2"]
    publish(channel, jobs)

    done, stop = [], threading.Event()
    workers = [threading.Thread(target=work, args=(done, stop), name=f"worker {number}") for number in (1, 2)]
    for worker in workers:
        worker.start()
    failed = []
    for method, properties, body in channel.consume(FAILED, inactivity_timeout=10):
        assert method, "no failed job came"
        channel.basic_ack(method.delivery_tag)
        assert properties.headers["x-first-death-queue"] == JOBS
        failed.append(body.decode())
        if len(failed) == 2:
            break
    # A worker may still have the last good job in hand: the queue waits for both.
    while len(done) < 20 and all(worker.is_alive() for worker in workers):
        connection.process_data_events(0.01)
    stop.set()
    for worker in workers:
        worker.join()

    assert sorted(failed) == ["bad 1", "bad 2"], failed
    assert sorted(job for _, job in done) == sorted(jobs[:20]), done
    assert channel.queue_declare(JOBS, passive=True).method.message_count == 0
    for queue in (JOBS, FAILED):
        channel.queue_delete(queue)
    connection.close()


main()
