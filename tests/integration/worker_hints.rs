//! What capture tells coverage.

use std::sync::{Arc, Mutex};

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
    worker_stage::{ROOM, Stage, until},
};

/// Coverage that notes the events that it is told.
#[derive(Default)]
struct Listener(Mutex<Vec<String>>);

#[async_trait]
impl Presence for Listener {
    fn invited(&self, _: &RoomId, _: &[Value]) {}

    async fn told(&self, _: &RoomId, event: &Value, _: &CancellationToken) -> Result<(), Stop> {
        self.0.lock().unwrap().push(event["event_id"].as_str().unwrap().to_owned());
        Ok(())
    }

    fn ignores(&self, _: &RoomId) -> bool {
        false
    }

    async fn is_ours(&self, _: &RoomId, _: &Value, _: &CancellationToken) -> Result<bool, Stop> {
        Ok(false)
    }
}

fn state(kind: &str, key: &str, id: &str) -> Value {
    json!({"type": kind, "state_key": key, "sender": "@alice:example.org", "event_id": id, "origin_server_ts": 8_000,
        "content": {"membership": "join"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_room_it_is_told_how_it_is_and_what_happens_but_not_what_was_before_the_bot_came() {
    in_time(async {
        let mut stage = Stage::set().await;
        let listener = Arc::new(Listener::default());
        stage.presence = listener.clone();
        let room = |first: Value, second: Value, from: &str| {
            json!({ROOM: {"state": {"events": [first]},
                "timeline": {"events": [second], "limited": true, "prev_batch": from}}})
        };
        let came =
            room(state("m.room.power_levels", "", "$now"), state("m.room.member", USER, "$in"), "before");
        let gap = room(state("m.room.tombstone", "", "$later"), state("m.room.topic", "", "$latest"), "gap");
        {
            let world = &mut stage.scene.fake.world();
            world.syncs.insert(String::new(), json!({"next_batch": "s1", "rooms": {"join": came}}));
            world.syncs.insert("s1".to_owned(), json!({"next_batch": "s2", "rooms": {"join": gap}}));
            let page = |id: &str| json!({"start": "x", "chunk": [state("m.room.power_levels", "", id)]});
            world.pages.insert("before".to_owned(), page("$former"));
            world.pages.insert("gap".to_owned(), page("$left_out"));
        }
        let running = stage.start(None);
        let told = || listener.0.lock().unwrap().clone();
        for id in ["$now", "$in", "$later", "$latest", "$left_out"] {
            until(id, || told().iter().any(|told| told == id).then_some(()).ok_or(told())).await;
        }
        running.stop().await.unwrap();
        let records = format!("{:?}", stage.room_records().await);
        assert!(records.contains("$former"), "it was read before the gap: {records}");
        assert!(!told().contains(&"$former".to_owned()), "{:?}", told());
    })
    .await;
}
