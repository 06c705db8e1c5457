//! A running worker whose homeserver fails, limits, hangs or forgets: capture says so, waits, goes on,
//! and loses nothing.

use std::time::Duration;

use ems_bots::{
    domain::{Localpart, RoomId, UserId, record::RecordDraft, worker::Check},
    homeserver::{HomeserverError, mock::RoomKind},
    store::AuditStore as _,
};
use serde_json::{Value, json};

use crate::{
    matrix_fake::{Fault, HANGS},
    worker_stage::{ROOM, Running, Stage, ciphertext, message, page, sync, sync_of, text, until},
};

const BAD: &str = "!bad:example.org";
const LIMITED: &str = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x","retry_after_ms":700}"#;

/// A homeserver that is away, one behind something that knows no way to it, and one that is busy.
const FAILURES: [(u16, &str, &str); 3] =
    [(502, "<html>", "502"), (404, "<html>", "404"), (429, LIMITED, "limits the rate")];

/// So often a page fails. One that is busy for every room lets the others go on between two attempts only.
fn attempts(status: u16) -> u32 {
    if status == 429 { 8 } else { 4 }
}

fn fail(stage: &Stage, on: &str, times: u32, status: u16, body: &'static str) {
    let fault = Fault { on: on.to_owned(), times, status, body, carried_out: false };
    stage.scene.fake.world().faults.push(fault);
}

fn says(events: &[(&str, &str)]) -> Vec<Value> {
    events.iter().map(|(id, body)| message(id, text(body))).collect()
}

async fn texts(stage: &Stage) -> Vec<String> {
    let mut texts: Vec<_> = stage.trail().await.into_iter().filter_map(|draft| draft.text).collect();
    texts.retain(|text| text.starts_with("text "));
    texts.sort();
    texts
}

async fn until_recording(running: &Running, what: &str, seen: impl Fn(&Check) -> bool) {
    until(what, || {
        let recording = running.board.get().recording;
        seen(&recording).then_some(()).ok_or(recording)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_is_told_and_tried_again() {
    for (status, body, why) in FAILURES {
        let stage = Stage::set().await;
        {
            let mut world = stage.scene.fake.world();
            world.syncs.insert(String::new(), sync("s1", &says(&[("$1", "text 1")]), None));
            world.syncs.insert("s1".into(), sync("s2", &says(&[("$2", "text 2")]), None));
        }
        fail(&stage, "/sync", 2, status, body);
        let running = stage.start(None);
        until_recording(&running, "it says that sync fails", |recording| {
            recording.ok == Some(false)
                && recording.reason == "SyncFailing"
                && recording.message.contains(why)
        })
        .await;
        assert_eq!(texts(&stage).await, [""; 0]);
        until_recording(&running, "it says that sync works", |recording| recording.ok == Some(true)).await;
        stage.until_asked("s2", 1).await;
        running.stop().await.unwrap();
        assert_eq!(texts(&stage).await, ["text 1", "text 2"], "{status}");
    }
}

/// A room with a history of three pages, and one with a page that its test makes fail.
fn with_two_histories(stage: &Stage) {
    let mut world = stage.scene.fake.world();
    let (good, bad) = (says(&[("$g4", "text g4")]), says(&[("$b2", "text b2")]));
    let first = sync_of("s1", &[(ROOM, &good, Some("g3")), (BAD, &bad, Some("b1"))]);
    world.syncs.insert(String::new(), first);
    for number in (1..=3).rev() {
        let event = says(&[(&format!("$g{number}"), &format!("text g{number}"))]);
        world.pages.insert(format!("g{number}"), page(&event, &format!("g{}", number - 1)));
    }
    world.pages.insert("g0".into(), json!({"start": "x", "chunk": []}));
    world.pages.insert("b1".into(), json!({"start": "x", "chunk": says(&[("$b1", "text b1")])}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_fails_holds_up_neither_news_nor_other_rooms() {
    for (status, body, why) in FAILURES {
        let stage = Stage::set().await;
        with_two_histories(&stage);
        fail(&stage, &format!("rooms/{BAD}/messages"), attempts(status), status, body);
        let running = stage.start(None);
        stage.until_asked("g0", 1).await;
        assert!(!stage.scene.fake.world().asked.contains(&"b1".to_owned()), "it is not answered yet");
        let news = sync("s2", &says(&[("$g5", "text g5")]), None);
        stage.scene.fake.world().syncs.insert("s1".into(), news);
        until_recording(&running, "it says which source waits", |recording| {
            recording.ok == Some(true)
                && recording.message.contains("rooms: on")
                && recording.message.contains("history: lagging: waits")
                && recording.message.contains(why)
        })
        .await;
        stage.until_asked("b1", 1).await;
        until_recording(&running, "all is well", |recording| recording.message.contains("history: on")).await;
        stage.until_asked("s2", 1).await;
        running.stop().await.unwrap();
        let all = ["b1", "b2", "g1", "g2", "g3", "g4", "g5"].map(|name| format!("text {name}"));
        assert_eq!(texts(&stage).await, all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_hangs_holds_up_neither_news_nor_the_end() {
    let stage = Stage::set().await;
    with_two_histories(&stage);
    fail(&stage, &format!("rooms/{BAD}/messages"), 1, HANGS, "");
    let running = stage.start(None);
    until("the page is asked for", || {
        (stage.scene.fake.count(&format!("rooms/{BAD}/messages")) > 0).then_some(()).ok_or(())
    })
    .await;
    let news = sync("s2", &says(&[("$g5", "text g5")]), None);
    stage.scene.fake.world().syncs.insert("s1".into(), news);
    stage.until_asked("s2", 1).await;
    fail(&stage, "/sync", 1, HANGS, "");
    until("sync hangs, too", || {
        let left = stage.scene.fake.world().faults.iter().map(|fault| fault.times).sum::<u32>();
        (left == 0).then_some(()).ok_or(left)
    })
    .await;
    tokio::time::timeout(Duration::from_secs(10), running.stop()).await.expect("it waits").unwrap();
    assert!(texts(&stage).await.contains(&"text g5".to_owned()));
    // What was not read is read after the next start.
    let again = stage.start(None);
    stage.until_asked("b1", 1).await;
    until_recording(&again, "all is well", |recording| recording.message.contains("history: on")).await;
    stage.until_asked("g0", 1).await;
    again.stop().await.unwrap();
    assert!(texts(&stage).await.contains(&"text b1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edit_replaces_is_asked_for_again_while_the_homeserver_is_away() {
    let stage = Stage::set().await;
    let running = stage.start(None);
    stage.until_asked("", 1).await;
    let (creator, homeserver) = (UserId::parse("@alice:example.org").unwrap(), &running.homeserver);
    homeserver.add_user(&Localpart::parse("alice").unwrap(), false);
    let room = homeserver.create_room(&creator, "12", RoomKind::Private);
    let edited = |id: &str, of: &str| {
        let mut content = text("after");
        content["m.new_content"] = text("after");
        content["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": of});
        message(id, content)
    };
    let strange = "$../../strange";
    for id in ["$old", strange] {
        let mut original = message(id, text("before"));
        original["room_id"] = json!(ROOM);
        homeserver.world().rooms.get_mut(&room).unwrap().events.insert(id.to_owned(), original);
    }
    let failures: [fn() -> HomeserverError; 3] = [
        || HomeserverError::Server { status: 502, what: "an event" },
        || HomeserverError::Server { status: 500, what: "an event" },
        || HomeserverError::Unreachable { host: "x".to_owned(), problem: "broken connection".to_owned() },
    ];
    for (nth, failure) in (1..).zip(failures) {
        homeserver.fail("fetch_event", nth, failure);
    }
    stage.scene.fake.world().syncs.insert("s1".into(), sync("s2", &[edited("$1", "$old")], None));
    stage.until_asked("s2", 1).await;
    // Somebody made this one up, so that something on the way does not like it.
    homeserver.fail("fetch_event", 1, || HomeserverError::Server { status: 502, what: "an event" });
    stage.scene.fake.world().syncs.insert("s2".into(), sync("s3", &[edited("$2", strange)], None));
    stage.until_asked("s3", 1).await;
    running.stop().await.unwrap();
    let trail = stage.trail().await;
    let before = ["$1", "$2"].map(|event| record(&trail, event).changes[0].before.clone());
    assert_eq!(before, [Some(json!("before")), None]);
}

fn record<'a>(trail: &'a [RecordDraft], event: &str) -> &'a RecordDraft {
    trail.iter().find(|draft| draft.source_id == format!("matrix:event:{event}")).expect(event)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_after_a_lost_volume_leaves_nothing_out_and_takes_no_ciphertext_for_plain() {
    let stage = Stage::first().await;
    {
        let mut world = stage.scene.fake.world();
        let (known, gone) = (says(&[("$1", "text 1")]), says(&[("$2", "text 2")]));
        let first = sync_of("s1", &[(ROOM, &known, Some("p1")), (BAD, &gone, Some("p2"))]);
        world.syncs.insert(String::new(), first);
    }
    // Of the history nothing is read before the volume is lost.
    fail(&stage, "/messages", u32::MAX, 502, "");
    let running = stage.start(None);
    stage.until_asked("s1", 1).await;
    running.stop().await.unwrap();
    stage.scene.lose_volume();
    {
        let mut world = stage.scene.fake.world();
        world.faults.clear();
        // Nothing happens between the new device's look at its rooms and its sync at the cursor. One of
        // the rooms it is not in any more.
        world.syncs.insert(String::new(), sync("s2", &says(&[("$3", "text 3")]), None));
        world.syncs.insert("s1".into(), sync("s2", &says(&[("$3", "text 3")]), None));
        world.pages.insert("p1".into(), json!({"start": "x", "chunk": [ciphertext("$c1")]}));
        world.pages.insert("p2".into(), json!({"start": "x", "chunk": [ciphertext("$c2")]}));
    }
    let running = stage.start(None);
    stage.until_asked("s2", 1).await;
    stage.until_asked("p1", 1).await;
    stage.until_asked("p2", 1).await;
    until_recording(&running, "all is read", |recording| recording.ok == Some(true)).await;
    running.stop().await.unwrap();
    assert_eq!(stage.scene.fake.devices(), ["EMS-1", "EMS-2"], "it is another device");
    assert_eq!(texts(&stage).await, ["text 1", "text 2", "text 3"]);
    let trail = stage.trail().await;
    let reasons = ["$c1", "$c2"].map(|event| record(&trail, event).undecryptable_reason.clone());
    assert_eq!(reasons, [Some("before_join".to_owned()), Some("missing_key".to_owned())]);
    let store = stage.database.writer(99);
    for (room, event) in [(ROOM, "$c1"), (BAD, "$c2")] {
        let waiting = store.pending(&RoomId::parse(room).unwrap(), None, 10).await.unwrap().events;
        let ids: Vec<_> = waiting.iter().map(|event| event.event_id.as_str()).collect();
        assert_eq!(ids, [event], "it is tried again when keys come");
    }
}
