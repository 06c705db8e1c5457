//! The database: name, login, rights, pooling and the schema's version.

use std::time::Duration;

use super::report::Report;
use crate::store::{
    StoreError,
    pg::{
        Endpoint,
        inspect::{Inspection, inspect},
    },
};

const AREA: &str = "database";
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the database is, for messages and the look-up of its name.
pub(super) struct Target {
    pub host: String,
    pub port: u16,
    pub endpoint: Endpoint,
    /// The roles are given, so that the owner need not create any.
    pub roles_given: bool,
}

/// Looks at everything that can be asked without changing anything.
pub(super) async fn check(report: &mut Report, target: &Target) {
    // A host that begins with a slash is a folder with a socket.
    if !target.host.starts_with('/') && !resolves(report, target).await {
        return;
    }
    match inspect(&target.endpoint).await {
        Ok(found) => tell(report, &found, target),
        Err(error) => {
            let check = match &error {
                StoreError::Login(_) => "login",
                StoreError::TransactionPooling => "pooling",
                _ => "connection",
            };
            report.fail(
                AREA,
                check,
                with_cause(&error),
                error.advice().unwrap_or("do what the message says"),
            );
        }
    }
}

async fn resolves(report: &mut Report, target: &Target) -> bool {
    let lookup = tokio::net::lookup_host((target.host.as_str(), target.port));
    let fix = "check `host` in the database Secret; a name that only resolves inside the cluster needs \
               doctor to run there";
    match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
        Ok(Ok(mut addresses)) => match addresses.next() {
            Some(address) => {
                report.ok(AREA, "name", format!("{} is {}", target.host, address.ip()));
                return true;
            }
            None => report.fail(AREA, "name", format!("{} has no address", target.host), fix),
        },
        Ok(Err(_)) => report.fail(AREA, "name", format!("{} cannot be resolved", target.host), fix),
        Err(_) => report.fail(AREA, "name", format!("{}: no answer from the name server", target.host), fix),
    }
    false
}

fn tell(report: &mut Report, found: &Inspection, target: &Target) {
    report.ok(AREA, "login", format!("logged in to PostgreSQL {} as {}", found.server_version, found.user));
    if found.is_encrypted {
        report.ok(AREA, "encryption", "the connection is encrypted");
    } else {
        report.warn(
            AREA,
            "encryption",
            "the connection is not encrypted",
            "set spec.database.caSecretRef if the network is not trusted",
        );
    }
    report.ok(AREA, "pooling", "sessions keep their settings");
    if found.may_create_roles {
        report.ok(AREA, "roles", "the owner may create roles");
    } else if target.roles_given || found.schema_version.is_some() {
        report.ok(AREA, "roles", "the owner may not create roles, and need not");
    } else {
        report.fail(
            AREA,
            "roles",
            "the owner may not create roles",
            "grant it CREATEROLE, or run `ems-bots migrate` once: it prints the SQL for an administrator, \
             and name the roles in spec.database.writer, reader and eraser",
        );
    }
    match found.schema_version {
        None => report.ok(
            AREA,
            "schema",
            format!("{} is not there yet; the worker's first start makes it", target.endpoint.schema()),
        ),
        Some(version) if version == found.known_version => {
            report.ok(AREA, "schema", format!("{} is at version {version}", target.endpoint.schema()));
        }
        Some(version) if version < found.known_version => report.warn(
            AREA,
            "schema",
            format!("is at version {version}, this program needs {}", found.known_version),
            "restart the worker's pod, whose init container migrates, or run `ems-bots migrate`",
        ),
        Some(version) => report.fail(
            AREA,
            "schema",
            format!("is at version {version}, this program knows up to {}", found.known_version),
            "install a newer version of ems-bots",
        ),
    }
}

/// The error with the innermost cause, which is the server's own sentence.
fn with_cause(error: &StoreError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let (outer, inner) = (error.to_string(), cause.to_string());
    if outer == inner { outer } else { format!("{outer}: {inner}") }
}
