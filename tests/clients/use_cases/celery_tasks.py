"""Tasks of celery: results, retries and errors. Usage: celery_tasks.py URL. It starts a worker for them by itself."""

import subprocess
import sys
from pathlib import Path

from celery import Celery, group
from celery.exceptions import MaxRetriesExceededError

PATIENCE = 30

app = Celery("celery_tasks", backend="rpc://")
app.conf.update(task_default_queue="use-case.celery", task_acks_late=True, worker_prefetch_multiplier=1)


@app.task
def add(left, right):
    return left + right


@app.task(bind=True, max_retries=5)
def third_time_lucky(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(bind=True, max_retries=1)
def hopeless(self):
    raise self.retry(countdown=0)


@app.task
def fail():
    raise ValueError("as it should")


def check():
    assert add.delay(2, 3).get(timeout=PATIENCE) == 5
    assert group(add.s(number, number) for number in range(10)).delay().get(timeout=PATIENCE) == list(range(0, 20, 2))
    assert (add.s(1, 2) | add.s(3)).delay().get(timeout=PATIENCE) == 6
    # Soon, but not yet: the worker keeps it unacknowledged until its time.
    assert add.apply_async((1, 1), countdown=0.3).get(timeout=PATIENCE) == 2
    assert third_time_lucky.delay().get(timeout=PATIENCE) == 2
    for task, error in ((fail, ValueError), (hopeless, MaxRetriesExceededError)):
        try:
            task.delay().get(timeout=PATIENCE)
            raise AssertionError(f"{task.name} did not fail")
        except error:
            pass
    assert app.control.ping(timeout=5, limit=1), "the worker does not answer the remote control"
    assert app.control.purge() == 0


def main(url):
    app.conf.broker_url = url
    command = [sys.executable, "-m", "celery", "--app", "celery_tasks", "--broker", url, "worker"]
    command += ["--concurrency", "2", "--loglevel", "warning"]
    worker = subprocess.Popen(command, cwd=Path(__file__).parent)
    try:
        check()
    finally:
        worker.terminate()
        code = worker.wait(PATIENCE)
    assert code == 0, f"the worker ended with {code}"


if __name__ == "__main__":
    main(sys.argv[1])
