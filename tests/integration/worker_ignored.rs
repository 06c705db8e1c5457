//! Of a room that the selection leaves out nothing is recorded but what the bot itself does there.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use ems_bots::{
    domain::RoomId,
    worker::{ports::Presence, recorder::Stop},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    matrix_fake::USER,
    worker_scene::in_time,
    worker_stage::{ROOM, Stage},
};

const OTHER: &str = "!other:example.org";

/// Coverage that leaves out the rooms of this set.
#[derive(Default)]
pub(crate) struct LeftOut(pub(crate) Mutex<BTreeSet<RoomId>>);

#[async_trait]
impl Presence for LeftOut {
    fn invited(&self, _: &RoomId, _: &[Value]) {}

    async fn told(&self, _: &RoomId, _: &Value, _: &CancellationToken) -> Result<(), Stop> {
        Ok(())
    }

    fn ignores(&self, room: &RoomId) -> bool {
        self.0.lock().unwrap().contains(room)
    }

    async fn is_ours(&self, _: &RoomId, _: &Value, _: &CancellationToken) -> Result<bool, Stop> {
        Ok(false)
    }
}

fn said(id: &str, text: &str) -> Value {
    json!({"type": "m.room.message", "sender": "@alice:example.org", "event_id": id, "origin_server_ts": 9_000,
        "content": {"msgtype": "m.text", "body": text}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_in_a_room_that_is_left_out_is_not_recorded() {
    in_time(async {
        let mut stage = Stage::set().await;
        let left_out = BTreeSet::from([RoomId::parse(ROOM).unwrap()]);
        stage.presence = Arc::new(LeftOut(Mutex::new(left_out)));
        let joined = json!({"type": "m.room.member", "state_key": USER, "sender": USER, "event_id": "$in",
            "origin_server_ts": 8_000, "content": {"membership": "join"}});
        let topic = json!({"type": "m.room.topic", "state_key": "", "sender": "@alice:example.org", "event_id": "$topic",
            "origin_server_ts": 8_500, "content": {"topic": "not for the trail"}});
        let secret = json!({"state": {"events": [topic]}, "timeline": {"events": [joined, said("$1", "not for the trail")],
            "limited": true, "prev_batch": "p"}});
        let open = json!({"timeline": {"events": [said("$2", "for the trail")], "limited": false, "prev_batch": "p"}});
        let answer = json!({"next_batch": "s1", "rooms": {"join": {ROOM: secret, OTHER: open}}});
        stage.scene.fake.world().syncs.insert(String::new(), answer);
        let running = stage.start(None);
        stage.until_asked("s1", 1).await;
        running.stop().await.unwrap();
        let sources: Vec<Value> = stage.room_records().await.into_iter().map(|record| record[0].clone()).collect();
        assert_eq!(sources.len(), 2, "{sources:?}");
        assert!(sources.iter().any(|source| source.as_str().unwrap().contains("$in")), "{sources:?}");
        assert!(sources.iter().any(|source| source.as_str().unwrap().contains("$2")), "{sources:?}");
        let all = serde_json::to_string(&stage.trail().await.iter().map(|record| format!("{record:?}")).collect::<Vec<_>>());
        assert!(!all.unwrap().contains("not for the trail"));
    })
    .await;
}
