//! Questions and answers over queues: many at a time, answered in any order, and none waited for in vain.
//!
//! ```text
//!   shop ── request: correlation id, reply_to ──► queue prices ──► price service
//!    ▲                                                                 │
//!    └────────── queue of this client alone ◄── reply, same id ────────┘
//! ```
//!
//! ```sh
//! cargo run -p leveret-examples --example request_reply
//! ```
//!
//! What to look at:
//!
//! - The service takes three requests and answers the last one first; every caller gets its own answer all the same,
//!   by the correlation id. `Client::request` keeps the queue and the ids.
//! - A request that nobody answers ends with a timeout. It may have been carried out: the caller cannot know.
//! - A request that no queue takes fails at once. Nobody waits for what cannot come.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use anyhow::Context;
use leveret_broker::Broker;
use leveret_client::{Client, Delivery, Message, Queue};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

const PRICES: &str = "prices";
const UNKNOWN: &str = "unicorn";
/// How long an answer may take that does come.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct Question {
    product: String,
}

#[derive(Serialize, Deserialize)]
struct Price {
    product: String,
    cents: u64,
}

// One thread, so that lines are printed in the order in which things happen.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let broker = Broker::builder().temporary().start().await?;
    let service = Client::builder(&broker.url()).name("price service").connect().await?;
    // Who asks will not ask again after a restart, so neither the queue nor the requests need the disk.
    service.declare(Queue::transient(PRICES)).await?;
    let serving = tokio::spawn(serve(service.clone()));

    let shop = Client::builder(&broker.url()).name("shop").connect().await?;
    ask_three_at_a_time(&shop).await?;
    ask_what_nobody_answers(&shop).await?;
    ask_where_nobody_listens(&shop).await?;

    shop.close().await?;
    service.close().await?;
    serving.await??;
    Ok(broker.stop().await?)
}

async fn ask_three_at_a_time(shop: &Client) -> anyhow::Result<()> {
    let mut replies = JoinSet::new();
    for product in ["desk", "stool", "lamp"] {
        let (shop, question) = (shop.clone(), question(product)?);
        replies.spawn(async move { (product, shop.request("", PRICES, question, PATIENCE).await) });
    }
    while let Some(reply) = replies.join_next().await {
        let (product, reply) = reply?;
        let price: Price = reply?.json()?;
        println!("shop      asked for {product}, got {}: {} cents", price.product, price.cents);
    }
    Ok(())
}

async fn ask_what_nobody_answers(shop: &Client) -> anyhow::Result<()> {
    let patience = Duration::from_millis(200);
    let reply = shop.request("", PRICES, question(UNKNOWN)?, patience).await;
    let error = reply.err().context("there is an answer that nobody gave")?;
    println!("shop      asked for {UNKNOWN}: {error}, worth another try: {}", error.is_retryable());
    Ok(())
}

async fn ask_where_nobody_listens(shop: &Client) -> anyhow::Result<()> {
    let reply = shop.request("", "pricez", question("desk")?, PATIENCE).await;
    let error = reply.err().context("there is an answer that nobody gave")?;
    println!("shop      asked the queue pricez: {error}");
    Ok(())
}

fn question(product: &str) -> anyhow::Result<Message> {
    Ok(Message::json(&Question { product: product.to_owned() })?)
}

/// Answers three requests at a time, from the last to the first, as a service may that works on many at once.
async fn serve(service: Client) -> anyhow::Result<()> {
    let mut requests = service.consumer(PRICES).prefetch_max(3).open().await?;
    let mut taken = Vec::new();
    while let Some(request) = requests.try_next().await? {
        let question: Question = request.json()?;
        println!("service   takes the question for {}", question.product);
        if question.product == UNKNOWN {
            // Taken and never answered: a service with a defect.
            request.ack();
            continue;
        }
        taken.push((request, question.product));
        if taken.len() == 3 {
            while let Some((request, product)) = taken.pop() {
                answer(request, product).await?;
            }
        }
    }
    Ok(())
}

async fn answer(request: Delivery, product: String) -> anyhow::Result<()> {
    println!("service   answers for {product}");
    let cents = product.len() as u64 * 1_000;
    request.reply(Message::json(&Price { product, cents })?).await?;
    // Only now: had the service died before, the question would go to another one.
    request.ack();
    Ok(())
}
