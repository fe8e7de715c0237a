//! Flags and environment variables, and how they lie over the file: flag, then variable, then file, then default.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::Config;
use super::error::{ConfigError, Place};
use super::file::File;
use super::settings::{SETTINGS, Setting};
use super::value::{Data, Value, Wrong};

const CONFIG_VARIABLE: &str = "LEVERET_CONFIG";

const ABOUT: &str = "A message broker: exchanges, durable queues, acknowledgements, dead letters.";

const BEFORE: &str = "\
Without a file and without flags it serves this machine only: the native protocol on 127.0.0.1:7672 and AMQP 0-9-1 on
127.0.0.1:5672, user guest with the password guest, data in ./leveret-data. It logs to standard error. SIGTERM or Ctrl-C stop it: it lets go of its
clients, leaves nothing confirmed unwritten, and ends; a second one ends it at once.";

const AFTER: &str = "\
Every setting can be written in three ways:
  in the file        [limits]
                     channels_max = 64
  as a variable      LEVERET_LIMITS_CHANNELS_MAX=64
  as a flag          --limits-channels-max 64
A flag wins over a variable, a variable over the file, the file over the default. A list is replaced as a whole.
Sizes have a unit, as in \"64 MiB\", and so have times, as in \"30 s\".

Examples:
  leveret                                      for this machine only, data in ./leveret-data
  leveret --data-dir /var/lib/leveret          data elsewhere
  leveret --config leveret.toml                with a file; leveret.example.toml shows all of it
  leveret --config leveret.toml --log debug    the same, and tell me more
  leveret --listen-amqp none                   without AMQP: its port may be RabbitMQ's
  LEVERET_USERS='orders:s3cret' leveret --guest false --listen 0.0.0.0:7672
                                               for other machines too: that takes a user of your own

Commands on a data directory on which no broker runs; --help after each says more:
  leveret inspect /var/lib/leveret             what is in it, and whether something is damaged; changes nothing
  leveret salvage /var/lib/leveret             give up what is damaged, and say what that was";

/// What was said on the command line and in the environment.
#[derive(Debug)]
pub struct Arguments {
    file: Option<PathBuf>,
    /// By the setting's name, in the order of the table.
    flags: HashMap<&'static str, Texts>,
    variables: HashMap<&'static str, Texts>,
}

/// What a flag or a variable says. Shows nothing of it, because it may be a password.
struct Texts(Vec<String>);

impl std::fmt::Debug for Texts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// Why the command line or the environment could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentsError {
    /// A request for help or for the version, or a command line that is wrong. It knows what to print, where,
    /// and the exit code.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// A variable that is not text.
    #[error("environment variable {0} is not UTF-8")]
    NotUtf8(String),
}

impl Arguments {
    /// Takes the command line, with the program's name in front, and a way to look a variable up.
    pub fn parse<A: Into<OsString> + Clone>(
        command_line: impl IntoIterator<Item = A>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ArgumentsError> {
        let mut matches = command().try_get_matches_from(command_line)?;
        let look_up = |name: String| match variable(&name).map(OsString::into_string) {
            // An empty variable is how a container's definition says "not set".
            Some(Ok(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(Err(_)) => Err(ArgumentsError::NotUtf8(name)),
            None => Ok(None),
        };
        let mut variables = HashMap::new();
        for setting in SETTINGS {
            if let Some(text) = look_up(setting.variable())? {
                variables.insert(setting.key, Texts(vec![text]));
            }
        }
        let file = match matches.remove_one::<PathBuf>("config") {
            Some(path) => Some(path),
            None => look_up(CONFIG_VARIABLE.to_owned())?.map(PathBuf::from),
        };
        let flags =
            SETTINGS.iter().filter_map(|setting| Some((setting.key, flag(&mut matches, setting)?))).collect();
        Ok(Self { file, flags, variables })
    }

    /// Reads the file, if one was named, lays variables and flags over it, and checks the whole.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        let mut places = HashMap::new();
        if let Some(path) = &self.file {
            let file = File::read(path)?;
            for entry in file.entries()? {
                let setting = entry.setting;
                places.insert(setting.key, file.place(entry.at));
                (setting.set)(&mut config, entry.value).map_err(|wrong| file.error(setting, wrong))?;
            }
        }
        for setting in SETTINGS {
            let variable =
                self.variables.get(setting.key).map(|texts| (texts, Place::Variable(setting.variable())));
            let flag = self
                .flags
                .get(setting.key)
                .map(|texts| (texts, Place::Flag(format!("--{}", setting.flag()))));
            for (texts, place) in [variable, flag].into_iter().flatten() {
                (setting.set)(&mut config, value(setting, texts)).map_err(|Wrong { reason, .. }| {
                    ConfigError::Value { place: place.clone(), key: setting.key, reason }
                })?;
                places.insert(setting.key, place);
            }
        }
        config.check().map_err(|conflict| {
            let place =
                [Some(conflict.key), conflict.other].into_iter().flatten().find_map(|key| places.remove(key));
            ConfigError::Conflict { place: place.unwrap_or(Place::Default), conflict }
        })?;
        Ok(config)
    }
}

/// The command line that is understood.
fn command() -> Command {
    let defaults = Config::default();
    let config = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(format!("The file to read. There is none by default [env: {CONFIG_VARIABLE}]"));
    Command::new("leveret")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .long_about(format!("{ABOUT}\n\n{BEFORE}"))
        .after_long_help(AFTER)
        .next_line_help(true)
        .arg(config)
        .args(SETTINGS.iter().map(|setting| arg(setting, &defaults)))
}

fn arg(setting: &Setting, defaults: &Config) -> Arg {
    let heading = match setting.table() {
        "" => "Settings",
        "limits" => "Limits",
        "memory" => "Memory",
        "disk" => "Disk",
        _ => "Journal",
    };
    Arg::new(setting.key)
        .long(setting.flag())
        .value_name(setting.value_name)
        .help_heading(heading)
        .help(help(setting, defaults))
        .action(if setting.separator.is_some() { ArgAction::Append } else { ArgAction::Set })
        // A number may be negative by mistake, and then deserves an answer about numbers, not about flags.
        .allow_negative_numbers(true)
}

fn help(setting: &Setting, defaults: &Config) -> StyledStr {
    let default = (setting.show)(defaults);
    let default = if default.is_empty() { "none" } else { &default };
    format!("{}\n[default: {default}] [env: {}]", setting.help, setting.variable()).into()
}

fn flag(matches: &mut ArgMatches, setting: &Setting) -> Option<Texts> {
    matches.remove_many::<String>(setting.key).map(|texts| Texts(texts.collect()))
}

fn value(setting: &Setting, Texts(texts): &Texts) -> Value {
    let text = |text: &str| Value { at: 0, data: Data::Text(text.to_owned()) };
    let Some(separator) = setting.separator else {
        return text(texts.last().map_or("", String::as_str));
    };
    let pieces = |texts: &'_ String| -> Vec<Value> {
        match separator {
            // Any number of them, and line breaks too: a variable with several users is written as a block.
            ' ' => texts.split_whitespace().map(text).collect(),
            _ => texts.split(separator).map(|piece| text(piece.trim())).collect(),
        }
    };
    let list = texts.iter().flat_map(pieces).collect();
    Value { at: 0, data: Data::List(list) }
}
