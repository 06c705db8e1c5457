//! Where a database is, how to log in there, and how each session is set up.

use std::{fmt, str::FromStr as _, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use super::{SchemaName, map};
use crate::store::StoreError;

/// How long a statement may take before the server ends it.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a statement may wait for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take, and how long to wait for a free connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a database is and how to log in there.
#[derive(Clone)]
pub struct Endpoint {
    options: PgConnectOptions,
    schema: SchemaName,
}

/// The parts of an [`Endpoint`], as they stand in a Secret.
#[derive(Debug, Clone)]
pub struct EndpointParts {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub dbname: String,
    /// Role to log in as.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// PEM certificates of the authority that signed the server's. With it the connection is always
    /// encrypted and the server's name checked; without it encrypted where the server offers that.
    pub ca_pem: Option<String>,
    /// Overrides what `ca_pem` implies: a libpq `sslmode`.
    pub ssl_mode: Option<String>,
    /// Schema of the trail.
    pub schema: SchemaName,
    /// Seen by the database's administrators.
    pub application_name: String,
}

/// Why these parts are no endpoint. Never contains a value that could be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The URL does not parse.
    #[error("database URL is not valid; expected postgresql://user:password@host:port/database")]
    Url,
    /// The TLS mode is not known.
    #[error("sslmode is not one of disable, allow, prefer, require, verify-ca, verify-full")]
    SslMode,
}

impl fmt::Debug for Endpoint {
    /// The driver's own options print the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("host", &self.options.get_host())
            .field("port", &self.options.get_port())
            .field("database", &self.options.get_database())
            .field("user", &self.options.get_username())
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// From the parts.
    pub fn from_parts(parts: EndpointParts) -> Result<Self, EndpointError> {
        let implied = if parts.ca_pem.is_some() { PgSslMode::VerifyFull } else { PgSslMode::Prefer };
        let mode = match parts.ssl_mode {
            Some(text) => PgSslMode::from_str(&text).map_err(|_| EndpointError::SslMode)?,
            None => implied,
        };
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&parts.host)
            .port(parts.port)
            .database(&parts.dbname)
            .username(&parts.user)
            .password(parts.password.expose_secret())
            .ssl_mode(mode);
        if let Some(pem) = parts.ca_pem {
            options = options.ssl_root_cert_from_pem(pem.into_bytes());
        }
        Ok(Self::new(options, parts.schema, &parts.application_name))
    }

    /// From a URL as libpq understands it (`sslmode` and `sslrootcert` included).
    pub fn from_url(
        url: &SecretString,
        schema: SchemaName,
        application_name: &str,
    ) -> Result<Self, EndpointError> {
        let options = PgConnectOptions::from_str(url.expose_secret()).map_err(|_| EndpointError::Url)?;
        Ok(Self::new(options, schema, application_name))
    }

    fn new(options: PgConnectOptions, schema: SchemaName, application_name: &str) -> Self {
        let options = options
            .application_name(application_name)
            // Poolers refuse start-up parameters that they do not track; no float is read as text.
            .extra_float_digits(None)
            .disable_statement_logging();
        Self { options, schema }
    }

    /// The schema of the trail.
    pub fn schema(&self) -> &SchemaName {
        &self.schema
    }

    /// The database, which by default has the user's name.
    pub fn dbname(&self) -> &str {
        self.options.get_database().unwrap_or_else(|| self.options.get_username())
    }

    /// Where the server is: its name or address, and its port.
    pub fn address(&self) -> String {
        format!("{}:{}", self.options.get_host(), self.options.get_port())
    }

    /// A connection without any session state of ours.
    pub(super) async fn connect_bare(&self) -> Result<PgConnection, StoreError> {
        let connecting = PgConnection::connect_with(&self.options);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(map),
            Err(elapsed) => Err(StoreError::Unavailable(Box::new(elapsed))),
        }
    }

    /// One connection that is set up.
    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        let mut connection = self.connect_bare().await?;
        set_up(&mut connection, &self.schema).await.map_err(map)?;
        Ok(connection)
    }

    /// A pool whose connections are set up. Connects when first used.
    pub(super) fn pool(&self, size: u32) -> PgPool {
        let schema = self.schema.clone();
        PgPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(CONNECT_TIMEOUT)
            .after_connect(move |connection, _| {
                let schema = schema.clone();
                Box::pin(async move { set_up(connection, &schema).await })
            })
            .connect_lazy_with(self.options.clone())
    }
}

/// Sets what a session needs. Not as start-up parameters: poolers refuse those.
async fn set_up(connection: &mut PgConnection, schema: &SchemaName) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT set_config('search_path', $1, false),
                set_config('statement_timeout', $2, false),
                set_config('lock_timeout', $3, false),
                set_config('idle_in_transaction_session_timeout', $2, false),
                set_config('tcp_keepalives_idle', '30', false),
                set_config('tcp_keepalives_interval', '10', false),
                set_config('tcp_keepalives_count', '3', false),
                set_config('client_min_messages', 'warning', false),
                set_config('jit', 'off', false),
                CASE WHEN current_setting('synchronous_commit') = 'off'
                     THEN set_config('synchronous_commit', 'on', false) END",
    )
    .bind(format!("\"{schema}\", pg_temp"))
    .bind(STATEMENT_TIMEOUT.as_millis().to_string())
    .bind(LOCK_TIMEOUT.as_millis().to_string())
    .persistent(false)
    .execute(connection)
    .await?;
    Ok(())
}
