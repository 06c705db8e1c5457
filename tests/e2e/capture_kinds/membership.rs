//! Who is invited, comes, asks, goes, is sent away and may come again.

use serde_json::{Value, json};

use super::Stage;
use crate::support::{
    Expected,
    rooms::{create_room, done, in_place, set, state},
    services::urlencode,
};

pub(super) async fn each_kind(stage: &Stage) -> Vec<Expected> {
    let knocking = json!([{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}]);
    let options = json!({"preset": "private_chat", "name": "Club", "initial_state": knocking});
    let room = create_room(&stage.synapse, &stage.alice, options).await;
    in_place(&stage.synapse, &stage.worker, &room).await;
    let carol = &stage.carol.user_id;
    let mut expected = Vec::new();
    let mut was = Value::Null;
    for (who, verb, reason, is, action) in [
        ("alice", "invite", "come in", "invite", "room.member.invited"),
        ("carol", "leave", "no time", "leave", "room.member.invite_rejected"),
        ("alice", "invite", "now?", "invite", "room.member.invited"),
        ("alice", "kick", "the wrong carol", "leave", "room.member.invite_withdrawn"),
        ("alice", "invite", "at last", "invite", "room.member.invited"),
        ("carol", "join", "thanks", "join", "room.member.joined"),
        ("carol", "leave", "lunch", "leave", "room.member.left"),
        ("carol", "knock", "may I?", "knock", "room.member.knocked"),
        ("carol", "leave", "never mind", "leave", "room.member.knock_withdrawn"),
        ("carol", "knock", "please", "knock", "room.member.knocked"),
        ("alice", "kick", "not today", "leave", "room.member.knock_denied"),
        ("carol", "knock", "today?", "knock", "room.member.knocked"),
        ("alice", "invite", "today", "invite", "room.member.knock_accepted"),
        ("carol", "join", "hello", "join", "room.member.joined"),
        ("alice", "kick", "too loud", "leave", "room.member.kicked"),
        ("alice", "ban", "far too loud", "ban", "room.member.banned"),
        ("alice", "unban", "long ago", "leave", "room.member.unbanned"),
    ] {
        let event = step(stage, &room, who, verb, reason).await;
        let row = Expected::of(&stage.synapse.user_id(who), event, action).because(reason);
        let row = row.relates("user", carol, "target").relates("room", &room, "in");
        expected.push(row.changes(format!("/m.room.member/{carol}/membership"), was, json!(is)));
        was = json!(is);
    }
    expected.extend(other_names(stage, &room).await);
    expected
}

/// Carol does it, or alice does it to her. Returns the event.
async fn step(stage: &Stage, room: &str, who: &str, verb: &str, reason: &str) -> String {
    let mut body = json!({"reason": reason});
    if who == "alice" {
        body["user_id"] = json!(stage.carol.user_id);
    }
    if verb == "knock" {
        let path = format!("/_matrix/client/v3/knock/{}", urlencode(room));
        let (status, answer) =
            stage.synapse.request("POST", &path, &stage.carol.access_token, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
    } else {
        done(&stage.synapse, stage.person(who), room, verb, body).await;
    }
    let member = ("m.room.member", stage.carol.user_id.as_str());
    state(&stage.synapse, &stage.alice, room, member).await["event_id"].as_str().unwrap().to_owned()
}

/// What stays a membership and says something else.
async fn other_names(stage: &Stage, room: &str) -> Vec<Expected> {
    let alice = &stage.alice.user_id;
    let member = ("m.room.member", alice.as_str());
    let path = |field: &str| format!("/m.room.member/{alice}/{field}");
    let mut content = state(&stage.synapse, &stage.alice, room, member).await["content"].clone();
    let before = content["displayname"].clone();
    content["displayname"] = json!("The Chair");
    let named = set(&stage.synapse, &stage.alice, room, member, content.clone()).await;
    content["org.example.mood"] = json!("good");
    let same = set(&stage.synapse, &stage.alice, room, member, content).await;
    vec![
        Expected::of(alice, named, "room.member.profile_changed").says("The Chair").changes(
            path("displayname"),
            before,
            json!("The Chair"),
        ),
        Expected::of(alice, same, "room.member.unchanged").changes(
            path("org.example.mood"),
            Value::Null,
            json!("good"),
        ),
    ]
}
