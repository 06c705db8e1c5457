//! What the subcommands share that read a bot's database.

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use secrecy::SecretString;

use super::terminal;
use crate::store::{
    StoreError,
    pg::{Endpoint, PgReader, SchemaName},
};

/// Where to read, and as whom.
#[derive(Debug, clap::Args)]
pub(super) struct ReaderArgs {
    /// Schema of the bot, for example adminbot.
    #[arg(long, env = "EMS_DATABASE_SCHEMA", default_value = "auditbot")]
    schema: SchemaName,
    /// postgresql://reader:password@host:port/database; better in the environment than here, where
    /// other users of the machine can see it.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: SecretString,
}

impl ReaderArgs {
    /// Connects; `program` is the name by which the database knows the session.
    pub(super) async fn connect(&self, program: &str) -> anyhow::Result<PgReader> {
        let endpoint = Endpoint::from_url(&self.database_url, self.schema.clone(), program)
            .context("DATABASE_URL or --database-url cannot be used")?;
        Ok(PgReader::connect(&endpoint).await?)
    }
}

/// The exit code, after telling what went wrong with the database.
pub(super) fn settled(outcome: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever reads has had enough (`| head`).
        Err(error) if terminal::is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => match error.downcast_ref::<StoreError>() {
            Some(store) => {
                let refused = matches!(store, StoreError::Login(_) | StoreError::SchemaTooNew { .. });
                let advice = advice(store);
                let _closed = writeln!(std::io::stderr(), "error: {error:#}{advice}");
                Ok(ExitCode::from(if refused { 4 } else { 1 }))
            }
            None => Err(error),
        },
    }
}

/// What to do about it, where the error itself does not say.
fn advice(error: &StoreError) -> &'static str {
    match error {
        StoreError::Login(_) => "; check user, password and database name in DATABASE_URL",
        StoreError::Unavailable(_) => "; check host and port in DATABASE_URL, and whether the server runs",
        StoreError::SchemaTooOld { found: None, .. } => {
            "; if the trail exists, --schema or the user in DATABASE_URL is wrong"
        }
        StoreError::Query(_) => "; use the reader's user in DATABASE_URL",
        _ => "",
    }
}
