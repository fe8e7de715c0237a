//! What the workloads have in common.

use std::collections::VecDeque;

use bytes::Bytes;
use leveret_client::{Client, Message};

/// Publishes persistent messages to a queue, with at most `window` of them unconfirmed, and waits for all confirms.
pub(crate) async fn confirmed(
    client: &Client,
    queue: &str,
    messages: u64,
    size: usize,
    window: usize,
) -> anyhow::Result<()> {
    let publisher = client.publisher("").in_flight_max(window).open().await?;
    let mut receipts = VecDeque::with_capacity(window);
    for number in 0..messages {
        if receipts.len() >= window
            && let Some(receipt) = receipts.pop_front()
        {
            wait(receipt).await?;
        }
        receipts.push_back(publisher.send(queue, Message::new(body(number, size))).await?);
    }
    for receipt in receipts {
        wait(receipt).await?;
    }
    Ok(())
}

/// A body of `size` bytes, which begins with its number.
pub(crate) fn body(number: u64, size: usize) -> Bytes {
    let mut body = vec![b'x'; size];
    if let Some(start) = body.first_chunk_mut() {
        *start = number.to_le_bytes();
    }
    body.into()
}

async fn wait(receipt: leveret_client::Receipt) -> anyhow::Result<()> {
    receipt.confirmed().await?;
    Ok(())
}
