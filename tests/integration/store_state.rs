//! What the writer keeps beside the records, and how it looks records up.

use ems_bots::{
    domain::{
        EventId, RoomId,
        record::{Actor, Occurred, RecordDraft, Relation, Trust},
    },
    store::{AuditStore as _, Batch, PendingEvent},
};
use sqlx::Executor as _;

use crate::{
    postgres::TestDatabase,
    store_append::{batch, message, now},
};

#[tokio::test]
async fn cursors_and_pending_events_move_with_the_records() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let pending = |id: &str, room: &str, reason: &str| PendingEvent {
        event_id: EventId::parse(id).unwrap(),
        room_id: RoomId::parse(room).unwrap(),
        raw: "{\"a\":\"\u{0}\"}".to_owned(),
        reason: reason.to_owned(),
    };
    let first = Batch {
        cursors: vec![("matrix:sync".into(), "s1".into()), ("matrix:sync".into(), "s2\0".into())],
        pending: vec![
            pending("$1", "!a", "missing_key"),
            pending("$2", "!b", "missing_key"),
            pending("$1", "!a", "missing_key"),
        ],
        ..Batch::default()
    };
    store.append(&first, now()).await.unwrap();
    assert_eq!(store.cursor("matrix:sync").await.unwrap().as_deref(), Some("s2\0"));
    assert_eq!(store.cursor("other").await.unwrap(), None);
    assert_eq!(
        store.pending(None, 10).await.unwrap(),
        [pending("$1", "!a", "missing_key"), pending("$2", "!b", "missing_key")]
    );
    assert_eq!(store.pending(Some(&RoomId::parse("!b").unwrap()), 10).await.unwrap().len(), 1);
    let second = Batch {
        resolved: vec![EventId::parse("$1").unwrap()],
        pending: vec![pending("$2", "!b", "key_withheld")],
        ..Batch::default()
    };
    store.append(&second, now()).await.unwrap();
    assert_eq!(store.pending_totals().await.unwrap(), [("key_withheld".to_owned(), 1)]);
}

#[tokio::test]
async fn rows_of_a_month_without_partition_wait_in_the_default_one_and_are_moved() {
    let database = TestDatabase::migrated().await;
    let mut superuser = database.superuser().await;
    superuser.execute("ALTER FUNCTION ensure_partitions RENAME TO gone").await.unwrap();
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let mut old = message("old", "ancient");
    old.occurred = Occurred::At(1_300_000_000_000); // 2011-03-13
    store.append(&batch(vec![old.clone()]), now()).await.unwrap();
    let partition = "SELECT tableoid::regclass::text FROM content WHERE seq = 1";
    let (place,): (String,) = sqlx::query_as(partition).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(place, "content_2_default");
    superuser.execute("ALTER FUNCTION gone RENAME TO ensure_partitions").await.unwrap();
    // A running writer waits a while before it tries again; a new one does not.
    let store = database.writer(2);
    store.open(None).await.unwrap();
    let again = RecordDraft { source_id: "old2".into(), ..old };
    store.append(&batch(vec![again]), now()).await.unwrap();
    let places: Vec<(String,)> = sqlx::query_as(
        "SELECT DISTINCT tableoid::regclass::text FROM content UNION ALL
                        SELECT DISTINCT tableoid::regclass::text FROM subject ORDER BY 1",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert_eq!(places, [("content_2_201103".to_owned(),), ("subject_2_201103".to_owned(),)]);
}

#[tokio::test]
async fn the_latest_version_of_a_message_is_its_authors_newest_readable_edit() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let id = EventId::parse("$m").unwrap();
    assert_eq!(store.latest_version(&id).await.unwrap(), None);
    let edit = |source: &str, actor: &str, minutes: i64, trust: Trust| RecordDraft {
        actor: Actor::matrix(actor),
        occurred: Occurred::At(now().as_millisecond() + minutes * 60_000),
        trust,
        relations: vec![
            Relation::new("room", "!room:example.org", "in"),
            Relation::new("event", "$m", "replaces"),
        ],
        ..message(source, source)
    };
    let latest = async || store.latest_version(&id).await.unwrap().unwrap().content.unwrap().source_id;
    let mut original = message("matrix:event:$m", "original");
    original.trust = Trust::Undecryptable;
    store.append(&batch(vec![original]), now()).await.unwrap();
    assert_eq!(latest().await, "matrix:event:$m");
    store.append(&batch(vec![message("matrix:plaintext:$m", "original")]), now()).await.unwrap();
    assert_eq!(latest().await, "matrix:plaintext:$m");
    let alice = "@alice:example.org";
    let drafts = vec![
        edit("second", alice, 2, Trust::Plain),
        edit("first", alice, 1, Trust::Plain),
        edit("mallory", "@mallory:example.org", 3, Trust::Plain),
        edit("unreadable", alice, 4, Trust::Undecryptable),
    ];
    store.append(&batch(drafts), now()).await.unwrap();
    assert_eq!(latest().await, "second");
}
