//! From when to when the bot was not in a room is a record, once.

use ems_bots::domain::record::{Occurred, RecordDraft};
use serde_json::{Value, json};

use crate::{
    matrix_fake::USER,
    worker_scene::in_time,
    worker_stage::{ROOM, Stage},
};

fn member(id: &str, sender: &str, was: &str, is: &str, at: i64) -> Value {
    json!({"type": "m.room.member", "state_key": USER, "sender": sender, "event_id": id, "origin_server_ts": at,
        "content": {"membership": is}, "unsigned": {"prev_content": {"membership": was}}})
}

fn answer(next: &str, part: &str, state: &Value, timeline: &Value) -> Value {
    let timeline = json!({"events": timeline, "limited": false, "prev_batch": "p"});
    json!({"next_batch": next, "rooms": {part: {ROOM: {"timeline": timeline, "state": {"events": state}}}}})
}

async fn absences(stage: &Stage) -> Vec<RecordDraft> {
    let mut records = stage.trail().await;
    records.retain(|record| record.action == "capture.absent");
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn every_time_without_the_bot_is_recorded_when_it_ends() {
    in_time(async {
        let stage = Stage::set().await;
        let created = json!([{"type": "m.room.create", "state_key": "", "sender": "@alice:example.org", "event_id": "$c",
            "origin_server_ts": 1_000, "content": {"room_version": "11"}}]);
        {
            let mut world = stage.scene.fake.world();
            let joined = json!([member("$j1", USER, "invite", "join", 3_000)]);
            world.syncs.insert(String::new(), answer("s1", "join", &created, &joined));
            let kicked = json!([member("$k", "@alice:example.org", "join", "leave", 5_000)]);
            world.syncs.insert("s1".into(), answer("s2", "leave", &json!([]), &kicked));
        }
        let running = stage.start(None);
        stage.until_asked("s2", 1).await;
        running.stop().await.unwrap();
        let first = absences(&stage).await;
        assert_eq!(first.len(), 1, "{first:#?}");
        assert_eq!(first[0].occurred, Occurred::Between(1_000, 3_000));
        assert_eq!(first[0].context.reason.as_deref(), Some("the bot came into the room after it was made"));

        let back = json!([member("$j2", USER, "invite", "join", 9_000)]);
        // The state repeats what the timeline tells.
        stage.scene.fake.world().syncs.insert("s2".into(), answer("s3", "join", &back, &back));
        let running = stage.start(None);
        stage.until_asked("s3", 1).await;
        running.stop().await.unwrap();
        let all = absences(&stage).await;
        assert_eq!(all.len(), 2, "{all:#?}");
        assert_eq!(all[1].occurred, Occurred::Between(5_000, 9_000));
        assert_eq!(all[1].context.reason.as_deref(), Some("@alice:example.org removed the bot"));

        // Its name was changed, which sync tells again as the state in front of other news, and without what was before.
        let mut renamed = member("$name", USER, "", "join", 12_000);
        renamed.as_object_mut().unwrap().remove("unsigned");
        let renamed = answer("s4", "join", &json!([renamed]), &json!([]));
        stage.scene.fake.world().syncs.insert("s3".into(), renamed);
        let running = stage.start(None);
        stage.until_asked("s4", 1).await;
        running.stop().await.unwrap();
        assert_eq!(absences(&stage).await.len(), 2, "it was there all the time");
    })
    .await;
}
