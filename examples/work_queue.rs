//! Work that is shared among workers: every job is done, by one of them, even if a worker dies.
//!
//! ```text
//!                                     ┌─► swift
//!  jobs ──► queue work.jobs (durable) ┼─► steady          rejected, or failed three times
//!                  │                  └─► slow                          │
//!                  └────────────────────────────────► exchange work.dead ──► queue work.failed
//! ```
//!
//! ```sh
//! cargo run -p leveret-examples --example work_queue
//! ```
//!
//! What to look at:
//!
//! - A worker takes the first job and dies with it. The broker notices the lost connection, and somebody else gets the
//!   job, marked as redelivered.
//! - Each worker has a prefetch of 1: it holds the job that it works on and no other. So the swift one does most of
//!   them, and none waits behind the slow one. (A larger prefetch is faster for jobs that take no time.)
//! - Job 7 fails every time. A delivery limit of 2 lets it come back twice, then it is a dead letter; without a limit
//!   it would go round for ever and keep a worker busy.
//! - Job 10 is not a job at all: its worker rejects it and says why. Both end in a queue of their own with the history
//!   of their deaths, where somebody can look at them.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use leveret_broker::Broker;
use leveret_client::{Binding, Client, Delivery, Exchange, Message, Queue};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const JOBS: &str = "work.jobs";
const DEAD: &str = "work.dead";
const FAILED: &str = "work.failed";
const JOB_COUNT: u32 = 24;
const POISON: u32 = 7;
const GARBLED: u32 = 10;
/// Name, and how long a job takes.
const WORKERS: [(&str, Duration); 3] = [
    ("swift", Duration::from_millis(5)),
    ("steady", Duration::from_millis(15)),
    ("slow", Duration::from_millis(40)),
];

#[derive(Serialize, Deserialize)]
struct Job {
    number: u32,
    picture: String,
}

/// A job that a worker has done.
struct Done {
    worker: &'static str,
    job: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(url) = std::env::args().nth(1) {
        return take_a_job_and_die(&url).await;
    }
    let broker = Broker::builder().temporary().start().await?;
    let client = Client::connect(&broker.url()).await?;
    declare(&client).await?;
    publish_jobs(&client).await?;
    run_a_worker_that_dies(&broker.url())?;

    let (done, results) = mpsc::channel(16);
    let mut workers = JoinSet::new();
    for (name, pace) in WORKERS {
        workers.spawn(work(broker.url(), name, pace, done.clone()));
    }
    let done_by_worker = tokio::select! {
        counted = count(results) => counted?,
        // Workers go on until the program ends; one that ends before has an error to tell.
        Some(ended) = workers.join_next() => {
            ended??;
            bail!("a worker ended early")
        }
    };
    print_dead_letters(&client).await?;

    println!("\nworker     jobs done");
    for (worker, _) in WORKERS {
        println!("{worker:<10} {:>9}", done_by_worker.get(worker).copied().unwrap_or_default());
    }
    workers.shutdown().await;
    client.close().await?;
    Ok(broker.stop().await?)
}

async fn declare(client: &Client) -> anyhow::Result<()> {
    client.declare(Exchange::fanout(DEAD).durable()).await?;
    client.declare(Queue::durable(FAILED)).await?;
    client.bind(Binding::queue(FAILED).to(DEAD)).await?;
    client.declare(Queue::durable(JOBS).dead_letter_to(DEAD).delivery_limit(2)).await?;
    Ok(())
}

/// Jobs go straight to their queue: the default exchange routes by the names of queues.
async fn publish_jobs(client: &Client) -> anyhow::Result<()> {
    let direct = client.publisher("").open().await?;
    for number in 1..=JOB_COUNT {
        let message = match number {
            GARBLED => Message::new("{ this is no job"),
            _ => Message::json(&Job { number, picture: format!("IMG_{number:04}.jpg") })?,
        };
        direct.publish(JOBS, message).await?;
    }
    println!("{JOB_COUNT} jobs are on disk");
    Ok(())
}

/// In a process of its own, because nothing else dies like a process.
fn run_a_worker_that_dies(url: &str) -> anyhow::Result<()> {
    let status = Command::new(std::env::current_exe()?).arg(url).status()?;
    ensure!(
        status.code() == Some(1),
        "the worker was to die with a job in its hands, and ended with {status}"
    );
    Ok(())
}

async fn take_a_job_and_die(url: &str) -> anyhow::Result<()> {
    let client = Client::connect(url).await?;
    let mut jobs = client.consumer(JOBS).prefetch_max(1).open().await?;
    let delivery = jobs.try_next().await?.context("there is no job to die with")?;
    println!("unlucky    takes job {} and dies", delivery.json::<Job>()?.number);
    // Nothing is dropped, settled or said to the broker: the operating system closes the socket.
    std::process::exit(1)
}

async fn work(
    url: String,
    name: &'static str,
    pace: Duration,
    done: mpsc::Sender<Done>,
) -> anyhow::Result<()> {
    let client = Client::builder(&url).name(name).connect().await?;
    let mut jobs = client.consumer(JOBS).prefetch_max(1).open().await?;
    while let Some(delivery) = jobs.try_next().await? {
        let job = match delivery.json::<Job>() {
            Ok(job) => job.number,
            Err(error) => {
                // It will never be a job, so there is no use in another attempt.
                println!("{name:<10} rejects a message: it is not a job");
                delivery.reject(error.to_string());
                continue;
            }
        };
        tokio::time::sleep(pace).await; // the work
        if job == POISON {
            println!("{name:<10} fails at job {job}, attempt {}", delivery.failures() + 1);
            delivery.requeue();
            continue;
        }
        if delivery.is_redelivered() {
            println!("{name:<10} does job {job}, which came back from another worker");
        }
        delivery.ack();
        done.send(Done { worker: name, job }).await?;
    }
    Ok(())
}

/// Counts until every job that can be done is done.
async fn count(mut results: mpsc::Receiver<Done>) -> anyhow::Result<BTreeMap<&'static str, u32>> {
    let mut by_worker = BTreeMap::new();
    let mut jobs: Vec<u32> = Vec::new();
    while jobs.len() < JOB_COUNT as usize - 2 {
        let done = results.recv().await.context("all workers are gone")?;
        jobs.push(done.job);
        *by_worker.entry(done.worker).or_default() += 1;
    }
    jobs.sort_unstable();
    jobs.dedup();
    println!("{} different jobs are done", jobs.len());
    Ok(by_worker)
}

/// Waits until both are there: the attempts of the poisonous job take their time.
async fn print_dead_letters(client: &Client) -> anyhow::Result<()> {
    let mut failed = client.consumer(FAILED).open().await?;
    let mut letters = Vec::new();
    for _ in [POISON, GARBLED] {
        letters.push(failed.try_next().await?.context("the consumer ended")?);
    }
    println!("\nin {FAILED}:");
    for letter in letters {
        print_history(&letter)?;
        letter.ack();
    }
    Ok(())
}

fn print_history(letter: &Delivery) -> anyhow::Result<()> {
    println!("  {}", String::from_utf8_lossy(letter.body()));
    for death in letter.deaths()?.context("a dead letter has a history")?.deaths {
        let (reason, queue, count) = (death.reason.as_str(), death.queue, death.count);
        println!(
            "    died in {queue}: {reason}, {count} time; {}",
            death.note.as_deref().unwrap_or("no note")
        );
    }
    Ok(())
}
