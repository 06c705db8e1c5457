//! What tests of the survey need: what an admin API shows, and what was recorded of it.

use std::sync::Arc;

use ems_bots::{
    domain::{ServerName, record::RecordDraft},
    homeserver::{
        AccountFacts, Connect as _, MediaUpload, Report, SessionFacts,
        mock::{Inspection, MockHomeserver},
    },
};
use serde_json::{Value, json};

use crate::worker_stage::{Running, Stage, until};

pub(crate) const ALICE: &str = "@alice:example.org";
pub(crate) const BOB: &str = "@bob:example.org";
pub(crate) const CAROL: &str = "@carol:example.org";

/// A worker, and the homeserver whose admin API it looks at.
pub(crate) async fn stage() -> (Stage, MockHomeserver) {
    let shown = MockHomeserver::new(ServerName::parse("example.org").unwrap());
    let root = shown.add_user(&"root".parse().unwrap(), true);
    let mut stage = Stage::set().await;
    stage.inspect = Some(Arc::from(shown.inspect(root)));
    (stage, shown)
}

pub(crate) fn show(shown: &MockHomeserver, change: impl FnOnce(&mut Inspection)) {
    change(&mut shown.world().inspection);
}

pub(crate) fn account(user: &str, facts: &Value) -> AccountFacts {
    let facts = facts.as_object().unwrap().clone();
    AccountFacts { user: user.to_owned(), facts, created_ms: Some(1_780_000_000_000), last_seen_ms: Some(1) }
}

pub(crate) fn session(device: &str, ip: &str) -> SessionFacts {
    let some = |text: &str| Some(text.to_owned());
    SessionFacts { device: device.to_owned(), name: some("phone"), ip: some(ip), user_agent: some("Client") }
}

/// Waits until everything was looked at once more, completely.
pub(crate) async fn looked(shown: &MockHomeserver) {
    // The first of these looks may have begun before the test changed what is shown.
    let calls = ["accounts", "uploaders", "quarantine", "event_reports", "user_reports", "server"];
    let before = calls.map(|call| shown.count(call));
    until("everything is looked at", || {
        let since: Vec<usize> = calls.iter().zip(before).map(|(call, old)| shown.count(call) - old).collect();
        if since.iter().all(|count| *count >= 6) { Ok(()) } else { Err(since) }
    })
    .await;
}

/// Records of looks since the one with this number, by action.
pub(crate) async fn seen(stage: &Stage, prefixes: &[&str]) -> Vec<RecordDraft> {
    let mut records = stage.trail().await;
    records.retain(|record| prefixes.iter().any(|prefix| record.action.starts_with(prefix)));
    records
}

pub(crate) fn actions(records: &[RecordDraft]) -> Vec<(&str, &str)> {
    let person = |record: &RecordDraft| record.subjects.first().map(|subject| subject.person.clone());
    let mut all: Vec<_> = records
        .iter()
        .map(|record| {
            let person = match person(record).as_deref() {
                Some(ALICE) => "alice",
                Some(BOB) => "bob",
                Some(CAROL) => "carol",
                _ => "",
            };
            (record.action.as_str(), person)
        })
        .collect();
    all.sort_unstable();
    all
}

pub(crate) async fn recording_says(running: &Running, words: &str) {
    until(words, || {
        let message = running.board.get().recording.message;
        if message.contains(words) { Ok(()) } else { Err(message) }
    })
    .await;
}

pub(crate) fn upload(media: &str, created_ms: i64) -> MediaUpload {
    MediaUpload {
        media: media.to_owned(),
        created_ms,
        content_type: Some("image/png".into()),
        length: Some(7),
        name: Some(format!("{media}.png")),
        is_preview: false,
    }
}

pub(crate) fn report(id: i64, reporter: &str) -> Report {
    Report {
        id,
        received_ms: Some(1_790_000_000_000 + id),
        reporter: reporter.to_owned(),
        reason: Some("rude".into()),
        room: None,
        event: Some("$e".into()),
        reported: Some(BOB.into()),
        raw: json!({"id": id}),
    }
}
