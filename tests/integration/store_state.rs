//! What the writer keeps beside the records, and how it looks records up.

use ems_bots::{
    domain::{
        EventId, RoomId,
        record::{Actor, Occurred, Place, RecordDraft, Relation, Trust},
    },
    store::{AuditStore as _, Batch, PendingEvent},
};
use jiff::Timestamp;
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
    let room = |id: &str| RoomId::parse(id).unwrap();
    assert_eq!(store.pending_rooms().await.unwrap(), [room("!a"), room("!b")]);
    for (id, of) in [("$1", "!a"), ("$2", "!b")] {
        let page = store.pending(&room(of), None, 10).await.unwrap();
        assert_eq!((page.events, page.next), (vec![pending(id, of, "missing_key")], None));
    }
    let second = Batch {
        resolved: vec![EventId::parse("$1").unwrap()],
        pending: vec![pending("$2", "!b", "key_withheld")],
        ..Batch::default()
    };
    store.append(&second, now()).await.unwrap();
    assert_eq!(store.pending_totals().await.unwrap(), [("key_withheld".to_owned(), 1)]);
}

#[tokio::test]
async fn every_pending_event_of_a_room_is_on_one_page_and_none_hides_another() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let pending = |id: String, room: &str| PendingEvent {
        event_id: EventId::parse(id).unwrap(),
        room_id: RoomId::parse(room).unwrap(),
        raw: "{}".to_owned(),
        reason: "before_join".to_owned(),
    };
    let other = pending("$other".to_owned(), "!b");
    let mut all: Vec<_> = (0..1001).map(|number| pending(format!("${number}"), "!a")).collect();
    let batch = Batch { pending: all.iter().cloned().chain([other]).collect(), ..Batch::default() };
    store.append(&batch, now()).await.unwrap();
    let (room, mut after, mut seen, mut sizes) = (RoomId::parse("!a").unwrap(), None, vec![], vec![]);
    loop {
        let page = store.pending(&room, after, 500).await.unwrap();
        sizes.push(page.events.len());
        if after.is_none() {
            // What is opened meanwhile moves nothing out of the next page.
            let resolved = page.events.iter().map(|event| event.event_id.clone()).collect();
            store.append(&Batch { resolved, ..Batch::default() }, now()).await.unwrap();
        }
        seen.extend(page.events);
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(sizes, [500, 500, 1]);
    all.sort_by(|a, b| a.event_id.cmp(&b.event_id));
    seen.sort_by(|a, b| a.event_id.cmp(&b.event_id));
    assert_eq!(seen, all);
}

#[tokio::test]
async fn what_the_trail_has_the_text_of_does_not_wait_for_a_key_again() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let closed = |id: &str| RecordDraft {
        trust: Trust::Undecryptable,
        text: None,
        undecryptable_reason: Some("missing_key".to_owned()),
        ..message(&format!("matrix:event:{id}"), "")
    };
    let opened = RecordDraft { plaintext_raw: Some("{}".to_owned()), ..message("matrix:event:$1", "text") };
    store.append(&batch(vec![opened, closed("$2")]), now()).await.unwrap();
    let room = RoomId::parse("!a").unwrap();
    let pending = |id: &str| PendingEvent {
        event_id: EventId::parse(id).unwrap(),
        room_id: room.clone(),
        raw: "{}".to_owned(),
        reason: "missing_key".to_owned(),
    };
    // A new device without the keys reads all of it once more, and one that is new.
    let ids = ["$1", "$2", "$3"];
    let again = Batch { pending: ids.map(pending).to_vec(), ..batch(ids.map(closed).to_vec()) };
    assert_eq!(store.append(&again, now()).await.unwrap().seqs, [None, None, Some(3)]);
    let waiting = store.pending(&room, None, 10).await.unwrap().events;
    assert_eq!(waiting, [pending("$2"), pending("$3")]);
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
async fn what_took_the_place_of_state_is_the_newest_record_of_the_room_that_says_so() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let (room, id) = (RoomId::parse("!room:example.org").unwrap(), EventId::parse("$old").unwrap());
    let found = async || {
        let found = store.replacement(&room, &id).await.unwrap();
        found.map(|record| record.content.unwrap().source_id)
    };
    let record = |source: &str, room: &str, role: &str| RecordDraft {
        relations: vec![Relation::new("room", room, "in"), Relation::new("event", "$old", role)],
        ..message(source, source)
    };
    let (here, elsewhere) = ("!room:example.org", "!other:example.org");
    let drafts = vec![record("itself", here, "self"), record("elsewhere", elsewhere, "replaces_state")];
    store.append(&batch(drafts), now()).await.unwrap();
    assert_eq!(found().await, None);
    for source in ["first", "second"] {
        let drafts = vec![record(source, here, "replaces_state"), record("redaction", here, "redacts")];
        store.append(&batch(drafts), now()).await.unwrap();
        assert_eq!(found().await.as_deref(), Some(source));
    }
}

#[tokio::test]
async fn the_latest_version_of_a_message_is_its_authors_newest_readable_edit() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let id = EventId::parse("$m").unwrap();
    assert_eq!(store.latest_version(&id, None).await.unwrap(), None);
    let edit = |source: &str, actor: &str, minutes: i64, trust: Trust| RecordDraft {
        actor: Actor::matrix(actor),
        occurred: Occurred::At(now().as_millisecond() + minutes * 60_000),
        trust,
        relations: vec![
            Relation::new("room", "!room:example.org", "in"),
            Relation::new("event", "$m", "replaces"),
            Relation::new("event", format!("${source}"), "self"),
        ],
        ..message(source, source)
    };
    let before = async |place: Option<Place>| {
        store.latest_version(&id, place.as_ref()).await.unwrap().unwrap().content.unwrap().source_id
    };
    let latest = async || before(None).await;
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
    let place = |minutes: i64, event_id: &str| {
        let at = Timestamp::from_millisecond(now().as_millisecond() + minutes * 60_000).unwrap();
        Some(Place { at, event_id: event_id.to_owned() })
    };
    assert_eq!(before(place(3, "$other")).await, "second");
    assert_eq!(before(place(2, "$second")).await, "first", "it does not replace itself");
    assert_eq!(before(place(1, "$first")).await, "matrix:plaintext:$m");
    // Of the same time the greater identifier counts, in whichever order they are recorded.
    let drafts = vec![edit("z", alice, 5, Trust::Plain), edit("k", alice, 5, Trust::Plain)];
    store.append(&batch(drafts), now()).await.unwrap();
    assert_eq!(latest().await, "z");
    assert_eq!(before(place(5, "$z")).await, "k");
    assert_eq!(before(place(5, "$b")).await, "second");
}
