//! `ems-bots audit`: what a person does with a trail.

use std::process::ExitCode;

mod output;
mod search;
mod times;

/// Arguments of `ems-bots audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find records, newest first.
    Search(search::Args),
}

/// Runs the chosen subcommand.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Search(args) => search::run(args).await,
    }
}
