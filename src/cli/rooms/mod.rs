//! `ems-bots rooms`: where a bot stands in the rooms of its homeserver.

use std::process::ExitCode;

mod explain;
mod list;
mod output;
mod removal;

/// Arguments of `ems-bots rooms`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say of one room where the bot stands, why, what to do, and what it did there last.
    Explain(explain::Args),
    /// List every room with its state and reason.
    List(list::Args),
    /// Say what the removal of the bot would do to each of its rooms; changes nothing.
    PreviewRemoval(removal::Args),
}

/// Runs the chosen subcommand.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Explain(args) => explain::run(args).await,
        Command::List(args) => list::run(args).await,
        Command::PreviewRemoval(args) => removal::run(args).await,
    }
}
