//! History is read beside what happens: how far it is stands in the report, and it goes on after a crash.

use std::time::Duration;

use ems_bots::domain::worker::HistoryProgress;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    faulty_store::Fault as StoreFault,
    matrix_fake::Fault,
    worker_run::edit,
    worker_scene::in_time,
    worker_stage::{Running, Stage, message, page, sync, text, until},
};

const FIRST: i64 = 1_790_000_000;

/// A message so many seconds after the first one.
fn said(seconds: i64, id: &str) -> Value {
    let mut event = message(id, text(&format!("text {id}")));
    event["origin_server_ts"] = json!((FIRST + seconds) * 1000);
    event
}

async fn until_read(running: &Running, remaining: u64, events: u64, reached: Option<i64>) {
    let reached = reached.map(|seconds| Timestamp::from_second(FIRST + seconds).unwrap());
    let expected = Some(HistoryProgress { remaining, rooms: remaining, events, reached });
    until("history is read as far as this", || {
        let history = running.board.get().history;
        if history == expected { Ok(()) } else { Err(history) }
    })
    .await;
}

/// A room of which sync tells the last message, with a history of three pages.
fn with_history(stage: &Stage) {
    let mut world = stage.scene.fake.world();
    world.syncs.insert(String::new(), sync("s1", &[said(9, "$9")], Some("p3")));
    world.pages.insert("p3".into(), page(&[said(8, "$8"), said(7, "$7")], "p2"));
    world.pages.insert("p2".into(), page(&[said(5, "$5")], "p1"));
    world.pages.insert("p1".into(), json!({"start": "x", "chunk": [said(2, "$2"), said(1, "$1")]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_several_pages_shows_how_far_it_is_read_also_after_a_crash() {
    let stage = Stage::set().await;
    with_history(&stage);
    // One page is recorded, and with the next one the process dies.
    stage.start(Some(("p1", StoreFault::KilledBefore))).killed().await;
    let on = "/messages".to_owned();
    let away = Fault { on, times: u32::MAX, status: 502, body: "", carried_out: false };
    stage.scene.fake.world().faults.push(away);
    let running = stage.start(None);
    until_read(&running, 1, 2, Some(7)).await;
    stage.scene.fake.world().faults.clear();
    until_read(&running, 0, 5, None).await;
    running.stop().await.unwrap();
    let records = stage.room_records().await;
    let mut texts: Vec<_> = records.iter().map(|record| record[2].as_str().unwrap()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["text $1", "text $2", "text $5", "text $7", "text $8", "text $9"]);
}

/// The records of these events, in this order, once they are there.
async fn recorded(stage: &Stage, events: &[&str]) -> Vec<Value> {
    in_time(async {
        loop {
            let records = stage.room_records().await;
            let of = |event: &&str| {
                let id = json!(format!("matrix:event:{event}"));
                records.iter().find(|record| record[0] == id).cloned()
            };
            if let Some(found) = events.iter().map(of).collect() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

fn edited(seconds: i64, id: &str, of: &str) -> Value {
    let mut event = edit(id, of, &format!("text {id}"));
    event["origin_server_ts"] = json!((FIRST + seconds) * 1000);
    event
}

/// What an edit says was there before.
fn before(record: &Value) -> &Value {
    let changes = record[3].as_array().unwrap();
    &changes.iter().find(|change| change[0] == "/content/body").expect("it says what was there before")[1]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_waits_for_the_homeserver_holds_up_no_news_and_stays_unread_for_them() {
    let stage = Stage::set().await;
    stage.scene.fake.world().syncs.insert(String::new(), sync("s1", &[said(1, "$1")], None));
    let running = stage.start(None);
    stage.until_asked("s1", 1).await;
    // What an edit of the page replaces nobody can tell for a long time.
    running.homeserver.delay_answers("fetch_event", Duration::from_hours(1));
    {
        let mut world = stage.scene.fake.world();
        let gap = [edited(3, "$3", "$unknown"), edited(2, "$2", "$1"), said(1, "$1")];
        world.pages.insert("p1".into(), page(&gap, "p0"));
        world.syncs.insert("s1".into(), sync("s2", &[said(9, "$9")], Some("p1")));
    }
    waits_for_an_event(&running).await;
    let news = sync("s3", &[edited(10, "$10", "$1"), said(11, "$11")], None);
    stage.scene.fake.world().syncs.insert("s2".into(), news);
    let news = recorded(&stage, &["$10", "$11"]).await;
    assert_eq!(before(&news[0]), "text $2", "it is known by then that the page is not recorded");
    let records = Value::from(stage.room_records().await).to_string();
    assert!(!records.contains("matrix:event:$2") && !records.contains("matrix:event:$3"), "{records}");
    running.stop().await.unwrap();
    let again = stage.start(None);
    let history = recorded(&stage, &["$2", "$3"]).await;
    assert_eq!(before(&history[0]), "text $1");
    until_read(&again, 0, 3, None).await;
    again.stop().await.unwrap();
    let records = stage.room_records().await;
    assert_eq!(records.len(), 6, "each event once: {records:?}");
}

/// More than a batch takes, newest first.
fn many(second: i64) -> Vec<Value> {
    let large = |number: u32| {
        let mut event = said(second, &format!("$large{number}"));
        event["content"] = text(&"x".repeat(60_000));
        event
    };
    (0..80).map(large).collect()
}

async fn waits_for_an_event(running: &Running) {
    until("the page waits", || {
        let asked = running.homeserver.count("fetch_event");
        (asked > 0).then_some(()).ok_or(asked)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_half_of_a_large_page_never_passes_for_the_newest_of_it() {
    let stage = Stage::set().await;
    stage.scene.fake.world().syncs.insert(String::new(), sync("s1", &[said(1, "$1")], None));
    let running = stage.start(None);
    stage.until_asked("s1", 1).await;
    running.homeserver.delay_answers("fetch_event", Duration::from_hours(1));
    {
        let mut world = stage.scene.fake.world();
        let mut gap = vec![edited(5, "$5", "$unknown"), edited(4, "$4", "$1")];
        gap.extend(many(3));
        gap.extend([edited(2, "$2", "$1"), said(1, "$1")]);
        world.pages.insert("p1".into(), page(&gap, "p0"));
        world.syncs.insert("s1".into(), sync("s2", &[said(9, "$9")], Some("p1")));
    }
    waits_for_an_event(&running).await;
    let news = sync("s3", &[edited(10, "$10", "$1")], None);
    stage.scene.fake.world().syncs.insert("s2".into(), news);
    let news = recorded(&stage, &["$10"]).await;
    assert_eq!(before(&news[0]), "text $4");
    assert_eq!(stage.room_records().await.len(), 3, "nothing of the page is recorded");
    running.stop().await.unwrap();
    let again = stage.start(None);
    until_read(&again, 0, 84, None).await;
    again.stop().await.unwrap();
    let history = recorded(&stage, &["$2", "$4"]).await;
    assert_eq!([before(&history[0]), before(&history[1])], ["text $1", "text $2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_page_is_recorded_once_when_the_worker_dies_before_its_last_part() {
    let stage = Stage::set().await;
    {
        let mut world = stage.scene.fake.world();
        let mut newest = vec![said(4, "$4")];
        newest.extend(many(3));
        newest.push(said(2, "$2"));
        world.syncs.insert(String::new(), sync("s1", &[said(9, "$9")], Some("p2")));
        world.pages.insert("p2".into(), page(&newest, "p1"));
        world.pages.insert("p1".into(), json!({"start": "x", "chunk": [said(1, "$1")]}));
    }
    stage.start(Some(("p1", StoreFault::KilledBefore))).killed().await;
    let records = Value::from(stage.room_records().await).to_string();
    assert!(records.contains("matrix:event:$2\""), "the first part is there");
    assert!(!records.contains("matrix:event:$4\""), "and not the one with the cursor");
    let running = stage.start(None);
    until_read(&running, 0, 83, None).await;
    running.stop().await.unwrap();
    assert_eq!(stage.room_records().await.len(), 84, "each event once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_parts_of_a_gap_have_is_counted_once() {
    let stage = Stage::set().await;
    {
        let mut world = stage.scene.fake.world();
        world.syncs.insert(String::new(), sync("s1", &[said(1, "$1")], None));
        world.syncs.insert("s1".into(), sync("s2", &[said(9, "$9")], Some("p1")));
        world.pages.insert("p1".into(), page(&[said(3, "$3"), said(2, "$2"), said(1, "$1")], "p0"));
        let received = json!({"start": "x", "chunk": [said(3, "$3"), said(2, "$2"), said(0, "$late")]});
        world.pages.insert("p1 since s1".into(), received);
    }
    let running = stage.start(None);
    until_read(&running, 0, 3, None).await;
    running.stop().await.unwrap();
    assert_eq!(stage.room_records().await.len(), 5, "also what only one of them has is recorded");
}

/// Longer than a busy machine takes for all that is not waited for.
const TAKES: Duration = Duration::from_secs(1);

/// Two pages, of which the newer one has an edit of something that the homeserver's administrators are asked for.
fn with_two_pages(stage: &Stage) {
    let mut world = stage.scene.fake.world();
    world.syncs.insert(String::new(), sync("s1", &[said(9, "$9")], Some("p2")));
    world.pages.insert("p2".into(), page(&[edited(8, "$8", "$unknown")], "p1"));
    world.pages.insert("p1".into(), json!({"start": "x", "chunk": [said(1, "$1")]}));
}

/// Until both are read: the time between them.
async fn pause(stage: &Stage, running: Running) -> Duration {
    until_read(&running, 0, 2, None).await;
    running.stop().await.unwrap();
    let asked = stage.scene.fake.world().pages_asked.clone();
    assert_eq!(asked.len(), 2);
    asked[1] - asked[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn after_each_page_the_homeserver_rests_as_long_as_it_took() {
    let stage = Stage::set().await;
    with_two_pages(&stage);
    stage.scene.fake.world().page_takes = TAKES;
    let running = stage.start(None);
    let pause = pause(&stage, running).await;
    assert!(pause >= TAKES * 2, "{pause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_about_the_events_of_a_page_counts_for_the_rest_after_it() {
    let stage = Stage::set().await;
    with_two_pages(&stage);
    let running = stage.start(None);
    running.homeserver.delay_answers("fetch_event", TAKES);
    let pause = pause(&stage, running).await;
    assert!(pause >= TAKES * 2, "{pause:?}");
}
