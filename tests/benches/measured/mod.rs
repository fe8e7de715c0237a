//! A broker in a process of its own, whose figures are the system's.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::Stdio;

use leveret_broker::Broker;
use leveret_broker::config::Config;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Makes the program the broker that is measured.
const AS_BROKER: &str = "--as-broker";

/// A broker in a process of its own.
pub(crate) struct Measured {
    process: Child,
    pub(crate) native: SocketAddr,
    pub(crate) amqp: SocketAddr,
}

/// Whether this process is the broker that another one measures; then it has served.
pub(crate) async fn served() -> bool {
    let asked = std::env::args().any(|argument| argument == AS_BROKER);
    if asked {
        let broker = Broker::builder().config(Config::default()).temporary().start().await.unwrap();
        let (native, amqp) = (broker.native_addresses(), broker.amqp_addresses());
        println!("{} {}", native.first().unwrap(), amqp.first().unwrap());
        // Until its input ends, which it does with whoever measures.
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        ended.await.unwrap().unwrap();
        broker.stop().await.unwrap();
    }
    asked
}

impl Measured {
    pub(crate) async fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg(AS_BROKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        let mut words = line.split_whitespace();
        let mut address = || words.next().unwrap().parse().unwrap();
        Self { process, native: address(), amqp: address() }
    }

    /// A file of `/proc` about its process.
    pub(crate) fn read_proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.process.id().unwrap())).unwrap()
    }
}
