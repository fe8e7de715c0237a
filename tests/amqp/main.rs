//! AMQP 0-9-1 frame by frame, with what RabbitMQ answers as the oracle. The broker is one of ours in this process, or
//! the one that `LEVERET_TEST_AMQP` names as host:port; `tests/rabbitmq/compare` runs all against both.

mod handshake;
mod channels;
mod exchanges;
mod queues;
mod consuming;
mod settling;
mod publishing;
mod content;
mod dead_letters;
mod limits;
mod extensions;
mod hostile;
