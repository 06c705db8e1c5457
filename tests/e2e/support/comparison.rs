//! A trail beside what the homeserver has, and what it told its clients: is everything there, once, and right?

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::{
    LocalWorker, Synapse,
    ledger::{Ledger, Said},
    services::urlencode,
    sql,
    whole_trail::{self, Entry, WholeTrail},
};

/// Identifier, type and room of every event that the homeserver has.
pub fn events_of(synapse: &Synapse) -> Vec<[String; 3]> {
    let query = "SELECT event_id, type, room_id FROM events WHERE NOT outlier AND rejection_reason IS NULL";
    let rows = sql::sql(&format!("synapse-{}", synapse.name), query);
    rows.lines()
        .map(|row| row.split('|').map(str::to_owned).collect::<Vec<_>>().try_into().expect("three columns"))
        .collect()
}

/// How many of them the trail does not have, after it was read again.
pub async fn missing(trail: &mut WholeTrail, worker: &LocalWorker, synapse: &Synapse) -> usize {
    trail.read_on(worker).await;
    events_of(synapse).iter().filter(|[id, ..]| trail.of_event(id).is_empty()).count()
}

/// What the worker has put off: events that miss their key, and spans of history.
pub fn waiting(worker: &LocalWorker) -> i64 {
    worker.count(
        "SELECT (SELECT count(*) FROM auditbot.pending) + (SELECT count(*) FROM auditbot.cursor \
         WHERE name LIKE 'matrix:history:%' AND value <> '[]'::bytea)",
    )
}

/// Why events have no plaintext: reason, Megolm session, and how many; then the messages to the bot's device that could not
/// be read. A key that is missing without such a message was never given.
pub fn without_key(worker: &LocalWorker) -> String {
    let session = "convert_from(raw, 'UTF8')::jsonb->'content'->>'session_id'";
    let query = format!("SELECT reason, {session}, count(*) FROM auditbot.pending GROUP BY 1, 2");
    let log = worker.log();
    let unread = log.lines().filter(|line| line.contains("to the bot's device cannot be decrypted"));
    let rows = sql::sql(&worker.database, &query);
    rows.lines().chain(unread).collect::<Vec<_>>().join("\n   ")
}

/// Everything that is wrong with a trail that has caught up, its chain included; the first of it is printed. `around` says
/// what happened around a time since the ledger was opened.
pub async fn all_wrong(
    ledger: &Ledger,
    synapse: &Synapse,
    worker: &LocalWorker,
    trail: &WholeTrail,
    around: impl Fn(Duration) -> String,
) -> Vec<String> {
    let mut wrong = compare(ledger, synapse, trail, around);
    wrong.extend(whole_trail::verify(worker));
    wrong.extend(unread(synapse, worker).await);
    for what in wrong.iter().take(40) {
        println!("!! {what}");
    }
    wrong
}

/// What of the events is wrong in the trail; `around` says what happened around a time.
fn compare(
    ledger: &Ledger,
    synapse: &Synapse,
    trail: &WholeTrail,
    around: impl Fn(Duration) -> String,
) -> Vec<String> {
    let (accepted, there) = (ledger.events(), events_of(synapse));
    let known: BTreeSet<&str> = there.iter().map(|[id, ..]| id.as_str()).collect();
    let mut wrong = Vec::new();
    for [id, kind, room] in &there {
        let times = trail.of_event(id).len();
        if times != 1 {
            let near = accepted.get(id).map(|event| {
                format!("accepted at {:.2?}: {:?}{}", event.after, event.said, around(event.after))
            });
            wrong.push(format!("{times} times: {id} ({kind} in {room}) {}", near.unwrap_or_default()));
        }
    }
    for id in trail.events.keys().chain(trail.plaintexts.keys()).chain(accepted.keys()) {
        if !known.contains(id.as_str()) {
            wrong.push(format!("the homeserver does not know {id}"));
        }
    }
    for (id, event) in accepted.iter().filter(|(id, _)| trail.of_event(id).len() == 1) {
        if let Some(what) = wrong_in(&event.said, trail.of_event(id), trail.of_plaintext(id)) {
            let near = around(event.after);
            wrong.push(format!("{what}: {id} accepted at {:.2?}: {:?}{near}", event.after, event.said));
        }
    }
    wrong
}

/// From the cursor on there is nothing new.
async fn unread(synapse: &Synapse, worker: &LocalWorker) -> Vec<String> {
    let cursor = "SELECT convert_from(value, 'UTF8') FROM auditbot.cursor WHERE name = 'matrix:sync'";
    let cursor = sql::sql(&worker.database, cursor);
    let path = format!("/_synapse/admin/v1/users/{}/login", urlencode(&worker.user_id));
    let (_, puppet) = synapse.admin("POST", &path, Some(json!({}))).await;
    let path = format!("/_matrix/client/v3/sync?timeout=0&since={}", urlencode(&cursor));
    let (status, news) = synapse.request("GET", &path, puppet["access_token"].as_str().unwrap(), None).await;
    assert_eq!(status, 200, "{news}");
    let rooms = news["rooms"]["join"].as_object().into_iter().flatten();
    let events = rooms.flat_map(|(_, room)| room["timeline"]["events"].as_array().into_iter().flatten());
    events.map(|event| format!("after the cursor: {}", event["event_id"])).collect()
}

/// What a record does not say of its event.
fn wrong_in(said: &Said, events: &[Entry], plaintexts: &[Entry]) -> Option<&'static str> {
    let both = || events.iter().chain(plaintexts);
    let says = |entry: &&Entry, body: &str| entry.text.as_deref() == Some(body);
    let once = |body: &str| both().filter(|entry| says(entry, body)).count() == 1;
    let edited = |body: &str| {
        let edits = both().filter(|entry| entry.action == "message.edited");
        let shown = edits.filter_map(|entry| entry.body.as_ref());
        let whole = |(before, after): &&(Option<Value>, Option<Value>)| {
            before.as_ref().is_some_and(Value::is_string) && *after == Some(json!(body))
        };
        shown.filter(whole).count() == 1
    };
    let twice = plaintexts.len() > 1;
    let wrong = |fine: bool, what| (!fine).then_some(what);
    match said {
        _ if twice => Some("its plaintext is there more than once"),
        Said::Plain(body) => wrong(once(body), "the record has another text"),
        Said::Encrypted(body) => wrong(once(body), "its plaintext is not there exactly once"),
        Said::Edit(body) | Said::EncryptedEdit(body) => {
            wrong(edited(body), "the edit is not there with before and after exactly once")
        }
        Said::Doomed | Said::Other(_) => None,
    }
}
