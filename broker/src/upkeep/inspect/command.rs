//! The commands of the server binary that serve nobody.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches};

use super::{InspectError, Inspection, inspect, salvage};

/// What to do with a data directory on which no broker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Say what is in it.
    Inspect {
        /// The data directory.
        data_dir: PathBuf,
        /// Whether the checkpoint's checksums are checked as well.
        verify: bool,
    },
    /// Give up what is damaged.
    Salvage {
        /// The data directory.
        data_dir: PathBuf,
    },
}

/// A command line that is wrong, or a request for help. It knows what to print, where, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CommandError(#[from] pub clap::Error);

impl Command {
    /// Takes a command line, with the program's name in front, if it is one of these commands.
    pub fn parse(command_line: &[OsString]) -> Result<Option<Self>, CommandError> {
        let known = |name: &OsString| name == "inspect" || name == "salvage";
        if !command_line.get(1).is_some_and(known) {
            return Ok(None);
        }
        let matches = definition().try_get_matches_from(command_line)?;
        Ok(matches.subcommand().map(|(name, matches)| Self::from_matches(name, matches)))
    }

    /// Carries it out.
    pub fn run(&self) -> Result<Inspection, InspectError> {
        match self {
            Self::Inspect { data_dir, verify } => inspect(data_dir, *verify),
            Self::Salvage { data_dir } => salvage(data_dir),
        }
    }

    /// Whether the data directory is as it should be when this has been carried out, with that outcome.
    pub fn succeeded(&self, outcome: &Inspection) -> bool {
        match self {
            Self::Inspect { .. } => !outcome.is_damaged(),
            // What was damaged in the journal has been given up.
            Self::Salvage { .. } => outcome.checkpoint_damage.is_none(),
        }
    }

    fn from_matches(name: &str, matches: &ArgMatches) -> Self {
        let data_dir = matches.get_one::<PathBuf>("data_dir").cloned().unwrap_or_default();
        match name {
            "salvage" => Self::Salvage { data_dir },
            _ => Self::Inspect { data_dir, verify: matches.get_flag("verify") },
        }
    }
}

fn definition() -> clap::Command {
    let data_dir = || {
        let parser = clap::value_parser!(PathBuf);
        Arg::new("data_dir").value_name("DATA_DIR").required(true).value_parser(parser)
    };
    let verify = Arg::new("verify").long("verify").action(ArgAction::SetTrue);
    let inspect = clap::Command::new("inspect")
        .about("Says what is in a data directory on which no broker runs, and changes nothing")
        .after_help("The exit code is 1 if something is damaged, or if it cannot be looked at.")
        .arg(data_dir().help("The data directory, or a copy of it"))
        .arg(verify.help("Check every page of definitions.redb, too; the journal is always checked whole"));
    let salvage = clap::Command::new("salvage")
        .about("Gives up what is damaged in a journal, so that a broker starts; says what that was")
        .after_help("The damaged segments are kept beside the others, with .damaged behind their names.")
        .arg(data_dir().help("The data directory"));
    clap::Command::new("leveret").subcommand_required(true).subcommand(inspect).subcommand(salvage)
}
