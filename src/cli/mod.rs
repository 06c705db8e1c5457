//! The command line: one file per subcommand, each with its arguments and its wiring only.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub mod audit;
pub mod completions;
pub mod console;
pub mod crds;
pub mod doctor;
pub mod migrate;
pub mod operator;
mod reader;
pub mod rooms;
mod secret_files;
mod terminal;
pub mod worker;

/// Gives every hosted Matrix homeserver an Admin Bot and an Audit Bot.
#[derive(Debug, Parser)]
#[command(name = "ems-bots", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; the last line on standard error says why and what to do
  2  the command line is wrong
  3  doctor found problems
  4  refused, and nothing was changed: wrong user or password, a schema that is newer than this
     program, or another process that writes the trail";

#[derive(Debug, Subcommand)]
enum Command {
    /// Search the audit trail of a bot.
    Audit(audit::Args),
    /// Bring schema, partitions and roles of a trail up to date, as the owner of the database.
    Migrate(migrate::Args),
    /// Take what the API server reports and bring it into the trails of the bots that it is about.
    Console(Box<console::Args>),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Print the definitions of the custom resources.
    Crds(crds::Args),
    /// Check homeserver, credentials, database and cluster access, and say how to mend each.
    Doctor(Box<doctor::Args>),
    /// Work for every AdminBot and AuditBot of the cluster.
    Operator(operator::Args),
    /// Say in which rooms of its homeserver a bot is, in which it is not, and why.
    Rooms(rooms::Args),
    /// Follow one bot's rooms and write its audit trail (runs in the pod that the operator makes).
    Worker(Box<worker::Args>),
}

impl Cli {
    /// Runs the chosen subcommand.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Audit(args) => audit::run(args).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Console(args) => console::run(*args).await,
            Command::Completions(args) => completions::run(&args, &mut Self::command()),
            Command::Crds(args) => crds::run(&args),
            Command::Doctor(args) => doctor::run(*args).await,
            Command::Operator(args) => operator::run(args).await,
            Command::Rooms(args) => rooms::run(args).await,
            Command::Worker(args) => worker::run(*args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
