//! History is read beside what happens: how far it is stands in the report, and it goes on after a crash.

use ems_bots::domain::worker::HistoryProgress;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    faulty_store::Fault as StoreFault,
    matrix_fake::Fault,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_several_pages_shows_how_far_it_is_read_also_after_a_crash() {
    let stage = Stage::set().await;
    {
        let mut world = stage.scene.fake.world();
        world.syncs.insert(String::new(), sync("s1", &[said(9, "$9")], Some("p3")));
        world.pages.insert("p3".into(), page(&[said(8, "$8"), said(7, "$7")], "p2"));
        world.pages.insert("p2".into(), page(&[said(5, "$5")], "p1"));
        world.pages.insert("p1".into(), json!({"start": "x", "chunk": [said(2, "$2"), said(1, "$1")]}));
    }
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
