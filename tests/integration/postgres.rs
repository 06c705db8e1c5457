//! A database of its own for each test, on the server of `TEST_DATABASE_URL`, with an owner that may
//! create roles but is no superuser. Dropped with everything in it when the test ends.

#![expect(clippy::disallowed_types, reason = "names of databases and roles cannot be bound")]

use std::{str::FromStr, sync::Once};

use ems_bots::store::StoreError;
use ems_bots::store::pg::{
    Endpoint, EndpointParts, PgReader, PgStore, Role, SchemaName, WriterOptions,
    migrate::{Migrated, RoleSource, RoleSources, migrate},
    role_name,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};

const PASSWORD: &str = "only-for-this-test";

/// A database of one test.
pub(crate) struct TestDatabase {
    admin: PgConnectOptions,
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

fn admin_options() -> PgConnectOptions {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    let url = std::env::var("TEST_DATABASE_URL").expect(
        "TEST_DATABASE_URL is not set (the URL of a superuser); run: eval \"$(dev/run postgres test-environment)\"",
    );
    PgConnectOptions::from_str(&url).expect("TEST_DATABASE_URL is a URL")
}

impl TestDatabase {
    /// An empty database.
    pub(crate) async fn empty() -> Self {
        Self::with_owner("CREATEROLE").await
    }

    /// An empty database whose owner has this attribute.
    pub(crate) async fn with_owner(attribute: &str) -> Self {
        let admin = admin_options();
        let name = format!("test_{:016x}", rand::rng().random::<u64>());
        let mut connection = PgConnection::connect_with(&admin).await.expect("the test server answers");
        for sql in [
            format!("CREATE ROLE {name} LOGIN {attribute} PASSWORD '{PASSWORD}'"),
            format!("CREATE DATABASE {name} OWNER {name}"),
        ] {
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        connection.close().await.unwrap();
        Self { host: admin.get_host().to_owned(), port: admin.get_port(), admin, name }
    }

    /// A database with a migrated schema.
    pub(crate) async fn migrated() -> Self {
        let database = Self::empty().await;
        database.migrate().await.unwrap();
        database
    }

    pub(crate) fn schema() -> SchemaName {
        SchemaName::parse("auditbot").unwrap()
    }

    pub(crate) fn roles() -> RoleSources {
        let generated = |role: Role| RoleSource::Generated(SecretString::from(Self::password(role)));
        RoleSources {
            writer: generated(Role::Writer),
            reader: generated(Role::Reader),
            inbox: generated(Role::Inbox),
        }
    }

    pub(crate) fn password(role: Role) -> String {
        format!("{PASSWORD}-{}", role.as_str())
    }

    pub(crate) async fn migrate(&self) -> Result<Migrated, StoreError> {
        migrate(&self.owner(), &Self::roles()).await
    }

    pub(crate) fn parts(&self, user: &str, password: &str) -> EndpointParts {
        EndpointParts {
            host: self.host.clone(),
            port: self.port,
            dbname: self.name.clone(),
            user: user.to_owned(),
            password: SecretString::from(password.to_owned()),
            ca_pem: None,
            ssl_mode: None,
            schema: Self::schema(),
            application_name: "ems-bots-test".to_owned(),
        }
    }

    /// As the owner of the database.
    pub(crate) fn owner(&self) -> Endpoint {
        Endpoint::from_parts(self.parts(&self.name, PASSWORD)).unwrap()
    }

    pub(crate) fn role_name(&self, role: Role) -> String {
        role_name(&Self::schema(), &self.name, role)
    }

    /// As one of the generated roles.
    pub(crate) fn endpoint(&self, role: Role) -> Endpoint {
        Endpoint::from_parts(self.parts(&self.role_name(role), &Self::password(role))).unwrap()
    }

    /// A writer that is not open yet.
    pub(crate) fn writer(&self, seed: u64) -> PgStore {
        let options = WriterOptions { rng: StdRng::seed_from_u64(seed), inbox_key: None };
        PgStore::new(self.endpoint(Role::Writer), options)
    }

    /// A writer that knows the messages of the inbox's own role.
    pub(crate) fn writer_with_inbox(&self, seed: u64) -> PgStore {
        let options = WriterOptions { rng: StdRng::seed_from_u64(seed), inbox_key: Some(Self::inbox_key()) };
        PgStore::new(self.endpoint(Role::Writer), options)
    }

    /// The key of the MACs, which is the password of the inbox role.
    pub(crate) fn inbox_key() -> SecretString {
        SecretString::from(Self::password(Role::Inbox))
    }

    pub(crate) async fn reader(&self) -> PgReader {
        PgReader::connect(&self.endpoint(Role::Reader)).await.unwrap()
    }

    /// A connection to this database as superuser, with the schema in its search path.
    pub(crate) async fn superuser(&self) -> PgConnection {
        self.connection(self.admin.clone()).await
    }

    /// A connection as one of the generated roles, with the schema in its search path.
    pub(crate) async fn as_role(&self, role: Role) -> PgConnection {
        let options = self.admin.clone().username(&self.role_name(role)).password(&Self::password(role));
        self.connection(options).await
    }

    async fn connection(&self, options: PgConnectOptions) -> PgConnection {
        let mut connection = PgConnection::connect_with(&options.database(&self.name)).await.unwrap();
        connection.execute("SET search_path = auditbot").await.unwrap();
        connection
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let roles: Vec<String> = Role::ALL.into_iter().map(|role| self.role_name(role)).collect();
        let clean_up = async move {
            let mut connection = PgConnection::connect_with(&admin).await?;
            connection.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))).await?;
            for role in roles.iter().chain([&name]) {
                connection.execute(AssertSqlSafe(format!("DROP ROLE IF EXISTS \"{role}\""))).await?;
            }
            connection.close().await
        };
        // A test's own runtime may be single-threaded and must not be blocked from within.
        let cleaned = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map(|runtime| runtime.block_on(clean_up))
        })
        .join();
        if !matches!(cleaned, Ok(Ok(Ok(())))) {
            eprintln!("database {} could not be dropped: {cleaned:?}", self.name);
        }
    }
}
