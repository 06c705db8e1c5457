//! A homeserver that tells the state after the timeline (MSC4222) instead of that before it.

use serde_json::{Value, json};

use crate::{
    worker_scene::in_time,
    worker_stage::{ROOM, Stage},
};

fn topic(id: &str, topic: &str) -> Value {
    json!({"type": "m.room.topic", "state_key": "", "sender": "@alice:example.org", "event_id": id,
        "origin_server_ts": 9_000, "content": {"topic": topic}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_recorded_in_its_order() {
    in_time(async {
        let stage = Stage::set().await;
        let said = json!({"type": "m.room.message", "sender": "@alice:example.org", "event_id": "$said",
            "origin_server_ts": 9_000, "content": {"msgtype": "m.text", "body": "hello"}});
        let name = json!({"type": "m.room.name", "state_key": "", "sender": "@alice:example.org", "event_id": "$name",
            "origin_server_ts": 8_000, "content": {"name": "Plans"}});
        let timeline = [said, topic("$first", "one"), topic("$second", "two")];
        // The name is from before a gap; the topic is the timeline's own.
        let room = json!({"state_after": {"events": [topic("$second", "two"), name]},
            "timeline": {"events": timeline, "limited": false, "prev_batch": "p"}});
        let answer = json!({"next_batch": "s1", "rooms": {"join": {ROOM: room}}});
        stage.scene.fake.world().syncs.insert(String::new(), answer);
        let running = stage.start(None);
        stage.until_asked("s1", 1).await;
        running.stop().await.unwrap();
        let records = stage.room_records().await;
        let order: Vec<&str> = records.iter().map(|record| record[0].as_str().unwrap()).collect();
        let ids = ["$name", "$said", "$first", "$second"];
        assert_eq!(order.len(), ids.len(), "{order:?}");
        for (source, id) in order.iter().zip(ids) {
            assert!(source.contains(id), "{order:?}");
        }
    })
    .await;
}
