//! A room's state is resolved anew: an older setting is in force again, and no event says so.

use ems_bots::domain::record::{Actor, Occurred, RecordDraft, Relation};
use serde_json::{Value, json};

use crate::{
    faulty_store::Fault,
    worker_scene::in_time,
    worker_stage::{ROOM, Stage, message, text},
};

const SETTING: &str = "m.room.name/";

/// A name of the room, with the one that it replaces.
fn name(id: &str, name: &str, replaces: Option<(&str, &str)>) -> Value {
    let mut event = json!({"type": "m.room.name", "state_key": "", "sender": "@alice:example.org", "event_id": id,
        "origin_server_ts": 1_790_000_000_000_u64, "content": {"name": name}});
    if let Some((id, name)) = replaces {
        event["unsigned"] = json!({"replaces_state": id, "prev_content": {"name": name}});
    }
    event
}

fn plans() -> Value {
    name("$plans", "Plans", None)
}

fn party() -> Value {
    name("$party", "Party", Some(("$plans", "Plans")))
}

/// An answer of /sync with a state of the room, before the timeline or after it.
fn answer(next: &str, kind: &str, state: &[Value], timeline: &[Value]) -> Value {
    let room = json!({kind: {"events": state}, "timeline": {"events": timeline, "limited": false, "prev_batch": "p"}});
    json!({"next_batch": next, "rooms": {"join": {ROOM: room}}})
}

/// Something was said, and this is the state before it.
fn said(number: usize, state: &[Value]) -> Value {
    let said = message(&format!("$said{number}"), text("hello"));
    answer(&format!("s{}", number + 1), "state", state, &[said])
}

async fn resets(stage: &Stage) -> Vec<RecordDraft> {
    stage.trail().await.into_iter().filter(|record| record.action == "room.state.reset").collect()
}

/// From what to what it changed, and which events these were.
fn seen(record: &RecordDraft) -> (Value, Value, String, String) {
    let event = |role: &str| {
        let mut events = record.relations.iter().filter(|one| one.kind == "event" && one.role == role);
        events.next().unwrap_or_else(|| panic!("no {role} in {record:?}")).id.clone()
    };
    let [change] = record.changes.as_slice() else { panic!("{record:?}") };
    assert_eq!(change.path, "/m.room.name/name");
    let [before, after] = [&change.before, &change.after].map(|value| value.clone().unwrap());
    (before, after, event("replaces_state"), event("restored"))
}

fn from_to(before: &str, after: &str) -> (Value, Value, String, String) {
    let id = |name: &str| format!("${}", name.to_lowercase());
    (json!(before), json!(after), id(before), id(after))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_setting_that_is_in_force_again_is_recorded_each_time_once() {
    in_time(async {
        let stage = Stage::set().await;
        let tell = |since: &str, answer: Value, in_force: Value| {
            let mut world = stage.scene.fake.world();
            world.in_force.insert(SETTING.to_owned(), in_force);
            world.syncs.insert(since.to_owned(), answer);
        };
        tell("", answer("s1", "state", &[], &[plans(), party()]), party());
        let running = stage.start(None);
        stage.until_asked("s1", 1).await;
        // On a branch of the history it is the old name, and in the room it is not.
        tell("s1", said(1, &[plans()]), party());
        stage.until_asked("s2", 1).await;
        assert_eq!(resets(&stage).await.len(), 0);
        tell("s2", said(2, &[plans()]), plans());
        stage.until_asked("s3", 1).await;
        // Told again.
        tell("s3", said(3, &[plans()]), plans());
        stage.until_asked("s4", 1).await;
        tell("s4", said(4, &[party()]), party());
        stage.until_asked("s5", 1).await;
        tell("s5", said(5, &[plans()]), plans());
        stage.until_asked("s6", 1).await;
        running.stop().await.unwrap();
        let resets = resets(&stage).await;
        let all: Vec<_> = resets.iter().map(seen).collect();
        let expected = [from_to("Party", "Plans"), from_to("Plans", "Party"), from_to("Party", "Plans")];
        assert_eq!(all, expected);
        let first = &resets[0];
        assert_eq!((&first.actor, first.text.as_deref()), (&Actor::Unknown, Some("Plans")));
        assert!(matches!(first.occurred, Occurred::Between(from, to) if from <= to), "{:?}", first.occurred);
        for relation in [Relation::new("room", ROOM, "in"), Relation::new("state", SETTING, "target")] {
            assert!(first.relations.contains(&relation), "{first:?}");
        }
        assert_eq!(first.source_raw.as_deref(), Some(plans().to_string().as_str()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_after_the_timeline_needs_no_question() {
    in_time(async {
        let stage = Stage::set().await;
        stage.scene.fake.world().syncs.extend([
            (String::new(), answer("s1", "state_after", &[], &[message("$hello", text("hello"))])),
            // Also where the timeline itself tells both.
            ("s1".to_owned(), answer("s2", "state_after", &[plans()], &[plans(), party()])),
            ("s2".to_owned(), answer("s3", "state_after", &[plans()], &[message("$bye", text("bye"))])),
        ]);
        let running = stage.start(None);
        stage.until_asked("s3", 1).await;
        running.stop().await.unwrap();
        let all: Vec<_> = resets(&stage).await.iter().map(seen).collect();
        assert_eq!(all, [from_to("Party", "Plans")]);
        let asked = stage.scene.fake.count("/state/");
        assert_eq!(asked, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_records_it_once() {
    in_time(async {
        for fault in [Fault::KilledBefore, Fault::KilledAfter] {
            let stage = Stage::set().await;
            {
                let mut world = stage.scene.fake.world();
                world.in_force.insert(SETTING.to_owned(), plans());
                world.syncs.extend([
                    (String::new(), answer("s1", "state", &[], &[plans(), party()])),
                    ("s1".to_owned(), said(1, &[plans()])),
                    ("s2".to_owned(), said(2, &[plans()])),
                ]);
            }
            stage.start(Some(("s2", fault))).killed().await;
            let running = stage.start(None);
            stage.until_asked("s3", 1).await;
            running.stop().await.unwrap();
            let all: Vec<_> = resets(&stage).await.iter().map(seen).collect();
            assert_eq!(all, [from_to("Party", "Plans")]);
        }
    })
    .await;
}
