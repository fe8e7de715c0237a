//! The server `leveret`: arguments -> configuration -> logs -> broker -> a signal -> drained. Or one of the commands that
//! look at what a broker left.

use std::env;
use std::io::{self, Write};
use std::process::{self, ExitCode};

use leveret_broker::Broker;
use leveret_broker::config::{Arguments, ArgumentsError, Config};
use leveret_broker::inspect::{Command, CommandError};
use leveret_broker::logs::{self, LogTap};
use mimalloc::MiMalloc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::layer::SubscriberExt;

/// Messages are allocated on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What `clap` exits with too when the command line is wrong.
const EXIT_CONFIG: u8 = 2;

/// How many lines of the broker's own log may wait to be published to `amq.leveret.log`.
const LOG_EVENTS_MAX: usize = 1024;

fn main() -> ExitCode {
    // The kernel clears a huge page on the first touch, which takes milliseconds, and nobody is served meanwhile. Where it
    // cannot be told so the broker runs as well.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let command_line: Vec<_> = env::args_os().collect();
    match Command::parse(&command_line) {
        Ok(None) => {}
        Ok(Some(command)) => return carry_out(&command),
        Err(CommandError(answer)) => answer.exit(),
    }
    let config = match configure() {
        Ok(config) => config,
        Err(reason) => {
            // There is no log yet, and if standard error is closed, the exit code has to say it.
            let _ = writeln!(io::stderr(), "error: {reason}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            error!("leveret stops: {reason:#}");
            ExitCode::FAILURE
        }
    }
}

/// Commands that serve nobody print what they found.
fn carry_out(command: &Command) -> ExitCode {
    let printed = match command.run() {
        Ok(found) => {
            let code = if command.succeeded(&found) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            write!(io::stdout(), "{found}").map(|()| code)
        }
        Err(reason) => writeln!(io::stderr(), "error: {reason}").map(|()| ExitCode::FAILURE),
    };
    // Whoever closed the output does not want to know more, and a script must not take it for success.
    printed.unwrap_or(ExitCode::FAILURE)
}

fn configure() -> anyhow::Result<Config> {
    match Arguments::parse(env::args_os(), |name| env::var_os(name)) {
        Ok(arguments) => Ok(arguments.load()?),
        Err(ArgumentsError::CommandLine(answer)) => answer.exit(),
        Err(error) => Err(error.into()),
    }
}

#[tokio::main]
async fn serve(config: Config) -> anyhow::Result<()> {
    let (tap, log_events) = LogTap::new(LOG_EVENTS_MAX);
    tracing::subscriber::set_global_default(logs::to_standard_error(&config.log).with(tap))?;
    let mut signals = Signals::new()?;
    let data_dir = std::path::absolute(&config.data_dir)?;
    let broker = tokio::select! {
        started = Broker::builder().config(config).log_events(log_events).start() => started?,
        code = signals.next() => process::exit(code),
    };
    let (version, data_dir) = (env!("CARGO_PKG_VERSION"), data_dir.display());
    for address in broker.native_addresses() {
        info!("leveret {version} listens on leveret://{address} (native protocol), data in {data_dir}");
    }
    for address in broker.amqp_addresses() {
        info!("leveret {version} listens on amqp://{address} (AMQP 0-9-1), data in {data_dir}");
    }
    tokio::select! {
        _ = signals.next() => {}
        reason = broker.failed() => anyhow::bail!(reason),
    }
    info!("stopping; a second signal stops at once");
    tokio::select! {
        stopped = broker.stop() => stopped?,
        code = signals.next() => {
            warn!("stopped before every connection had ended");
            process::exit(code)
        }
    }
    info!("stopped");
    Ok(())
}

/// What asks the process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one; gives the exit code of a process that it ends, which is 128 and its number.
    async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        128 + kind.as_raw_value()
    }
}
