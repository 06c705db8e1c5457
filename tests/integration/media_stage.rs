//! What tests of attachments need: uploads, the events that name them, and what became of them.

use std::io::Read as _;

use ems_bots::domain::{
    record::RecordDraft,
    worker::{MediaMode, MediaPolicy},
};
use matrix_sdk_crypto::AttachmentEncryptor;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    matrix_fake::{Fault, Media},
    worker_stage::{Running, Stage, message, sync, until},
};

pub(crate) const CONTENT: MediaPolicy =
    MediaPolicy { mode: MediaMode::Content, maximum_bytes: 10_000, place: None };

pub(crate) async fn stage(media: Option<MediaPolicy>) -> Stage {
    let stage = Stage::set().await;
    stage.instructions.send_modify(|told| told.media = media);
    stage
}

/// What the media repository has under this id.
pub(crate) fn upload(stage: &Stage, id: &str, bytes: &[u8]) {
    let media = Media::Bytes(bytes.to_vec());
    stage.scene.fake.world().media.insert(format!("example.org/{id}"), media);
}

pub(crate) fn plain(event: &str, id: &str) -> Value {
    message(
        event,
        json!({"msgtype": "m.file", "body": "plan.txt", "url": format!("mxc://example.org/{id}"),
        "info": {"mimetype": "text/plain", "size": 1}}),
    )
}

/// A ciphertext, and the event that says how to open it.
pub(crate) fn encrypted(event: &str, id: &str, bytes: &[u8]) -> (Vec<u8>, Value) {
    let mut reader = bytes;
    let mut encryptor = AttachmentEncryptor::new(&mut reader);
    let mut cipher = Vec::new();
    encryptor.read_to_end(&mut cipher).unwrap();
    let mut file = serde_json::to_value(encryptor.finish()).unwrap();
    file["url"] = format!("mxc://example.org/{id}").into();
    (cipher, message(event, json!({"msgtype": "m.file", "body": "secret.txt", "file": file})))
}

pub(crate) fn refuse(stage: &Stage, on: &str, times: u32, status: u16, body: &'static str) {
    let on = on.to_owned();
    stage.scene.fake.world().faults.push(Fault { on, times, status, body, carried_out: false });
}

pub(crate) fn tell(stage: &Stage, since: &str, next: &str, events: &[Value]) {
    stage.scene.fake.world().syncs.insert(since.to_owned(), sync(next, events, None));
}

/// The records of attachments: event, action, reason, hash.
pub(crate) async fn outcomes(stage: &Stage) -> Vec<Value> {
    let mut found = Vec::new();
    for draft in stage.trail().await.iter().filter(|draft| draft.action.starts_with("attachment.")) {
        let event = draft.relations.iter().find(|relation| relation.role == "attached_to");
        let event = event.map(|relation| relation.id.clone());
        found.push(json!([event, draft.action, draft.context.reason, change(draft, "sha256")]));
    }
    found.sort_by_key(Value::to_string);
    found
}

pub(crate) fn change(draft: &RecordDraft, path: &str) -> Option<Value> {
    let path = format!("/attachment/{path}");
    draft.changes.iter().find(|change| change.path == path)?.after.clone()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Waits until so many attachments are recorded.
pub(crate) async fn until_recorded(stage: &Stage, count: usize) -> Vec<Value> {
    // Shorter than the time after which the queue is looked at in any case.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let found = outcomes(stage).await;
        if found.len() >= count {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "only {found:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// The contents in the database: size and bytes.
pub(crate) async fn kept(stage: &Stage) -> Vec<(i64, Option<Vec<u8>>)> {
    let mut superuser = stage.database.superuser().await;
    let rows = sqlx::query_as("SELECT size, content FROM media ORDER BY stored_at");
    rows.fetch_all(&mut superuser).await.unwrap()
}

/// Queues this event's attachment as one that waits for so many days and has failed so often.
pub(crate) async fn queue(stage: &Stage, event: &str, id: &str, days: i32, tries: i32) {
    let wanted = json!({"source_id": format!("matrix:event:{event}"), "number": 0,
        "mxc": format!("mxc://example.org/{id}"), "role": "attached", "event": event, "room": null, "sender": null,
        "name": null, "mimetype": null, "size": null, "file": null});
    sqlx::query(
        "INSERT INTO attachment (seq, wanted, tries, next_try, queued_at)
         VALUES (1, convert_to($1, 'UTF8'), $2, now() - interval '1 hour', now() - make_interval(days => $3))",
    )
    .bind(wanted.to_string())
    .bind(tries)
    .bind(days)
    .execute(&mut stage.database.superuser().await)
    .await
    .unwrap();
}

/// How often the attachments that wait have failed.
pub(crate) async fn tries(stage: &Stage) -> Vec<i32> {
    let mut superuser = stage.database.superuser().await;
    sqlx::query_scalar("SELECT tries FROM attachment ORDER BY id").fetch_all(&mut superuser).await.unwrap()
}

pub(crate) async fn waiting(stage: &Stage) -> i64 {
    let mut superuser = stage.database.superuser().await;
    sqlx::query_scalar("SELECT count(*) FROM attachment").fetch_one(&mut superuser).await.unwrap()
}

pub(crate) async fn until_says(running: &Running, what: &str) {
    until(what, || {
        let message = running.board.get().recording.message;
        message.contains(what).then_some(()).ok_or(message)
    })
    .await;
}
