//! Migrations and what the roles that they make can and cannot do.

#![expect(clippy::disallowed_types, reason = "runs the SQL that the error tells an administrator to run")]

use ems_bots::store::AuditReader as _;
use ems_bots::store::{
    AuditStore as _, Batch, StoreError,
    pg::{
        Endpoint, PgReader, PgStore, Role, WriterOptions,
        inbox::PgInbox,
        migrate::{RoleSource, RoleSources, VERSION, migrate},
    },
};
use rand::{SeedableRng as _, rngs::StdRng};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::{
    postgres::TestDatabase,
    store_append::{batch, message, now},
};

async fn sqlstate(connection: &mut PgConnection, sql: &'static str) -> Option<String> {
    let error = connection.execute(sql).await.err()?;
    Some(error.as_database_error().unwrap().code().unwrap().into_owned())
}

const DENIED: &str = "42501";

#[tokio::test]
async fn migrating_twice_and_at_the_same_time_changes_nothing_more() {
    let database = TestDatabase::empty().await;
    let (first, second) = tokio::join!(database.migrate(), database.migrate());
    let mut from = [first.unwrap().from, second.unwrap().from];
    from.sort_unstable();
    assert_eq!(from, [None, Some(VERSION)]);
    let mut superuser = database.superuser().await;
    let key = "SELECT encode(source_key, 'hex') || (SELECT hash FROM head)::text FROM trail_key";
    let (before,): (String,) = sqlx::query_as(key).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(database.migrate().await.unwrap().from, Some(VERSION));
    let (after,): (String,) = sqlx::query_as(key).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_missing_or_newer_schema_is_refused_by_everybody() {
    let database = TestDatabase::empty().await;
    let owner =
        PgStore::new(database.owner(), WriterOptions { rng: StdRng::seed_from_u64(1), inbox_key: None });
    assert!(matches!(owner.open(None).await, Err(StoreError::SchemaTooOld { found: None, needed: VERSION })));
    database.migrate().await.unwrap();
    let mut superuser = database.superuser().await;
    superuser
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'future', true, '', 0)",
        )
        .await
        .unwrap();
    let too_new = |error: Option<StoreError>| {
        let told = matches!(error, Some(StoreError::SchemaTooNew { found: 9999, known: VERSION }));
        assert!(told, "{error:?}");
    };
    too_new(database.writer(1).open(None).await.err());
    too_new(PgReader::connect(&database.endpoint(Role::Reader)).await.err());
    superuser.execute("REVOKE SELECT ON envelope FROM PUBLIC; DROP INDEX content_opaque").await.unwrap();
    too_new(database.migrate().await.err());
}

#[tokio::test]
async fn the_writer_adds_records_and_can_neither_change_nor_remove_any() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    store.append(&batch(vec![message("a", "")]), now()).await.unwrap();
    let mut writer = database.as_role(Role::Writer).await;
    for sql in [
        "UPDATE envelope SET category = 1",
        "DELETE FROM envelope",
        "TRUNCATE envelope",
        "UPDATE content SET content = ''",
        "DELETE FROM content",
        "TRUNCATE content",
        "DELETE FROM content_2",
        "UPDATE source SET seq = 9",
        "DELETE FROM source",
        "UPDATE subject SET person = ''",
        "DELETE FROM subject",
        "UPDATE checkpoint SET size = 9",
        "DELETE FROM checkpoint",
        "DELETE FROM head",
        "UPDATE epochs SET epoch = 2",
        "UPDATE trail_key SET source_key = ''",
        "UPDATE media SET bucket = ''",
        "DELETE FROM media",
        "SELECT content FROM media",
        "UPDATE attachment SET seq = 9",
        "UPDATE _sqlx_migrations SET version = 0",
        "INSERT INTO inbox (writer, counter, body, mac) VALUES ('x', 1, '', '')",
        "CREATE TABLE mine ()",
        "SELECT grant_rights('a', 'b', 'c')",
    ] {
        assert_eq!(sqlstate(&mut writer, sql).await.as_deref(), Some(DENIED), "{sql}");
    }
}

#[tokio::test]
async fn the_reader_only_reads_and_not_what_would_unmask_erased_records() {
    let database = TestDatabase::migrated().await;
    let mut reader = database.as_role(Role::Reader).await;
    for sql in [
        "SELECT * FROM trail_key",
        "SELECT * FROM source",
        "SELECT * FROM inbox",
        "SELECT * FROM cursor",
        "SELECT * FROM pending",
        "SELECT * FROM attachment",
        "UPDATE room SET state = 'covered'",
        "DELETE FROM room",
        "DELETE FROM media",
        "INSERT INTO source VALUES (gen_random_uuid(), 1)",
        "UPDATE head SET size = 9",
        "DELETE FROM content",
        "SELECT ensure_partitions(array[1]::smallint[], array['2020-01-01']::date[])",
        "CREATE TABLE mine ()",
    ] {
        assert_eq!(sqlstate(&mut reader, sql).await.as_deref(), Some(DENIED), "{sql}");
    }
    assert_eq!(
        sqlstate(&mut reader, "SELECT * FROM content, envelope, subject, head, media, room").await,
        None
    );
}

#[tokio::test]
async fn the_inbox_role_puts_messages_in_and_sees_nothing() {
    let database = TestDatabase::migrated().await;
    let mut inbox = database.as_role(Role::Inbox).await;
    for sql in [
        "SELECT * FROM inbox",
        "DELETE FROM inbox",
        "UPDATE inbox SET counter = 2",
        "INSERT INTO inbox (received_at, writer, counter, body, mac) VALUES (now(), 'x', 1, '', '')",
        "SELECT * FROM content",
        "SELECT * FROM head",
        "SELECT * FROM media",
        "SELECT * FROM attachment",
        "SELECT * FROM room",
        "SELECT * FROM _sqlx_migrations",
        "INSERT INTO content DEFAULT VALUES",
        "CREATE TABLE mine ()",
    ] {
        assert_eq!(sqlstate(&mut inbox, sql).await.as_deref(), Some(DENIED), "{sql}");
    }
    let key = || SecretString::from("key of the MACs");
    let options = WriterOptions { rng: StdRng::seed_from_u64(1), inbox_key: Some(key()) };
    let store = PgStore::new(database.endpoint(Role::Writer), options);
    store.open(None).await.unwrap();
    let console = PgInbox::new(&database.endpoint(Role::Inbox), "console-1", key());
    console.put(1, &message("whatever", "authentic")).await.unwrap();
    console.put(1, &message("whatever", "authentic")).await.unwrap();
    let forger = PgInbox::new(&database.endpoint(Role::Inbox), "console-1", SecretString::from("guessed"));
    forger.put(2, &message("whatever", "forged")).await.unwrap();
    let items = store.inbox(10).await.unwrap();
    let found: Vec<_> =
        items.iter().map(|item| (item.draft.action.as_str(), item.draft.text.as_deref())).collect();
    assert_eq!(found, [("message.sent", Some("authentic")), ("inbox.unauthenticated", None)]);
    assert!(items[0].draft.source_id.starts_with("inbox:console-1:1:"), "{}", items[0].draft.source_id);
    let mut drained = batch(items.iter().map(|item| item.draft.clone()).collect());
    drained.drained = items.iter().map(|item| item.id).collect();
    assert_eq!(store.append(&drained, now()).await.unwrap().point.size, 2);
    assert_eq!(store.inbox(10).await.unwrap(), []);
    // Without the key nothing counts as authentic.
    console.put(3, &message("whatever", "authentic")).await.unwrap();
    let keyless = database.writer(2);
    assert_eq!(keyless.inbox(10).await.unwrap()[0].draft.action, "inbox.unauthenticated");
}

#[tokio::test]
async fn no_message_of_the_inbox_takes_the_place_of_another() {
    let database = TestDatabase::migrated().await;
    let store = database.writer_with_inbox(1);
    store.open(None).await.unwrap();
    let endpoint = database.endpoint(Role::Inbox);
    let forger = PgInbox::new(&endpoint, "console-1", SecretString::from("guessed"));
    forger.put(1, &message("whatever", "forged")).await.unwrap();
    let console = PgInbox::new(&endpoint, "console-1", TestDatabase::inbox_key());
    console.put(1, &message("whatever", "authentic")).await.unwrap();
    let drain = async || {
        let items = store.inbox(10).await.unwrap();
        let mut drained = batch(items.iter().map(|item| item.draft.clone()).collect());
        drained.drained = items.iter().map(|item| item.id).collect();
        let seqs = store.append(&drained, now()).await.unwrap().seqs;
        let shown = items.into_iter().map(|item| item.draft.text.unwrap_or(item.draft.action));
        shown.zip(seqs).collect::<Vec<_>>()
    };
    let (refused, authentic) = ("inbox.unauthenticated".to_owned(), "authentic".to_owned());
    assert_eq!(drain().await, [(refused, Some(1)), (authentic.clone(), Some(2))]);
    // It lost count and begins at 1 again; then it repeats what it does not know to be there.
    console.put(1, &message("whatever", "later")).await.unwrap();
    console.put(1, &message("whatever", "authentic")).await.unwrap();
    assert_eq!(drain().await, [("later".to_owned(), Some(3)), (authentic, None)]);
}

#[tokio::test]
async fn large_messages_of_the_inbox_are_read_few_at_a_time() {
    let database = TestDatabase::migrated().await;
    let store = database.writer_with_inbox(1);
    store.open(None).await.unwrap();
    let console = PgInbox::new(&database.endpoint(Role::Inbox), "console-1", TestDatabase::inbox_key());
    for (counter, size) in [(1, 10), (2, 4_000_000), (3, 3_000_000), (4, 1_000_000), (5, 10), (6, 10)] {
        let mut draft = message("whatever", "a message");
        draft.source_raw = Some("x".repeat(size));
        console.put(counter, &draft).await.unwrap();
    }
    let mut pages = Vec::new();
    loop {
        let items = store.inbox(3).await.unwrap();
        if items.is_empty() {
            break;
        }
        pages.push(items.len());
        let drained = items.into_iter().map(|item| item.id).collect();
        store.append(&Batch { drained, ..Batch::default() }, now()).await.unwrap();
    }
    assert_eq!(pages, [2, 3, 1]);
}

#[tokio::test]
async fn an_owner_who_may_not_create_roles_is_told_the_sql_that_then_works() {
    let database = TestDatabase::with_owner("NOCREATEROLE").await;
    let refused = database.migrate().await;
    let Err(StoreError::MayNotCreateRoles { sql }) = refused else { panic!("{refused:?}") };
    for role in Role::ALL {
        assert!(!sql.contains(&TestDatabase::password(role)) && !sql.contains("SCRAM"));
    }
    let mut superuser = database.superuser().await;
    let (schemas,): (i64,) = sqlx::query_as("SELECT count(*) FROM pg_namespace WHERE nspname = 'auditbot'")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(schemas, 0, "refusing changed the database");
    superuser.execute(AssertSqlSafe(sql)).await.unwrap();
    for role in Role::ALL {
        let (name, password) = (database.role_name(role), TestDatabase::password(role));
        let sql = format!("ALTER ROLE \"{name}\" PASSWORD '{password}'");
        superuser.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    database.migrate().await.unwrap();
    database.writer(1).open(None).await.unwrap();
    database.reader().await.head().await.unwrap();
}

#[tokio::test]
async fn given_roles_get_their_rights_and_keep_their_passwords() {
    let database = TestDatabase::migrated().await;
    // The roles of the migrated schema serve as given ones of a second schema in the same database.
    let mut parts = database.parts(&database.name, "only-for-this-test");
    parts.schema = ems_bots::store::pg::SchemaName::parse("second").unwrap();
    let given = |role| RoleSource::Given(database.role_name(role));
    let roles =
        RoleSources { writer: given(Role::Writer), reader: given(Role::Reader), inbox: given(Role::Inbox) };
    migrate(&Endpoint::from_parts(parts.clone()).unwrap(), &roles).await.unwrap();
    parts.user = database.role_name(Role::Writer);
    parts.password = SecretString::from(TestDatabase::password(Role::Writer));
    let options = WriterOptions { rng: StdRng::seed_from_u64(1), inbox_key: None };
    let second = PgStore::new(Endpoint::from_parts(parts).unwrap(), options);
    let start = second.open(None).await.unwrap();
    let first = database.writer(1);
    assert_ne!(first.open(None).await.unwrap().root_hash, start.root_hash);
    second.append(&batch(vec![message("a", "")]), now()).await.unwrap();
    assert_eq!(first.find_by_source("a").await.unwrap(), None);
}

#[tokio::test]
async fn a_changed_password_is_set_and_none_is_ever_in_a_statement() {
    let database = TestDatabase::migrated().await;
    let mut roles = TestDatabase::roles();
    roles.reader = RoleSource::Generated(SecretString::from("another-password"));
    migrate(&database.owner(), &roles).await.unwrap();
    let refused = PgReader::connect(&database.endpoint(Role::Reader)).await;
    assert!(matches!(refused, Err(StoreError::Login(_))), "{refused:?}");
    let parts = database.parts(&database.role_name(Role::Reader), "another-password");
    PgReader::connect(&Endpoint::from_parts(parts).unwrap()).await.unwrap();
    let odd = RoleSource::Generated(SecretString::from("naïve"));
    let refused = migrate(&database.owner(), &RoleSources { reader: odd, ..roles }).await.unwrap_err();
    assert!(!format!("{refused:?} {refused}").contains("naïve"), "{refused:?}");
}
