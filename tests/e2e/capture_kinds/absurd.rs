//! What no client sends and a homeserver takes all the same.

use serde_json::{Value, json};

use super::Stage;
use crate::support::{Expected, rooms::send};

/// As deep as Synapse takes it, and a little less.
const DEPTH: usize = 110;

pub(super) async fn each_kind(stage: &Stage, room: &str) -> Vec<Expected> {
    let mut nested = json!({"core": "of the matter"});
    for _ in 0..DEPTH {
        nested = json!({ "in": nested });
    }
    // Room versions before 6 allow numbers that no canonical JSON has.
    let old = &*stage.room(json!({"name": "Attic", "room_version": "5"})).await;
    let odd = json!({"": "", "\"; --": [null, {}, [[]]], "body": 7, "msgtype": {"m.text": []}, "m.relates_to": "$"});
    let mut expected = Vec::new();
    for (room, kind, content, action, says, holds) in [
        (room, "org.example.deep", nested, "event.sent", None, "of the matter"),
        (old, "org.example.numbers", numbers(), "event.sent", None, "18446744073709551615"),
        (room, "org.example.odd", odd, "event.sent", None, "\\\"; --"),
        (room, "org.example.none", json!({}), "event.sent", None, ""),
        (
            room,
            "m.room.message",
            message("zero\0byte"),
            "message.sent",
            Some("zero\0byte"),
            "zero\\u0000byte",
        ),
        (room, "m.room.message", message(""), "message.sent", None, "m.text"),
        (room, "m.reaction", json!({"m.relates_to": 7}), "reaction.added", None, "m.reaction"),
        (room, "m.poll.response", json!({"m.selections": {}}), "poll.answered", Some("no answer"), ""),
    ] {
        let event = send(&stage.synapse, &stage.bob, room, kind, content).await;
        let row = Expected::of(&stage.bob.user_id, event, action).holds(holds);
        expected.push(match says {
            Some(text) => row.says(text),
            None => row,
        });
    }
    expected
}

fn message(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

/// The largest one is hidden in lists: where Synapse's push rules come across it, they refuse the event.
fn numbers() -> Value {
    json!({"large": [[u64::MAX]], "low": i64::MIN, "huge": 1.5e300, "tiny": -1e-300, "none": -0.0})
}
