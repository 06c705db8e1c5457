//! The one binary of ems-bots; its subcommands are the processes of the system.

// matrix-sdk's futures nest deeper than the compiler's default limit.
#![recursion_limit = "256"]

use std::{io::Write, process::ExitCode};

use clap::Parser;
use ems_bots::cli::Cli;

fn main() -> ExitCode {
    // One TLS implementation for Kubernetes, homeserver and database; a second install is an error
    // that says that the first one stands.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli.run()));
    outcome.unwrap_or_else(|error| {
        // Standard error may be closed; there is nowhere left to say so.
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}
