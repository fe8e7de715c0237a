//! The client in twenty lines: a message goes to an exchange, waits in a queue on disk, and is acknowledged.
//!
//! ```sh
//! cargo run -p leveret-broker                # in one terminal: the broker, for this machine only
//! cargo run -p leveret-examples --example hello -- leveret://127.0.0.1
//! ```
//!
//! Without a URL it starts a broker of its own, for the length of the program. What to look at: `publish` comes back
//! when the message is on disk, and `ack` takes the delivery with it, so that nothing can be settled twice.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use leveret_broker::Broker;
// README: from here
use leveret_client::{Binding, Client, Exchange, Queue};

async fn hello(url: &str) -> anyhow::Result<()> {
    let client = Client::connect(url).await?;

    client.declare(Exchange::topic("greetings").durable()).await?;
    client.declare(Queue::durable("hellos").length_max(1_000)).await?;
    client.bind(Binding::queue("hellos").to("greetings").key("hello.*")).await?;

    let greetings = client.publisher("greetings").open().await?;
    let confirmed = greetings.publish("hello.world", "Hello, world!").await?; // It is on disk now.
    println!("on disk in {} queue", confirmed.queues);

    let mut hellos = client.consumer("hellos").prefetch_max(10).open().await?;
    if let Some(delivery) = hellos.try_next().await? {
        println!("{}: {}", delivery.routing_key(), String::from_utf8_lossy(delivery.body()));
        delivery.ack(); // Dropped without it, the message would go back to its queue.
    }
    client.close().await?;
    Ok(())
}
// README: to here

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(url) = std::env::args().nth(1) {
        return hello(&url).await;
    }
    let broker = Broker::builder().temporary().start().await?;
    hello(&broker.url()).await?;
    broker.stop().await?;
    Ok(())
}
