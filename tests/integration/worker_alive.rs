//! Versions, hours, and times in which nothing could be recorded are records themselves.

use ems_bots::domain::record::{Occurred, RecordDraft};
use serde_json::json;

use crate::{
    faulty_store::Fault,
    worker_scene::in_time,
    worker_stage::{Stage, message, sync, text},
};

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
