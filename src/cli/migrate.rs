//! `ems-bots migrate`: schema, partitions and roles of one trail, as the owner of the database.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use secrecy::SecretString;

use super::secret_files::{database, text};
use crate::{
    store::{
        StoreError,
        pg::{
            Endpoint, EndpointParts, Role, SchemaName,
            migrate::{Migrated, RoleSource, RoleSources, migrate},
        },
    },
    telemetry::init_logging,
};

const DEFAULT_CA: &str = "/etc/ems-bots/database-ca/ca.crt";
/// Where Kubernetes looks for the reason why a container ended.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Arguments of `ems-bots migrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes:
  0  schema, partitions and roles are up to date
  1  failed; trying again may help
  4  refused, and nothing was changed: the schema is newer than this program, the owner may not
     create roles (the message has the SQL), or the endpoint pools transactions")]
pub struct Args {
    /// Schema of the trail.
    #[arg(long, env = "EMS_DATABASE_SCHEMA", default_value = "auditbot")]
    schema: SchemaName,
    /// Folder with the files host, port, dbname, username and password of the database's owner.
    #[arg(
        long,
        env = "EMS_DATABASE_OWNER_DIR",
        default_value = "/etc/ems-bots/database-owner",
        value_name = "DIR"
    )]
    owner: PathBuf,
    /// Folder with writer-password, reader-password and inbox-password; a role for which there is
    /// also a file such as writer-username exists already and gets its rights only.
    #[arg(
        long,
        env = "EMS_DATABASE_ROLES_DIR",
        default_value = "/etc/ems-bots/database-roles",
        value_name = "DIR"
    )]
    roles: PathBuf,
    /// PEM certificates of the authority that signed the database server's; the default may be
    /// missing, and then the server is not checked.
    #[arg(long, env = "EMS_DATABASE_CA_FILE", default_value = DEFAULT_CA, value_name = "FILE")]
    ca_file: PathBuf,
    /// As in libpq; by default verify-full with certificates and prefer without.
    #[arg(long, env = "EMS_DATABASE_SSLMODE")]
    sslmode: Option<String>,
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    init_logging()?;
    let outcome = attempt(&args).await;
    match &outcome {
        Ok(Migrated { from: Some(from), to }) => {
            tracing::info!(schema = %args.schema, from, to, "schema is up to date");
        }
        Ok(Migrated { from: None, to }) => tracing::info!(schema = %args.schema, to, "schema is made"),
        Err(error) => tell_kubernetes(Path::new(TERMINATION_LOG), &sentence(error)),
    }
    match outcome {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "error: {}", sentence(&error));
            Ok(ExitCode::from(if is_refusal(&error) { 4 } else { 1 }))
        }
    }
}

async fn attempt(args: &Args) -> anyhow::Result<Migrated> {
    let endpoint = owner(args)?;
    let roles = RoleSources {
        writer: role(&args.roles, Role::Writer)?,
        reader: role(&args.roles, Role::Reader)?,
        inbox: role(&args.roles, Role::Inbox)?,
    };
    migrate(&endpoint, &roles).await.with_context(|| {
        let (database, address) = (endpoint.dbname(), endpoint.address());
        format!("schema {} of database {database} at {address} is not migrated", args.schema)
    })
}

fn owner(args: &Args) -> anyhow::Result<Endpoint> {
    let ca_pem = match std::fs::read_to_string(&args.ca_file) {
        Ok(pem) => Some(pem),
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && args.ca_file == Path::new(DEFAULT_CA) =>
        {
            None
        }
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", args.ca_file.display()));
        }
    };
    let parts = database(&args.owner, &args.schema, "ems-bots/migrate")?;
    Ok(Endpoint::from_parts(EndpointParts { ca_pem, ssl_mode: args.sslmode.clone(), ..parts })?)
}

fn role(folder: &Path, role: Role) -> anyhow::Result<RoleSource> {
    let given = folder.join(format!("{}-username", role.as_str()));
    if given.exists() {
        return Ok(RoleSource::Given(text(&given)?));
    }
    let password = text(&folder.join(format!("{}-password", role.as_str())))?;
    Ok(RoleSource::Generated(SecretString::from(password)))
}

fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(
            StoreError::SchemaTooNew { .. }
                | StoreError::MayNotCreateRoles { .. }
                | StoreError::TransactionPooling
        )
    )
}

/// The whole chain of causes on one line, at most what Kubernetes keeps. The driver's errors end with their own cause,
/// which is not said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    if let Some(advice) = error.downcast_ref().and_then(StoreError::advice) {
        line = format!("{line}; {advice}");
    }
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line[..line.floor_char_boundary(4_000)].to_owned()
}

/// Outside of Kubernetes there is no such file, and one that cannot be written changes nothing.
fn tell_kubernetes(path: &Path, sentence: &str) {
    if let Ok(mut file) = OpenOptions::new().write(true).truncate(true).open(path) {
        let _told = file.write_all(sentence.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_in_the_termination_log_if_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        tell_kubernetes(&path, "nothing");
        assert!(!path.exists());
        std::fs::write(&path, "old and longer than what follows").unwrap();
        let error = anyhow::anyhow!("the\nroot\u{1b}[31m")
            .context("its own: the\nroot\u{1b}[31m")
            .context("a message");
        tell_kubernetes(&path, &sentence(&error));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a message: its own: the root [31m");
    }

    #[test]
    fn a_role_with_a_user_name_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("writer-password", "secret\n");
        write("reader-password", "secret");
        write("reader-username", "auditors\n");
        assert!(matches!(role(folder.path(), Role::Writer).unwrap(), RoleSource::Generated(_)));
        let RoleSource::Given(name) = role(folder.path(), Role::Reader).unwrap() else { panic!("generated") };
        assert_eq!(name, "auditors");
        let missing = role(folder.path(), Role::Inbox).unwrap_err();
        assert!(format!("{missing:#}").contains("inbox-password"), "{missing:#}");
    }
}
