//! The worker as a whole: what the homeserver tells is in the trail once, in order, whatever is
//! interrupted; it stands still, goes on and ends as the custom resource says.

use ems_bots::{
    domain::{record::Occurred, worker::SuspendCapture},
    store::AuditStore as _,
    worker::recorder::Stop,
};
use serde_json::{Value, json};

use crate::{
    faulty_store::Fault,
    worker_scene::in_time,
    worker_stage::{Running, Stage, message, page, sync, text, until},
};

pub(crate) fn edit(id: &str, of: &str, body: &str) -> Value {
    let mut content = text(body);
    content["m.new_content"] = text(body);
    content["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": of});
    message(id, content)
}

pub(crate) fn redaction(id: &str, of: &str) -> Value {
    json!({"event_id": id, "type": "m.room.redaction", "sender": "@alice:example.org", "redacts": of,
        "origin_server_ts": 1_790_000_000_500_u64, "content": {"redacts": of, "reason": "a slip"}})
}

/// A conversation in two answers of /sync.
fn converse(stage: &Stage) {
    let mut world = stage.scene.fake.world();
    let first = [message("$one", text("first")), message("$two", text("second"))];
    world.syncs.insert(String::new(), sync("s1", &first, None));
    let second = [edit("$three", "$one", "first, corrected"), redaction("$four", "$two")];
    world.syncs.insert("s1".into(), sync("s2", &second, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_recorded_once_wherever_it_is_interrupted() {
    let mut undisturbed = None;
    for fault in [
        None,
        Some(Fault::Unreachable(2)),
        Some(Fault::AnswerLost),
        Some(Fault::KilledBefore),
        Some(Fault::KilledAfter),
    ] {
        let stage = Stage::set().await;
        converse(&stage);
        let running = stage.start(fault.map(|fault| ("s2", fault)));
        if matches!(fault, Some(Fault::KilledBefore | Fault::KilledAfter)) {
            running.killed().await;
            let asked_before = stage.scene.fake.world().asked.len();
            let running = stage.start(None);
            stage.until_asked("s2", 1).await;
            let first = stage.scene.fake.world().asked[asked_before].clone();
            let expected = if fault == Some(Fault::KilledBefore) { "s1" } else { "s2" };
            assert_eq!(first, expected, "{fault:?}: it goes on where the trail stands");
            running.stop().await.unwrap();
        } else {
            stage.until_asked("s2", 1).await;
            running.stop().await.unwrap();
        }
        let records = stage.room_records().await;
        let known = undisturbed.get_or_insert_with(|| records.clone());
        assert_eq!(&records, known, "{fault:?}");
        let shown = Value::from(records).to_string();
        for part in ["first", "second", "first, corrected", "message.edited", "message.redacted"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert_eq!(known.len(), 4, "{known:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_for_that_cannot_be_recorded() {
    let stage = Stage::set().await;
    converse(&stage);
    let running = stage.start(Some(("s1", Fault::Unreachable(3))));
    until("the database is said to be away", || {
        let database = running.board.get().database;
        (database.reason == "DatabaseUnreachable").then_some(()).ok_or(database)
    })
    .await;
    assert_eq!(stage.scene.fake.world().asked, [""], "the first answer waits, and no second is asked for");
    stage.until_asked("s2", 1).await;
    assert_eq!(running.board.get().database.ok, Some(true));
    assert!(running.health.is_ready());
    running.stop().await.unwrap();
    assert_eq!(stage.room_records().await.len(), 4);
}

/// Ten messages of which /sync tells the first two and, after a gap, the last two.
fn with_a_gap(stage: &Stage) {
    let number = |n: u32| message(&format!("$m{n}"), text(&format!("message {n}")));
    let page = |numbers: &[u32], end: &str| {
        let chunk: Vec<Value> = numbers.iter().map(|n| number(*n)).collect();
        json!({"start": "x", "end": end, "chunk": chunk})
    };
    let mut world = stage.scene.fake.world();
    world.syncs.insert(String::new(), sync("s1", &[number(1), number(2)], None));
    world.syncs.insert("s1".into(), sync("s2", &[number(9), number(10)], Some("p3")));
    world.pages.insert("p3".into(), page(&[8, 7, 6], "p2"));
    world.pages.insert("p2".into(), page(&[5, 4, 3], "p1"));
    world.pages.insert("p1".into(), page(&[2, 1], "p0"));
}

async fn numbers(stage: &Stage) -> Vec<String> {
    let mut texts: Vec<_> = stage
        .room_records()
        .await
        .iter()
        .map(|record| record[2].as_str().unwrap().trim_start_matches("message ").to_owned())
        .collect();
    texts.sort_by_key(|text| text.parse::<u32>().unwrap());
    texts
}

/// Of the conversation, not of what was received since.
fn pages_asked(stage: &Stage) -> Vec<String> {
    let asked = stage.scene.fake.world().asked.clone();
    asked.into_iter().filter(|token| token.starts_with('p') && !token.contains(" since ")).collect()
}

/// Waits until the history is read: sync then waits for news again.
async fn until_read(stage: &Stage, running: &Running, last_page: &str) {
    stage.until_asked(last_page, 1).await;
    until("it says that it records", || {
        let recording = running.board.get().recording;
        (recording.ok == Some(true)).then_some(()).ok_or(recording)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_read_back_to_the_last_known_event() {
    let all: Vec<String> = (1..=10).map(|n: u32| n.to_string()).collect();
    for (fault, pages) in [
        (None, vec!["p3", "p2", "p1"]),
        (Some(("p2", Fault::KilledBefore)), vec!["p3", "p3", "p2", "p1"]),
        (Some(("p2", Fault::KilledAfter)), vec!["p3", "p2", "p1"]),
        (Some(("p2", Fault::AnswerLost)), vec!["p3", "p2", "p1"]),
    ] {
        let stage = Stage::set().await;
        with_a_gap(&stage);
        let mut running = stage.start(fault);
        if matches!(fault, Some((_, Fault::KilledBefore | Fault::KilledAfter))) {
            running.killed().await;
            running = stage.start(None);
        }
        until_read(&stage, &running, "p1").await;
        running.stop().await.unwrap();
        assert_eq!(numbers(&stage).await, all, "{fault:?}");
        assert_eq!(pages_asked(&stage), pages, "{fault:?}: it ends at the last known event");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reached_the_homeserver_late_is_recorded_wherever_it_stands_in_the_history() {
    let number = |n: u32| message(&format!("$m{n}"), text(&format!("message {n}")));
    let numbered = |numbers: &[u32]| -> Vec<Value> { numbers.iter().map(|n| number(*n)).collect() };
    let stage = Stage::set().await;
    {
        let mut world = stage.scene.fake.world();
        world.syncs.insert(String::new(), sync("s1", &numbered(&[3, 4]), None));
        world.syncs.insert("s1".into(), sync("s2", &numbered(&[9, 10]), Some("p2")));
        // While the servers were cut off from each other, somebody on the other one said 1, 2 and 5.
        world.pages.insert("p2".into(), page(&numbered(&[8, 7, 6, 5, 4]), "p1"));
        world.pages.insert("p1".into(), page(&numbered(&[3, 2, 1]), "p0"));
        world.pages.insert("p2 since s1".into(), page(&numbered(&[8, 7, 6, 5]), "p1"));
        world.pages.insert("p1 since s1".into(), json!({"start": "x", "chunk": numbered(&[2, 1])}));
    }
    let running = stage.start(None);
    // A look ahead, and the page itself.
    stage.until_asked("p1 since s1", 2).await;
    let all: Vec<String> = (1..=10).map(|n: u32| n.to_string()).collect();
    in_time(async {
        while numbers(&stage).await != all {
            tokio::task::yield_now().await;
        }
    })
    .await;
    running.stop().await.unwrap();
    assert_eq!(pages_asked(&stage), ["p2"], "the conversation is read to the last known event only");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_homeserver_does_not_show_is_a_record() {
    let stage = Stage::set().await;
    with_a_gap(&stage);
    stage.scene.fake.world().pages.remove("p2");
    let running = stage.start(None);
    stage.until_asked("p2", 1).await;
    stage.until_asked("s2", 2).await;
    running.stop().await.unwrap();
    assert_eq!(numbers(&stage).await, ["1", "2", "6", "7", "8", "9", "10"]);
    let trail = stage.trail().await;
    let gaps: Vec<_> = trail.iter().filter(|draft| draft.action == "capture.gap").collect();
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0].context.reason.as_deref().unwrap().contains("M_FORBIDDEN"), "{gaps:?}");
    assert_eq!(pages_asked(&stage), ["p3", "p2"], "it is not asked again and again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_worker_asks_for_nothing_and_goes_on_as_told() {
    for (policy, caught_up) in [(SuspendCapture::Skip, false), (SuspendCapture::CatchUp, true)] {
        let stage = Stage::set().await;
        converse(&stage);
        stage.instructions.send_modify(|told| told.suspend_capture = policy);
        let running = stage.start(None);
        stage.until_asked("s2", 1).await;
        stage.instructions.send_modify(|told| told.suspend = true);
        until("it stands still", || running.board.get().suspended.then_some(()).ok_or(())).await;
        let asked = stage.scene.fake.world().asked.len();
        {
            let mut world = stage.scene.fake.world();
            let meanwhile = [message("$five", text("meanwhile"))];
            world.syncs.insert("s2".into(), sync("s3", &meanwhile, None));
            world.syncs.insert(String::new(), sync("s3", &meanwhile, None));
            let later = [message("$six", text("afterwards"))];
            world.syncs.insert("s3".into(), sync("s4", &later, None));
        }
        // Ten times as long as a sync that finds nothing takes.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        assert_eq!(stage.scene.fake.world().asked.len(), asked, "nothing is asked while it is suspended");
        stage.instructions.send_modify(|told| told.suspend = false);
        stage.until_asked("s4", 1).await;
        assert!(!running.board.get().suspended);
        running.stop().await.unwrap();
        let texts = Value::from(stage.room_records().await).to_string();
        assert_eq!(texts.contains("meanwhile"), caught_up, "{policy:?}: {texts}");
        assert!(texts.contains("afterwards"), "{policy:?}: {texts}");
        let trail = stage.trail().await;
        let span =
            trail.iter().find(|draft| draft.action == "capture.suspended").expect("the span is a record");
        let told = span.changes.iter().find(|change| change.path == "/capture/caughtUp").unwrap();
        assert_eq!(told.after, Some(json!(caught_up)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_is_deleted_while_it_is_suspended_has_that_time_before_its_last_record() {
    let stage = Stage::set().await;
    stage.instructions.send_modify(|told| {
        told.suspend = true;
        told.suspend_capture = SuspendCapture::CatchUp;
    });
    let running = stage.start(None);
    until("it stands still", || running.board.get().suspended.then_some(()).ok_or(())).await;
    running.stop().await.unwrap();
    stage.instructions.send_modify(|told| told.deleting = true);
    for _ in 0..2 {
        let running = stage.start(None);
        until("the trail is closed", || running.board.get().closed.then_some(()).ok_or(())).await;
        running.stop().await.unwrap();
    }
    let trail = stage.trail().await;
    let last: Vec<_> = trail.iter().rev().take(2).map(|draft| draft.action.as_str()).collect();
    assert_eq!(last, ["bot.deleted", "capture.suspended"]);
    let spans: Vec<_> = trail.iter().filter(|draft| draft.action == "capture.suspended").collect();
    assert_eq!(spans.len(), 1, "{spans:#?}");
    assert!(matches!(spans[0].occurred, Occurred::Between(from, to) if from <= to), "{spans:#?}");
    assert_eq!(
        spans[0].context.reason.as_deref(),
        Some("spec.suspend; spec.suspendCapture: CatchUp"),
        "what was configured"
    );
    let told = spans[0].changes.iter().find(|change| change.path == "/capture/caughtUp").unwrap();
    assert_eq!(told.after, Some(json!(false)), "what was done");
    // Another bot of the same name begins anew.
    stage.instructions.send_modify(|told| {
        (told.uid, told.deleting, told.suspend) = ("second-life".to_owned(), false, false);
    });
    let running = stage.start(None);
    stage.until_asked("s1", 1).await;
    running.stop().await.unwrap();
    let trail = stage.trail().await;
    let spans = trail.iter().filter(|draft| draft.action == "capture.suspended").count();
    assert_eq!(spans, 1, "that one was never suspended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deletion_is_the_last_record_of_the_trail() {
    let stage = Stage::set().await;
    converse(&stage);
    let running = stage.start(None);
    stage.until_asked("s2", 1).await;
    stage.instructions.send_modify(|told| told.deleting = true);
    until("the trail is closed", || running.board.get().closed.then_some(()).ok_or(())).await;
    let promised = running.board.get().trail;
    running.stop().await.unwrap();
    // The pod may be started anew before the finalizer goes.
    let again = stage.start(None);
    until("the trail is closed", || again.board.get().closed.then_some(()).ok_or(())).await;
    assert_eq!(again.board.get().trail, promised, "a restart adds nothing");
    again.stop().await.unwrap();
    let trail = stage.trail().await;
    assert_eq!(trail.last().unwrap().action, "bot.deleted");
    assert_eq!(trail.iter().filter(|draft| draft.action == "bot.deleted").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_the_sequencer_any_more_ends() {
    let stage = Stage::set().await;
    converse(&stage);
    let running = stage.start(None);
    stage.until_asked("s2", 1).await;
    stage.database.writer(99).open(None).await.unwrap();
    let next = [message("$five", text("too late"))];
    stage.scene.fake.world().syncs.insert("s2".into(), sync("s3", &next, None));
    assert!(matches!(running.ended().await, Err(Stop::LostSequencer)));
    let records = Value::from(stage.room_records().await).to_string();
    assert!(!records.contains("too late"), "{records}");
}
