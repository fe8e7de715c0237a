"""Questions and answers through direct reply-to: no queue for the answers is declared. Usage: rpc.py URL"""

import sys
import threading
import uuid

import pika

URL = sys.argv[1]
QUESTIONS = "use-case.squares"
REPLY_TO = "amq.rabbitmq.reply-to"


def connect():
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    return connection, connection.channel()


def serve(ready, stop):
    connection, channel = connect()
    channel.queue_declare(QUESTIONS, auto_delete=True)

    def on_question(channel, method, properties, body):
        answer = str(int(body) ** 2).encode()
        same_id = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, answer, same_id)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(QUESTIONS, on_question)
    ready.set()
    while not stop.is_set():
        connection.process_data_events(0.1)
    connection.close()


class Squares:
    """Asks the server, and waits for its answers."""

    def __init__(self):
        self.connection, self.channel = connect()
        self.answers = {}
        self.channel.basic_consume(REPLY_TO, self.on_answer, auto_ack=True)

    def on_answer(self, _channel, _method, properties, body):
        self.answers[properties.correlation_id] = int(body)

    def ask(self, number):
        question = str(uuid.uuid4())
        properties = pika.BasicProperties(reply_to=REPLY_TO, correlation_id=question)
        self.channel.basic_publish("", QUESTIONS, str(number).encode(), properties)
        return question

    def answer(self, question):
        for _ in range(100):
            if question in self.answers:
                return self.answers.pop(question)
            self.connection.process_data_events(0.1)
        raise AssertionError("no answer came within 10 s")


def main():
    ready, stop = threading.Event(), threading.Event()
    server = threading.Thread(target=serve, args=(ready, stop))
    server.start()
    assert ready.wait(10), "the server does not start"
    clients = [Squares(), Squares()]
    asked = [(client, client.ask(number), number) for number in range(10) for client in clients]
    for client, question, number in asked:
        assert client.answer(question) == number**2
    for client in clients:
        client.connection.close()
    stop.set()
    server.join()


main()
