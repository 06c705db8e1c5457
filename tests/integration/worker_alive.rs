//! Versions, hours, and times in which nothing could be recorded are records themselves.

use std::{sync::Arc, time::Duration};

use ems_bots::domain::record::{Occurred, RecordDraft};
use serde_json::{Value, json};

use crate::{
    faulty_store::{Fault, SOURCES},
    matrix_fake,
    worker_scene::in_time,
    worker_stage::{HeldClock, Running, Stage, message, sync, text, until},
};

/// 2026-09-21, and an hour.
const BEGAN: i64 = 1_790_000_000;
const HOUR_MS: i64 = 3_600_000;

async fn of_action(stage: &Stage, action: &str) -> Vec<RecordDraft> {
    let mut records = stage.trail().await;
    records.retain(|record| record.action == action);
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_between_two_processes_is_recorded_and_versions_once() {
    in_time(async {
        let stage = Stage::set().await;
        for _ in 0..2 {
            let running = stage.start(None);
            stage.until_asked("s1", 1).await;
            stage.scene.fake.world().asked.clear();
            running.stop().await.unwrap();
        }
        let versions = of_action(&stage, "bot.version_changed").await;
        let seen: Vec<_> = versions.iter().map(|record| record.changes[0].path.as_str()).collect();
        assert_eq!(seen, ["/versions/operator", "/versions/worker"]);
        assert_eq!(versions[0].changes[0].after, Some(json!("1.2.3")));
        let gaps = of_action(&stage, "capture.interrupted").await;
        assert_eq!(gaps.len(), 1, "the second process follows the first: {gaps:#?}");
        assert!(matches!(gaps[0].occurred, Occurred::Between(from, to) if from <= to), "{gaps:#?}");
        let beats = of_action(&stage, "worker.heartbeat").await.len();
        assert!((1..=2).contains(&beats), "once an hour: {beats}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_without_the_database_is_recorded_when_it_is_back() {
    in_time(async {
        let stage = Stage::set().await;
        stage.scene.fake.world().syncs.insert(String::new(), sync("s1", &[message("$1", text("one"))], None));
        let running = stage.start(Some(("s1", Fault::Unreachable(2))));
        stage.until_asked("s1", 1).await;
        let gaps = loop {
            let gaps = of_action(&stage, "capture.interrupted").await;
            if !gaps.is_empty() {
                break gaps;
            }
            tokio::task::yield_now().await;
        };
        running.stop().await.unwrap();
        assert_eq!(gaps[0].context.reason.as_deref(), Some("the database could not be written to"));
        assert!(matches!(gaps[0].occurred, Occurred::Between(from, to) if from < to), "{gaps:#?}");
    })
    .await;
}

/// A bot whose clock stands still, and whose account is locked, or whose homeserver fails.
async fn without_a_session(status: u16, body: &'static str) -> (Stage, Arc<HeldClock>) {
    let mut stage = Stage::set().await;
    let clock = Arc::new(HeldClock::at(BEGAN));
    stage.clock = clock.clone();
    refuse(&stage, status, body);
    (stage, clock)
}

/// From now on there is no session for this reason.
fn refuse(stage: &Stage, status: u16, body: &'static str) {
    let on = "account/whoami".to_owned();
    let fault = matrix_fake::Fault { on, times: u32::MAX, status, body, carried_out: false };
    stage.scene.fake.world().faults = vec![fault];
}

const LOCKED: &str = r#"{"errcode":"M_USER_LOCKED","error":"x","soft_logout":true}"#;

/// How rooms stood, as the trail says: standing, time, and a part of the reason.
async fn switches(stage: &Stage, reasons: &[&'static str]) -> Vec<(Value, Occurred, Option<&'static str>)> {
    let records = of_action(stage, "capture.source_switched").await.into_iter();
    let of_rooms = records.filter(|record| record.changes[0].path == "/sources/rooms");
    let told = of_rooms.map(|record| {
        let reason = record.context.reason.as_deref();
        let known =
            reason.map(|reason| *reasons.iter().find(|known| reason.contains(**known)).expect(reason));
        (record.changes[0].after.clone().unwrap(), record.occurred, known)
    });
    told.collect()
}

/// Waits for so many of them.
async fn until_switched(stage: &Stage, times: usize) {
    while switches(stage, &[""]).await.len() < times {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until it has been refused twice for this reason: by then it is long known.
async fn until_refused(stage: &Stage, running: &Running, reason: &str) {
    until("it says why", || {
        let said = running.board.get().encryption;
        (said.reason == reason).then_some(()).ok_or(said)
    })
    .await;
    let asked = stage.scene.fake.count("account/whoami");
    until("it tries again", || {
        let now = stage.scene.fake.count("account/whoami");
        (now > asked).then_some(()).ok_or(now)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_without_a_session_is_one_record_from_its_first_moment_whoever_was_killed_in_it() {
    in_time(async {
        let (stage, clock) = without_a_session(502, "<html>").await;
        let first = stage.start(None);
        until_switched(&stage, 1).await;
        assert_eq!(first.board.get().recording.reason, "SyncFailing");
        clock.pass(1);
        first.kill().await;
        clock.pass(1);
        refuse(&stage, 401, LOCKED);
        let second = stage.start(None);
        until_refused(&stage, &second, "AccountLocked").await;
        clock.pass(1);
        stage.scene.fake.world().faults.clear();
        until_switched(&stage, 2).await;
        second.stop().await.unwrap();
        let from = BEGAN * 1000;
        let expected = [
            (json!("lagging"), Occurred::At(from), Some("502")),
            (json!("on"), Occurred::Between(from, from + 3 * HOUR_MS), Some("the bot's account is locked")),
        ];
        assert_eq!(switches(&stage, &["502", "the bot's account is locked"]).await, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_without_a_session_is_known_when_the_database_is_back() {
    in_time(async {
        let (stage, clock) = without_a_session(401, LOCKED).await;
        let running = stage.start(Some((SOURCES, Fault::Unreachable(2))));
        until("the database is away", || {
            let database = running.board.get().database;
            (database.ok == Some(false)).then_some(()).ok_or(database)
        })
        .await;
        clock.pass(1);
        until_switched(&stage, 1).await;
        clock.pass(1);
        stage.scene.fake.world().faults.clear();
        until_switched(&stage, 2).await;
        running.stop().await.unwrap();
        let from = BEGAN * 1000;
        let expected = [
            (json!("lagging"), Occurred::At(from), Some("locked")),
            (json!("on"), Occurred::Between(from, from + 2 * HOUR_MS), Some("locked")),
        ];
        assert_eq!(switches(&stage, &["locked"]).await, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_time_without_a_session_is_not_worth_a_record() {
    in_time(async {
        let (mut stage, _) = without_a_session(401, LOCKED).await;
        stage.moment = Duration::from_secs(3);
        stage.scene.fake.world().faults[0].times = 1;
        let running = stage.start(None);
        until("it is refused", || {
            let said = running.board.get().encryption;
            (said.reason == "AccountLocked").then_some(()).ok_or(said)
        })
        .await;
        until_switched(&stage, 1).await;
        running.stop().await.unwrap();
        assert_eq!(switches(&stage, &[]).await, [(json!("on"), Occurred::At(BEGAN * 1000), None)]);
    })
    .await;
}
