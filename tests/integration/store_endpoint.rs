//! Where connecting goes wrong, and how that is told.

use ems_bots::store::{
    AuditStore as _, StoreError,
    pg::{Endpoint, EndpointParts, PgStore, Role, WriterOptions, migrate::migrate},
};
use rand::{SeedableRng as _, rngs::StdRng};
use secrecy::SecretString;
use sqlx::Executor as _;

use crate::{
    postgres::TestDatabase,
    store_append::{batch, message, now},
};

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set; run: eval \"$(dev/run postgres test-environment)\""))
}

fn writer(parts: EndpointParts) -> PgStore {
    let options = WriterOptions { rng: StdRng::seed_from_u64(1), inbox_key: None };
    PgStore::new(Endpoint::from_parts(parts).unwrap(), options)
}

impl TestDatabase {
    fn writer_parts(&self) -> EndpointParts {
        self.parts(&self.role_name(Role::Writer), &Self::password(Role::Writer))
    }
}

#[tokio::test]
async fn a_pooler_of_transactions_is_refused_by_worker_and_migration() {
    let database = TestDatabase::migrated().await;
    let port = variable("TEST_PGBOUNCER_PORT").parse().unwrap();
    let pooled = |parts: EndpointParts| EndpointParts { port, ..parts };
    for _ in 0..3 {
        let refused = writer(pooled(database.writer_parts())).open(None).await;
        assert!(matches!(refused, Err(StoreError::TransactionPooling)), "{refused:?}");
    }
    let owner = Endpoint::from_parts(pooled(database.parts(&database.name, "only-for-this-test"))).unwrap();
    let refused = migrate(&owner, &TestDatabase::roles()).await;
    assert!(matches!(refused, Err(StoreError::TransactionPooling)), "{refused:?}");
    // The same database without the pooler is fine, also while others use it.
    writer(database.writer_parts()).open(None).await.unwrap();
}

#[tokio::test]
async fn a_private_authority_is_trusted_if_it_is_given_and_only_then() {
    let database = TestDatabase::migrated().await;
    let with = |ca: Option<&str>, mode: Option<&str>| EndpointParts {
        ca_pem: ca.map(str::to_owned),
        ssl_mode: mode.map(str::to_owned),
        ..database.writer_parts()
    };
    let authority = std::fs::read_to_string(variable("TEST_DATABASE_CA_FILE")).unwrap();
    writer(with(Some(&authority), None)).open(None).await.unwrap();
    let mut superuser = database.superuser().await;
    let encrypted = "SELECT bool_and(ssl.ssl) FROM pg_stat_ssl ssl JOIN pg_stat_activity USING (pid)
                     WHERE datname = current_database() AND usename LIKE '%writer'";
    let store = writer(with(Some(&authority), None));
    store.open(None).await.unwrap();
    let (all,): (Option<bool>,) = sqlx::query_as(encrypted).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(all, Some(true));
    for parts in [with(Some(OTHER_AUTHORITY), None), with(None, Some("verify-full"))] {
        let refused = writer(parts).open(None).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
    assert!(Endpoint::from_parts(with(None, Some("sometimes"))).is_err());
}

#[tokio::test]
async fn wrong_logins_and_unreachable_servers_are_told_apart() {
    let database = TestDatabase::migrated().await;
    let right = database.writer_parts();
    let wrong_password = EndpointParts { password: SecretString::from("wrong"), ..right.clone() };
    let wrong_user = EndpointParts { user: "nobody".into(), ..right.clone() };
    let wrong_database = EndpointParts { dbname: "no_such_database".into(), ..right.clone() };
    for parts in [wrong_password, wrong_user, wrong_database] {
        let refused = writer(parts).open(None).await;
        assert!(matches!(refused, Err(StoreError::Login(_))), "{refused:?}");
        assert!(!format!("{refused:?}").contains(&TestDatabase::password(Role::Writer)));
    }
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = writer(EndpointParts { port: free, ..right }).open(None).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_read_only_database_cannot_write() {
    let database = TestDatabase::migrated().await;
    let mut superuser = database.superuser().await;
    let read_only = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',
                                                current_database()); END $$";
    superuser.execute(read_only).await.unwrap();
    let refused = database.writer(1).open(None).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
}

#[tokio::test]
async fn the_writer_recovers_when_the_server_cut_all_connections() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    store.append(&batch(vec![message("a", "")]), now()).await.unwrap();
    let mut superuser = database.superuser().await;
    superuser
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await
        .unwrap();
    let appended = store.append(&batch(vec![message("b", "")]), now()).await.unwrap();
    assert_eq!(appended.seqs, [Some(2)]);
}

#[tokio::test]
async fn nothing_prints_a_password() {
    let parts = EndpointParts {
        host: "db".into(),
        port: 5432,
        dbname: "d".into(),
        user: "u".into(),
        password: SecretString::from("hunter2"),
        ca_pem: None,
        ssl_mode: None,
        schema: TestDatabase::schema(),
        application_name: "test".into(),
    };
    let endpoint = Endpoint::from_parts(parts.clone()).unwrap();
    let store =
        PgStore::new(endpoint.clone(), WriterOptions { rng: StdRng::seed_from_u64(1), inbox_key: None });
    let url = SecretString::from("postgresql://u:hunter2@db/d");
    let from_url = Endpoint::from_url(&url, TestDatabase::schema(), "test").unwrap();
    let broken = SecretString::from("postgresql://u:hunter2@db:port/d");
    let broken = Endpoint::from_url(&broken, TestDatabase::schema(), "test").unwrap_err();
    let printed = format!("{parts:?} {endpoint:?} {from_url:?} {broken:?} {broken} {store:?}");
    assert!(!printed.contains("hunter2"), "{printed}");
}

/// Of an authority that nobody uses; its key is thrown away.
const OTHER_AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBjzCCATWgAwIBAgIUMQ9o/K5m1rXRBQhKnLJ9gygdEEkwCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRYW5vdGhlciBhdXRob3JpdHkwIBcNMjYxMTIxMDgzNDQyWhgP
MjEyNjEwMjgwODM0NDJaMBwxGjAYBgNVBAMMEWFub3RoZXIgYXV0aG9yaXR5MFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEfT0AL29mqn73JrWHk9h0UsstM+PwLwLv
aI+xxYdBw0u+iNkw9X2uXg/2iqSSNmsdVe/fLf497S/MfjuTuotg7qNTMFEwHQYD
VR0OBBYEFOrrefgvWQ92uHKy7QTp7lCnLtkIMB8GA1UdIwQYMBaAFOrrefgvWQ92
uHKy7QTp7lCnLtkIMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIg
DDGPeWDBEWpzDCJEH6AMEQsKmfbjN6dJFC96pUAwn/wCIQDxqdbeIZ6D0o07jEIx
ypkV2Hsqp8PRixuhe3pTnomQmQ==
-----END CERTIFICATE-----
";
