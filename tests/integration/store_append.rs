//! Appending to a trail, against a real Postgres, as the real writer role.

use ems_bots::{
    domain::{
        filter::{PageRequest, SearchFilter},
        record::{Actor, Category, Change, Context, Occurred, RecordDraft, Relation, Subject, Trust},
        trail::TrailPoint,
    },
    store::{AuditReader as _, AuditStore as _, Batch, StoreError},
};
use jiff::Timestamp;
use serde_json::json;
use sqlx::Executor as _;

use crate::postgres::TestDatabase;

/// 2026-09-21, some time.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millisecond(1_790_000_000_000).unwrap()
}

/// A message in a room.
pub(crate) fn message(source_id: &str, text: &str) -> RecordDraft {
    RecordDraft {
        source_id: source_id.to_owned(),
        category: Category::UserActivity,
        action: "message.sent".to_owned(),
        occurred: Occurred::At(now().as_millisecond() - 1_000),
        actor: Actor::matrix("@alice:example.org"),
        on_behalf_of: None,
        context: Context::default(),
        relations: vec![Relation::new("room", "!room:example.org", "in")],
        changes: vec![],
        text: Some(text.to_owned()),
        source_raw: Some("{}".to_owned()),
        plaintext_raw: None,
        trust: Trust::Plain,
        undecryptable_reason: None,
        subjects: vec![Subject { person: "@alice:example.org".to_owned(), role: "actor".to_owned() }],
    }
}

pub(crate) fn batch(drafts: Vec<RecordDraft>) -> Batch {
    Batch { drafts, ..Batch::default() }
}

pub(crate) const ALL: PageRequest = PageRequest { before_seq: None, limit: 1000 };

#[tokio::test]
async fn a_record_is_found_again_as_it_was() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    let empty = store.open(None).await.unwrap();
    assert_eq!((empty.epoch, empty.size), (1, 0));
    let mut draft = message("matrix:event:$1", "Hello, world");
    draft.changes =
        vec![Change { path: "/a".into(), before: None, after: Some(json!({"b": [1, 2.5, null]})) }];
    let appended = store.append(&batch(vec![draft.clone()]), now()).await.unwrap();
    assert_eq!(appended.seqs, [Some(1)]);
    assert_eq!(appended.opaque, 0);
    assert_eq!((appended.point.epoch, appended.point.size), (1, 1));
    assert_ne!(appended.point.root_hash, empty.root_hash);
    assert_eq!(store.head().await.unwrap(), appended.point);

    let found = store.find_by_source("matrix:event:$1").await.unwrap().unwrap();
    assert_eq!(found.content.as_ref(), Some(&draft));
    assert_eq!((found.seq, found.epoch, found.recorded_at), (1, 1, now()));
    assert_eq!(store.find_by_source("matrix:event:$2").await.unwrap(), None);

    let reader = database.reader().await;
    assert_eq!(reader.head().await.unwrap(), appended.point);
    let filter = SearchFilter { text: Some("WORLD hello".into()), ..SearchFilter::default() };
    let page = reader.search(&filter, ALL).await.unwrap();
    assert_eq!(page.items, [found]);
    assert_eq!(page.next_before_seq, None);
}

#[tokio::test]
async fn a_known_source_is_recorded_once_in_and_across_batches() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let (a, b, c) = (message("a", "first"), message("b", "second"), message("c", "third"));
    let first = store.append(&batch(vec![a.clone(), b.clone(), a.clone()]), now()).await.unwrap();
    assert_eq!(first.seqs, [Some(1), Some(2), None]);
    let second = store.append(&batch(vec![b, c, a.clone()]), now()).await.unwrap();
    assert_eq!(second.seqs, [None, Some(3), None]);
    assert_eq!(second.point.size, 3);
    let nothing = store.append(&batch(vec![a]), now()).await.unwrap();
    assert_eq!((nothing.seqs, nothing.point), (vec![None], second.point));
}

#[tokio::test]
async fn an_older_writer_has_lost_the_trail() {
    let database = TestDatabase::migrated().await;
    let (old, new) = (database.writer(1), database.writer(2));
    assert!(matches!(old.append(&batch(vec![]), now()).await, Err(StoreError::LostSequencer)), "not opened");
    old.open(None).await.unwrap();
    let point = old.append(&batch(vec![message("a", "")]), now()).await.unwrap().point;
    assert_eq!(new.open(Some(&point)).await.unwrap(), point);
    for attempt in [batch(vec![message("b", "")]), batch(vec![])] {
        let refused = old.append(&attempt, now()).await;
        assert!(matches!(refused, Err(StoreError::LostSequencer)), "{refused:?}");
    }
    let appended = new.append(&batch(vec![message("c", "")]), now()).await.unwrap();
    assert_eq!(appended.point.size, 2);
}

#[tokio::test]
async fn the_time_of_recording_never_goes_backwards() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    store.append(&batch(vec![message("a", "")]), now()).await.unwrap();
    let earlier = Timestamp::from_second(now().as_second() - 3_600).unwrap();
    store.append(&batch(vec![message("b", "")]), earlier).await.unwrap();
    let later = store.find_by_source("b").await.unwrap().unwrap();
    assert_eq!(later.recorded_at, now());
    // A new process has to keep to that, too.
    let other = database.writer(2);
    other.open(None).await.unwrap();
    other.append(&batch(vec![message("c", "")]), earlier).await.unwrap();
    assert_eq!(other.find_by_source("c").await.unwrap().unwrap().recorded_at, now());
}

#[tokio::test]
async fn a_connection_cut_within_the_transaction_leaves_exactly_one_record() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    store.append(&batch(vec![message("a", "")]), now()).await.unwrap();
    // Holding the lock on `head` keeps the batch in its transaction until the connection is cut.
    let mut superuser = database.superuser().await;
    superuser.execute("BEGIN; SELECT FROM head FOR UPDATE").await.unwrap();
    let attempt = batch(vec![message("b", "")]);
    let cut = async {
        let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                         WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let mut other = database.superuser().await;
        loop {
            let (cut,): (i64,) = sqlx::query_as(terminate).fetch_one(&mut other).await.unwrap();
            if cut > 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let (outcome, ()) = tokio::join!(store.append(&attempt, now()), cut);
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    superuser.execute("ROLLBACK").await.unwrap();
    let appended = store.append(&attempt, now()).await.unwrap();
    assert_eq!((appended.seqs, appended.point.size), (vec![Some(2)], 2));
}

#[tokio::test]
async fn a_commit_whose_answer_got_lost_is_not_repeated() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let mut superuser = database.superuser().await;
    // A deferred trigger runs during COMMIT; it lets the commit wait, so that the caller can give up
    // while the server goes on.
    superuser
        .execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON checkpoint DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION wait();
             SELECT pg_advisory_lock(4711)",
        )
        .await
        .unwrap();
    let attempt = batch(vec![message("a", ""), message("b", "")]);
    {
        let append = store.append(&attempt, now());
        let waiting = async {
            let sql = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
            let mut other = database.superuser().await;
            while sqlx::query_as::<_, (i64,)>(sql).fetch_one(&mut other).await.unwrap().0 == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            outcome = append => panic!("the commit did not wait: {outcome:?}"),
            () = waiting => {}
        }
    }
    superuser.execute("SELECT pg_advisory_unlock(4711); DROP TRIGGER wait ON checkpoint").await.unwrap();
    let again = store.append(&attempt, now()).await.unwrap();
    assert_eq!((again.seqs, again.point.size), (vec![None, None], 2));
    let next = store.append(&batch(vec![message("c", "")]), now()).await.unwrap();
    assert_eq!(next.seqs, [Some(3)]);
}

#[tokio::test]
async fn a_full_disk_is_told_from_a_refused_value() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let mut superuser = database.superuser().await;
    superuser
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON envelope FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    let refused = store.append(&batch(vec![message("a", "")]), now()).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    superuser.execute("DROP TRIGGER refuse ON envelope").await.unwrap();
    assert_eq!(store.append(&batch(vec![message("a", "")]), now()).await.unwrap().seqs, [Some(1)]);
}

#[tokio::test]
async fn what_the_database_refuses_is_stored_as_opaque_and_the_rest_as_usual() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let mut superuser = database.superuser().await;
    superuser
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'value out of range' USING ERRCODE = '22003'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON content FOR EACH ROW
                 WHEN (NEW.room = '!culprit') EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    let mut drafts: Vec<_> = (0..20).map(|i| message(&format!("s{i}"), "word")).collect();
    for culprit in [3, 4, 17] {
        drafts[culprit].relations = vec![Relation::new("room", "!culprit", "in")];
    }
    let appended = store.append(&batch(drafts.clone()), now()).await.unwrap();
    assert_eq!(appended.opaque, 3);
    assert_eq!(appended.seqs, (1..=20).map(Some).collect::<Vec<_>>());
    for (i, draft) in drafts.iter().enumerate() {
        let found = store.find_by_source(&format!("s{i}")).await.unwrap().unwrap();
        assert_eq!(found.content.as_ref(), Some(draft));
    }
    let reader = database.reader().await;
    let by_word = SearchFilter { text: Some("word".into()), ..SearchFilter::default() };
    assert_eq!(reader.search(&by_word, ALL).await.unwrap().items.len(), 17);
    assert_eq!(reader.search(&SearchFilter::default(), ALL).await.unwrap().items.len(), 20);
}

#[tokio::test]
async fn another_or_an_older_database_is_refused_and_left_as_it_is() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    let start = store.open(None).await.unwrap();
    let mut points = vec![start];
    for i in 0..3 {
        let drafts = vec![message(&format!("a{i}"), ""), message(&format!("b{i}"), "")];
        points.push(store.append(&batch(drafts), now()).await.unwrap().point);
    }
    let other = database.writer(2);
    for point in &points {
        assert_eq!(&other.open(Some(point)).await.unwrap(), &points[3], "{point:?}");
    }
    // What was promised is further, has another hash, or never was the end of a batch.
    let last = &points[3];
    let further = TrailPoint { size: 7, ..last.clone() };
    let later_epoch = TrailPoint { epoch: 2, ..last.clone() };
    let different = TrailPoint { root_hash: points[1].root_hash.clone(), ..last.clone() };
    let between = TrailPoint { size: 5, ..last.clone() };
    let nonsense = TrailPoint { root_hash: "'; DROP TABLE head".into(), ..last.clone() };
    let mut superuser = database.superuser().await;
    let writer_id = "SELECT writer::text FROM head";
    let (before,): (String,) = sqlx::query_as(writer_id).fetch_one(&mut superuser).await.unwrap();
    for (promised, kind) in [
        (further, "Behind"),
        (later_epoch, "Behind"),
        (different, "Different"),
        (between, "Different"),
        (nonsense, "Different"),
    ] {
        let third = database.writer(3);
        let refused = third.open(Some(&promised)).await;
        let Err(StoreError::NotContinuing(continuity)) = refused else { panic!("{promised:?}: {refused:?}") };
        assert!(format!("{continuity:?}").starts_with(kind), "{continuity:?}");
        assert!(matches!(third.append(&batch(vec![]), now()).await, Err(StoreError::LostSequencer)));
    }
    let (after,): (String,) = sqlx::query_as(writer_id).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(before, after);
    // Two empty trails differ, too.
    let wrong = TestDatabase::migrated().await;
    let refused = wrong.writer(4).open(Some(&points[0])).await;
    assert!(matches!(refused, Err(StoreError::NotContinuing(_))), "{refused:?}");
}

#[tokio::test]
async fn a_failover_that_lost_a_batch_is_noticed_by_the_running_writer() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    store.append(&batch(vec![message("a", "")]), now()).await.unwrap();
    let mut superuser = database.superuser().await;
    superuser.execute("CREATE TABLE saved AS SELECT size, hash FROM head").await.unwrap();
    store.append(&batch(vec![message("b", "")]), now()).await.unwrap();
    superuser
        .execute(
            "UPDATE head SET size = saved.size, hash = saved.hash FROM saved;
             DELETE FROM envelope WHERE seq = 2; DELETE FROM content WHERE seq = 2;
             DELETE FROM source WHERE seq = 2; DELETE FROM checkpoint WHERE size = 2",
        )
        .await
        .unwrap();
    let refused = store.append(&batch(vec![message("c", "")]), now()).await;
    assert!(matches!(refused, Err(StoreError::NotContinuing(_))), "{refused:?}");
}

#[tokio::test]
async fn a_changed_last_batch_is_noticed_when_opening() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let point = store.append(&batch(vec![message("a", ""), message("b", "")]), now()).await.unwrap().point;
    let mut superuser = database.superuser().await;
    superuser.execute("UPDATE envelope SET category = 1 WHERE seq = 2").await.unwrap();
    let refused = database.writer(2).open(Some(&point)).await;
    assert!(matches!(refused, Err(StoreError::Inconsistent { table: "envelope", .. })), "{refused:?}");
}
