//! One event, four readers, four guarantees: what a queue promises is the reader's choice and not the publisher's.
//!
//! ```text
//!                              ┌─► payment    durable, at most two more attempts, then orders.failed
//!  order placed ─► exchange ───┼─► inventory  durable, one reader at a time, so in order
//!                  orders      ├─► email      durable, at most three letters, none older than a second
//!                              └─► analytics  in memory, not acknowledged
//! ```
//!
//! ```sh
//! cargo run -p leveret-examples --example order_events
//! ```
//!
//! What to look at:
//!
//! - An order is confirmed when every durable queue has it on disk. Then the broker restarts: payment and inventory
//!   lose nothing, and analytics, which never asked for that, is gone.
//! - The e-mail service hangs while orders come in. Its queue stays at three letters: the oldest give way, and those
//!   that wait for too long expire. Late mail about old orders would be worse than none.
//! - One order can never be paid. It is tried three times and then put aside, and the others are not held up.
//! - The first reader of inventory leaves in the middle. The second one, which had waited as a spare, goes on with the
//!   very next order.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use leveret_broker::Broker;
use leveret_client::{Binding, Client, Consumer, Delivery, Exchange, Message, Queue};
use serde::{Deserialize, Serialize};

const ORDERS: &str = "orders";
const PAYMENT: &str = "payment";
const INVENTORY: &str = "inventory";
const EMAIL: &str = "email";
const ANALYTICS: &str = "analytics";
const FAILED: &str = "orders.failed";
const MISSED: &str = "email.missed";

const ORDER_COUNT: u32 = 8;
/// The order whose card is refused every time.
const UNPAYABLE: u32 = 5;
/// How many letters may wait, and for how long.
const LETTERS_MAX: u64 = 3;
const LETTER_AGE_MAX: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct Order {
    number: u32,
    cents: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let broker = start(data.path()).await?;
    let client = Client::connect(&broker.url()).await?;
    declare(&client).await?;
    let mut analytics = client.consumer(ANALYTICS).without_acks().open().await?;
    let mut emails = client.consumer(EMAIL).prefetch_max(1).open().await?;

    place_orders(&client).await?;
    count_orders(&mut analytics).await?;
    miss_letters(&client, &mut emails).await?;
    drop((analytics, emails));
    client.close().await?;
    broker.stop().await?;

    println!("\n-- the broker restarts --\n");
    let broker = start(data.path()).await?;
    let client = Client::connect(&broker.url()).await?;
    print_what_is_left(&client).await?;
    collect_payments(&client).await?;
    update_inventory(&client).await?;
    client.close().await?;
    Ok(broker.stop().await?)
}

async fn start(data: &Path) -> anyhow::Result<Broker> {
    let builder = Broker::builder().data_dir(data).listen([([127, 0, 0, 1], 0).into()]).listen_amqp([]);
    Ok(builder.start().await?)
}

/// Everything that the readers want, in one place. In earnest each of them declares its own queue.
async fn declare(client: &Client) -> anyhow::Result<()> {
    for exchange in [ORDERS, FAILED, MISSED] {
        client.declare(Exchange::fanout(exchange).durable()).await?;
    }
    for queue in [FAILED, MISSED] {
        client.declare(Queue::durable(queue)).await?;
        client.bind(Binding::queue(queue).to(queue)).await?;
    }
    let email = Queue::durable(EMAIL).length_max(LETTERS_MAX).message_ttl(LETTER_AGE_MAX);
    client.declare(Queue::durable(PAYMENT).delivery_limit(2).dead_letter_to(FAILED)).await?;
    client.declare(Queue::durable(INVENTORY).single_active()).await?;
    client.declare(email.dead_letter_to(MISSED)).await?;
    client.declare(Queue::transient(ANALYTICS)).await?;
    for queue in [PAYMENT, INVENTORY, EMAIL, ANALYTICS] {
        client.bind(Binding::queue(queue).to(ORDERS)).await?;
    }
    Ok(())
}

/// Sends them one after the other without waiting, so that one sync of the disk confirms them all.
async fn place_orders(client: &Client) -> anyhow::Result<()> {
    let orders = client.publisher(ORDERS).open().await?;
    let mut receipts = Vec::new();
    for number in 1..=ORDER_COUNT {
        let order = Order { number, cents: u64::from(number) * 1_000 };
        receipts.push((number, orders.send("order.placed", Message::json(&order)?).await?));
    }
    for (number, receipt) in receipts {
        let queues = receipt.confirmed().await?.queues;
        println!("order {number} is placed: {queues} queues have it, on disk where they are durable");
    }
    Ok(())
}

async fn count_orders(analytics: &mut Consumer) -> anyhow::Result<()> {
    let mut cents = 0;
    for _ in 1..=ORDER_COUNT {
        cents += order_of(&next(analytics).await?)?.cents;
    }
    println!("\nanalytics  saw {ORDER_COUNT} orders of {cents} cents, and acknowledged none");
    Ok(())
}

/// The e-mail service takes the first order and hangs. What becomes of the others is told by their deaths.
async fn miss_letters(client: &Client, emails: &mut Consumer) -> anyhow::Result<()> {
    let hanging = next(emails).await?;
    let mut missed = client.consumer(MISSED).open().await?;
    let mut by_reason: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for _ in 2..=ORDER_COUNT {
        let letter = next(&mut missed).await?;
        let history = letter.deaths()?.context("a dead letter has a history")?;
        let death = history.deaths.first().context("a history has a death")?;
        by_reason.entry(death.reason.as_str()).or_default().push(order_of(&letter)?.number);
        letter.ack();
    }
    println!(
        "email      hangs with order {} in its hands; meanwhile in its queue:",
        order_of(&hanging)?.number
    );
    for (reason, orders) in by_reason {
        println!("             {reason}: orders {orders:?}");
    }
    hanging.ack();
    Ok(())
}

async fn print_what_is_left(client: &Client) -> anyhow::Result<()> {
    for queue in [PAYMENT, INVENTORY, EMAIL, ANALYTICS] {
        match client.check_queue(queue).await {
            Ok(there) => println!("{queue:<10} has {} orders", there.messages()),
            Err(refused) => println!("{queue:<10} is gone: {refused}"),
        }
    }
    println!();
    Ok(())
}

async fn collect_payments(client: &Client) -> anyhow::Result<()> {
    let mut payments = client.consumer(PAYMENT).prefetch_max(1).open().await?;
    let mut paid = 0;
    let mut attempts = 0;
    while paid < ORDER_COUNT - 1 {
        let delivery = next(&mut payments).await?;
        let order = order_of(&delivery)?;
        if order.number == UNPAYABLE {
            attempts += 1;
            println!("payment    of order {} fails, attempt {attempts}", order.number);
            delivery.requeue();
        } else {
            paid += 1;
            // Charged twice would be bad: it waits until the acknowledgement is on disk, too.
            delivery.ack_durably().await?;
        }
    }
    let mut failed = client.consumer(FAILED).open().await?;
    let letter = next(&mut failed).await?;
    let history = letter.deaths()?.context("a dead letter has a history")?;
    let death = history.deaths.first().context("a history has a death")?;
    let (number, reason) = (order_of(&letter)?.number, death.reason.as_str());
    println!("payment    has collected {paid} orders; order {number} is put aside: {reason}");
    letter.ack();
    Ok(())
}

async fn update_inventory(client: &Client) -> anyhow::Result<()> {
    let mut active = client.consumer(INVENTORY).prefetch_max(1).open().await?;
    let mut spare = client.consumer(INVENTORY).prefetch_max(1).open().await?;
    let mut first = take(&mut active, ORDER_COUNT / 2 - 1).await?;
    // It leaves while it works on its last order. So nothing is on its way to it that would have to come back.
    let last = next(&mut active).await?;
    first.push(order_of(&last)?.number);
    drop(active);
    last.ack();
    let second = take(&mut spare, ORDER_COUNT - ORDER_COUNT / 2).await?;
    println!("inventory  the first reader takes {first:?} and leaves, the spare goes on with {second:?}");
    Ok(())
}

async fn take(consumer: &mut Consumer, count: u32) -> anyhow::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let delivery = next(consumer).await?;
        numbers.push(order_of(&delivery)?.number);
        delivery.ack();
    }
    Ok(numbers)
}

async fn next(consumer: &mut Consumer) -> anyhow::Result<Delivery> {
    consumer.try_next().await?.context("the consumer ended")
}

fn order_of(delivery: &Delivery) -> anyhow::Result<Order> {
    Ok(delivery.json()?)
}
