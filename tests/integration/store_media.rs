//! The queue of attachments, and the contents that were fetched.

use ems_bots::store::{
    AttachmentTotals, AuditStore as _, Batch, MediaPlace, NewAttachment, QueuedAttachment, Turn, pg::PgStore,
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    postgres::TestDatabase,
    store_append::{batch, message, now},
};

fn attachment(source_id: &str, wanted: &str) -> NewAttachment {
    NewAttachment { source_id: source_id.to_owned(), wanted: wanted.to_owned() }
}

fn with(sources: &[&str], attachments: Vec<NewAttachment>) -> Batch {
    Batch { attachments, ..batch(sources.iter().map(|source| message(source, "a file")).collect()) }
}

/// Those that were never tried, and then those that failed.
async fn due(store: &PgStore, now: Timestamp) -> Vec<(String, u32)> {
    let mut due = store.attachments(now, Turn::First, 10).await.unwrap();
    due.extend(store.attachments(now, Turn::Again, 10).await.unwrap());
    due.into_iter().map(|QueuedAttachment { wanted, tries, .. }| (wanted, tries)).collect()
}

#[tokio::test]
async fn attachments_are_queued_once_with_their_record_and_leave_with_what_became_of_them() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let hostile = "\0 \u{1e} '; DROP TABLE attachment; -- \\ud800 {";
    let first =
        with(&["a", "b"], vec![attachment("a", "one"), attachment("a", "two"), attachment("b", hostile)]);
    store.append(&first, now()).await.unwrap();
    let all = [("one".to_owned(), 0), ("two".to_owned(), 0), (hostile.to_owned(), 0)];
    assert_eq!(due(&store, now()).await, all);
    // The answer to the first time was lost, or the event was read a second time.
    let again =
        with(&["a", "b", "c"], vec![attachment("a", "one"), attachment("c", "three"), attachment("?", "-")]);
    store.append(&again, now()).await.unwrap();
    assert_eq!(due(&store, now()).await.len(), 4, "that of the new record alone");
    let first = store.attachments(now(), Turn::First, 2).await.unwrap();
    let ids: Vec<i64> = first.iter().map(|item| item.id).collect();
    let outcome = Batch { attended: ids, ..batch(vec![message("kept", "")]) };
    store.append(&outcome, now()).await.unwrap();
    assert_eq!(due(&store, now()).await, [(hostile.to_owned(), 0), ("three".to_owned(), 0)]);
}

#[tokio::test]
async fn an_event_that_is_twice_in_a_batch_has_its_attachments_once() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let twice = with(
        &["a", "a"],
        vec![attachment("a", "one"), attachment("a", "two"), attachment("a", "one"), attachment("a", "two")],
    );
    store.append(&twice, now()).await.unwrap();
    assert_eq!(due(&store, now()).await, [("one".to_owned(), 0), ("two".to_owned(), 0)]);
}

#[tokio::test]
async fn what_was_postponed_lets_the_others_go_first_and_is_counted() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    assert_eq!(store.attachment_totals(1).await.unwrap(), AttachmentTotals::default());
    store.append(&with(&["a"], vec![attachment("a", "one"), attachment("a", "two")]), now()).await.unwrap();
    let start = store.attachments(Timestamp::MAX, Turn::First, 1).await.unwrap().remove(0);
    assert_eq!((start.queued_at, start.tries), (now(), 0));
    let later = now() + SignedDuration::from_mins(5);
    store.postpone_attachment(start.id, later, true).await.unwrap();
    assert_eq!(due(&store, now()).await, [("two".to_owned(), 0)]);
    assert_eq!(due(&store, later).await, [("two".to_owned(), 0), ("one".to_owned(), 1)]);
    let totals = store.attachment_totals(1).await.unwrap();
    assert_eq!(totals, AttachmentTotals { waiting: 2, failing: 1 });
    let before = now() - SignedDuration::from_secs(1);
    assert_eq!(due(&store, before).await, []);
    let mut next = Vec::new();
    for at in [before, now(), later] {
        next.push(store.next_attachment(at).await.unwrap());
    }
    assert_eq!(next, [Some(now()), Some(later), None], "what is due is no news");
    // What is not its own fault does not count.
    store.postpone_attachment(start.id, before, false).await.unwrap();
    assert_eq!(due(&store, before).await, [("one".to_owned(), 1)]);
}

#[tokio::test]
async fn a_content_is_kept_once_wherever_it_is() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    let (here, there) = ([1; 32], [2; 32]);
    assert!(!store.has_media(&here).await.unwrap());
    store.keep_media(&here, 3, MediaPlace::Database(b"\0ab")).await.unwrap();
    store.keep_media(&there, 9, MediaPlace::Bucket("https://s3.example.org/attachments")).await.unwrap();
    // What is there stays as it is.
    store.keep_media(&here, 5, MediaPlace::Database(b"other")).await.unwrap();
    store.keep_media(&here, 3, MediaPlace::Bucket("elsewhere")).await.unwrap();
    assert!(store.has_media(&here).await.unwrap() && store.has_media(&there).await.unwrap());
    let mut superuser = database.superuser().await;
    let rows: Vec<(i64, Option<Vec<u8>>, Option<String>)> =
        sqlx::query_as("SELECT size, content, bucket FROM media ORDER BY sha256")
            .fetch_all(&mut superuser)
            .await
            .unwrap();
    let bucket = Some("https://s3.example.org/attachments".to_owned());
    assert_eq!(rows, [(3, Some(b"\0ab".to_vec()), None), (9, None, bucket)]);
}
