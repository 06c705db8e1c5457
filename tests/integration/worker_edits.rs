//! What an edit or a redaction says was there before, wherever its event stands: told by sync, in a gap that
//! is read from the history page by page and newest event first, or behind such a gap.

use ems_bots::{domain::UserId, homeserver::mock::RoomKind};
use serde_json::{Value, json};

use crate::{
    matrix_fake::Fault,
    worker_run::{edit, redaction},
    worker_scene::in_time,
    worker_stage::{ROOM, Running, Stage, message, page, sync, text},
};

/// The event, so many seconds after the first one.
fn at(seconds: u64, mut event: Value) -> Value {
    event["origin_server_ts"] = json!(1_790_000_000_000 + seconds * 1000);
    event
}

/// The homeserver's administrators are shown the event, redacted or not.
fn keep(running: &Running, event: &Value) {
    let creator = UserId::parse("@alice:example.org").unwrap();
    let room = running.homeserver.create_room(&creator, "12", RoomKind::Private);
    let mut event = event.clone();
    event["room_id"] = json!(ROOM);
    let id = event["event_id"].as_str().unwrap().to_owned();
    running.homeserver.world().rooms.get_mut(&room).unwrap().events.insert(id, event);
}

/// The path of the body in the changes of an event's record, and what was there before.
async fn before(stage: &Stage, event: &str) -> Option<(String, Value)> {
    let records = stage.room_records().await;
    let record = records.iter().find(|record| record[0] == format!("matrix:event:{event}"))?;
    let changes = record[3].as_array().unwrap();
    let body = changes.iter().find(|change| change[0].as_str().unwrap().ends_with("/body"));
    let body = body.unwrap_or_else(|| panic!("{record} does not say what was there before"));
    Some((body[0].as_str().unwrap().to_owned(), body[1].clone()))
}

async fn until_recorded(stage: &Stage, events: &[&str]) {
    in_time(async {
        loop {
            let records = Value::from(stage.room_records().await).to_string();
            if events.iter().all(|event| records.contains(&format!("matrix:event:{event}\""))) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn certain(body: &str) -> (String, Value) {
    ("/content/body".to_owned(), json!(body))
}

fn unknown() -> (String, Value) {
    ("/content/body".to_owned(), Value::Null)
}

fn original() -> Value {
    at(1, message("$original", text("first")))
}

/// Newest first: two edits by Alice, and one between them by somebody else.
fn edits() -> Vec<Value> {
    let mut forged = at(3, edit("$forged", "$original", "forged"));
    forged["sender"] = json!("@mallory:example.org");
    vec![at(4, edit("$edit2", "$original", "third")), forged, at(2, edit("$edit1", "$original", "second"))]
}

/// A gap of two pages, of which the newer one has so many events.
async fn with_gap(events: &[Value], newer: usize) -> (Stage, Running) {
    let stage = Stage::set().await;
    stage.scene.fake.world().syncs.insert(String::new(), sync("s1", &[message("$known", text("x"))], None));
    let running = stage.start(None);
    stage.until_asked("s1", 1).await;
    keep(&running, &original());
    {
        let mut world = stage.scene.fake.world();
        let mut older = events[newer..].to_vec();
        older.push(message("$known", text("x")));
        world.pages.insert("p2".into(), page(&events[..newer], "p1"));
        world.pages.insert("p1".into(), page(&older, "p0"));
        world.syncs.insert("s1".into(), sync("s2", &[at(9, message("$news", text("y")))], Some("p2")));
    }
    until_recorded(&stage, &["$original", "$edit1", "$edit2", "$forged", "$news"]).await;
    (stage, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_in_a_gap_replaces_the_one_before_it_wherever_the_pages_end() {
    for newer in 0..=4 {
        let mut events = edits();
        events.push(original());
        let (stage, running) = with_gap(&events, newer).await;
        running.stop().await.unwrap();
        assert_eq!(before(&stage, "$edit1").await, Some(certain("first")), "{newer}");
        assert_eq!(before(&stage, "$edit2").await, Some(certain("second")), "{newer}");
        let records = Value::from(stage.room_records().await).to_string();
        assert_eq!(records.matches("message.edit_ignored").count(), 1, "{newer}: {records}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redaction_in_a_gap_takes_the_last_edit_or_says_that_it_may_not_be_the_last() {
    // Of a redacted event the homeserver tells no edits: what stands on the other page is not known.
    let doubtful = ("/known_content/body".to_owned(), json!("first"));
    let expected = [
        (0, [certain("first"), certain("second"), certain("third")]),
        (1, [certain("first"), certain("second"), doubtful]),
        (2, [certain("first"), unknown(), certain("third")]),
        (3, [certain("first"), unknown(), certain("third")]),
        (4, [unknown(), certain("second"), certain("third")]),
        (5, [certain("first"), certain("second"), certain("third")]),
    ];
    for (newer, expected) in expected {
        let mut events = vec![at(5, redaction("$redaction", "$original"))];
        events.extend(edits());
        let mut emptied = at(1, message("$original", json!({})));
        emptied["unsigned"] = json!({"redacted_because": {"event_id": "$redaction"}});
        events.push(emptied);
        let (stage, running) = with_gap(&events, newer).await;
        until_recorded(&stage, &["$redaction"]).await;
        running.stop().await.unwrap();
        for (event, expected) in ["$edit1", "$edit2", "$redaction"].into_iter().zip(expected) {
            assert_eq!(before(&stage, event).await, Some(expected), "{event}, {newer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_does_not_replace_one_that_followed_it_and_was_recorded_before() {
    for is_told in [true, false] {
        let stage = Stage::set().await;
        let last = at(1, message("$last", text("x")));
        {
            let mut world = stage.scene.fake.world();
            world.syncs.insert(String::new(), sync("s1", &[original(), last.clone()], None));
            let news = at(9, edit("$edit3", "$original", "fourth"));
            world.syncs.insert("s1".into(), sync("s2", &[news], Some("p2")));
            let edits = edits();
            world.pages.insert("p2".into(), page(&edits[..2], "p1"));
            world.pages.insert("p1".into(), page(&[edits[2].clone(), last], "p0"));
            if !is_told {
                let body = r#"{"errcode": "M_FORBIDDEN", "error": "not in the room"}"#;
                let on = "/m.replace".to_owned();
                world.faults.push(Fault { on, times: u32::MAX, status: 403, body, carried_out: false });
            }
        }
        let running = stage.start(None);
        until_recorded(&stage, &["$edit1", "$edit2", "$edit3"]).await;
        running.stop().await.unwrap();
        let told = |body| if is_told { certain(body) } else { unknown() };
        assert_eq!(before(&stage, "$edit1").await, Some(certain("first")), "nothing was left to be read");
        assert_eq!(before(&stage, "$edit2").await, Some(told("second")));
        assert_eq!(before(&stage, "$edit3").await, Some(told("third")), "the gap was not read yet");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_since_is_certain_while_older_history_is_unread() {
    let stage = Stage::set().await;
    {
        let mut world = stage.scene.fake.world();
        let body = "";
        let on = "/messages".to_owned();
        world.faults.push(Fault { on, times: u32::MAX, status: 502, body, carried_out: false });
        let old = at(0, message("$old", text("old")));
        world.syncs.insert(String::new(), sync("s1", &[old], Some("p1")));
        let edits = edits();
        world.syncs.insert("s1".into(), sync("s2", &[original()], None));
        world.syncs.insert("s2".into(), sync("s3", &edits[2..], None));
        world.syncs.insert("s3".into(), sync("s4", &edits[..1], None));
        let redacted = at(5, redaction("$redaction", "$original"));
        world.syncs.insert("s4".into(), sync("s5", &[redacted], None));
    }
    let running = stage.start(None);
    until_recorded(&stage, &["$redaction"]).await;
    running.stop().await.unwrap();
    assert_eq!(before(&stage, "$edit1").await, Some(certain("first")));
    assert_eq!(before(&stage, "$edit2").await, Some(certain("second")));
    assert_eq!(before(&stage, "$redaction").await, Some(certain("third")));
    assert_eq!(stage.scene.fake.count("m.replace"), 0, "nobody need be asked");
}
