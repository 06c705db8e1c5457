//! Settings of rooms and spaces, who may do what, and rooms that begin and end.

use serde_json::{Value, json};

use super::Stage;
use crate::support::{
    Expected,
    rooms::{create_room, done, in_place, redact, send, set, state},
    services::urlencode,
};

pub(super) async fn each_kind(stage: &Stage, square: &str) -> Vec<Expected> {
    let mut expected = settings(stage, square).await;
    expected.extend(policies(stage, square).await);
    expected.extend(powers(stage, square).await);
    expected.extend(addresses_and_pins(stage, square).await);
    expected.extend(presence(stage, square).await);
    expected.extend(spaces(stage, square).await);
    expected.extend(upgrade(stage).await);
    expected
        .push(created(stage, square, &format!("room version 12\ncreated by {}", stage.alice.user_id)).await);
    expected
}

/// Alice sets a state.
async fn change(
    stage: &Stage,
    room: &str,
    key: (&str, &str),
    content: Value,
    action: &'static str,
) -> Expected {
    let event = set(&stage.synapse, &stage.alice, room, key, content).await;
    let row = Expected::of(&stage.alice.user_id, event, action);
    row.relates("state", &format!("{}/{}", key.0, key.1), "target").relates("room", room, "in")
}

async fn settings(stage: &Stage, room: &str) -> Vec<Expected> {
    let picture = "mxc://example.org/square";
    let mut expected = Vec::new();
    for (kind, field, before, after, action) in [
        ("m.room.name", "name", json!("Square"), json!("Circle"), "room.name.changed"),
        ("m.room.topic", "topic", Value::Null, json!("geometry"), "room.topic.changed"),
        ("m.room.topic", "topic", json!("geometry"), json!("round things"), "room.topic.changed"),
        ("m.room.join_rules", "join_rule", json!("public"), json!("knock"), "room.join_rules.changed"),
        (
            "m.room.history_visibility",
            "history_visibility",
            json!("shared"),
            json!("invited"),
            "room.history_visibility.changed",
        ),
        ("m.room.guest_access", "guest_access", Value::Null, json!("can_join"), "room.guest_access.changed"),
    ] {
        let row = change(stage, room, (kind, ""), json!({field: after}), action).await;
        let row = row.says(after.as_str().unwrap());
        expected.push(row.changes(format!("/{kind}/{field}"), before, after));
    }
    let row =
        change(stage, room, ("m.room.avatar", ""), json!({"url": picture}), "room.avatar.changed").await;
    let row = row.relates("media", picture, "attached");
    expected.push(row.changes("/m.room.avatar/url", Value::Null, json!(picture)));
    let hall = create_room(&stage.synapse, &stage.alice, json!({"preset": "private_chat"})).await;
    let members =
        json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": hall}]});
    let row = change(stage, room, ("m.room.join_rules", ""), members, "room.join_rules.changed").await;
    expected
        .push(row.says(format!("restricted\nopen to members of: {hall}")).relates("room", &hall, "admits"));
    let custom = json!({"colour": "red"});
    let row = change(stage, room, ("org.example.paint", "door"), custom, "room.state.changed").await;
    expected.push(row.changes("/org.example.paint/door/colour", Value::Null, json!("red")));
    let topic = state(&stage.synapse, &stage.alice, room, ("m.room.topic", "")).await;
    let topic = topic["event_id"].as_str().unwrap();
    let gone = redact(&stage.synapse, &stage.alice, room, topic, "a leak").await;
    let row = Expected::of(&stage.alice.user_id, gone, "room.state.redacted").because("a leak");
    let row = row.relates("event", topic, "redacts").relates("state", "m.room.topic/", "target");
    expected.push(row.changes("/content/topic", json!("round things"), Value::Null));
    expected
}

/// Who is kept out, for how long messages are kept, and what a room is connected to.
async fn policies(stage: &Stage, room: &str) -> Vec<Expected> {
    let acl = json!({"allow": ["*"], "deny": ["evil.example"], "allow_ip_literals": false});
    let spammer = json!({"entity": "@spam:evil.example", "recommendation": "m.ban", "reason": "spam"});
    let widget = json!({"type": "m.custom", "url": "https://board.example", "name": "Board",
        "creatorUserId": stage.bob.user_id});
    let bridge = json!({"bridgebot": stage.bob.user_id, "creator": stage.alice.user_id,
        "protocol": {"id": "irc", "displayname": "IRC"}, "channel": {"id": "#square"}});
    let mail = json!({"display_name": "d...@example.org", "key_validity_url": "https://id.example/valid",
        "public_key": "c2lnbmVk"});
    let (rule, irc) = (("m.policy.rule.user", "spam"), ("m.bridge", "irc/square"));
    let (guest, board) = (("m.room.third_party_invite", "token"), ("im.vector.modular.widgets", "board"));
    let mut expected = Vec::new();
    for (key, content, action, reason, says) in [
        (
            ("m.room.server_acl", ""),
            acl,
            "room.server_acl.changed",
            None,
            "denied now: evil.example\nallowed now: *\nIP addresses instead of names: denied now",
        ),
        (rule, spammer, "policy.rule.changed", Some("spam"), "m.ban @spam:evil.example"),
        (rule, json!({}), "policy.rule.changed", None, "rule removed: @spam:evil.example"),
        (board, widget, "room.widget.changed", None, "widget: Board, m.custom, https://board.example"),
        (
            board,
            json!({}),
            "room.widget.changed",
            None,
            "widget removed: Board, m.custom, https://board.example",
        ),
        (irc, bridge, "room.bridge.changed", None, "bridge: IRC, #square"),
        (guest, mail, "room.third_party_invite.changed", None, "invited by mail or phone: d...@example.org"),
        (guest, json!({}), "room.third_party_invite.changed", None, "invitation withdrawn: d...@example.org"),
    ] {
        let row = change(stage, room, key, content, action).await.says(says);
        expected.push(if let Some(reason) = reason { row.because(reason) } else { row });
    }
    let kept = json!({"max_lifetime": 31_536_000_000_i64});
    let row = change(stage, room, ("m.room.retention", ""), kept, "room.retention.changed").await;
    let path = "/m.room.retention/max_lifetime";
    expected.push(row.changes(path, Value::Null, json!(31_536_000_000_i64)));
    expected
}

/// Who gains and who loses power, and what needs more of it.
async fn powers(stage: &Stage, room: &str) -> Vec<Expected> {
    let (key, bob) = (("m.room.power_levels", ""), &stage.bob.user_id);
    let at_first = state(&stage.synapse, &stage.alice, room, key).await["content"].clone();
    let mut raised = at_first.clone();
    raised["users"][bob] = json!(50);
    raised["ban"] = json!(75);
    raised["events"]["m.room.name"] = json!(100);
    let (names, bans) = (at_first["events"]["m.room.name"].clone(), at_first["ban"].clone());
    let path = format!("/m.room.power_levels/users/{bob}");
    let up = change(stage, room, key, raised, "room.power_levels.changed").await;
    let up = up.says(format!(
        "{bob} gained power: 0 → 50\nbanning people needs 75, needed {bans}\nm.room.name needs 100, needed {names}"
    ));
    let up = up.changes(path.as_str(), Value::Null, json!(50));
    let up = up.changes("/m.room.power_levels/ban", bans.clone(), json!(75));
    let down = change(stage, room, key, at_first, "room.power_levels.changed").await;
    let down = down.says(format!(
        "{bob} lost power: 50 → 0\nbanning people needs {bans}, needed 75\nm.room.name needs {names}, needed 100"
    ));
    vec![up, down.changes(path, json!(50), Value::Null)]
}

async fn addresses_and_pins(stage: &Stage, room: &str) -> Vec<Expected> {
    let address = format!("#circle:{}", stage.synapse.server_name);
    let path = format!("/_matrix/client/v3/directory/room/{}", urlencode(&address));
    let body = Some(json!({"room_id": room}));
    let (status, answer) = stage.synapse.request("PUT", &path, &stage.alice.access_token, body).await;
    assert_eq!(status, 200, "{answer}");
    let said = json!({"msgtype": "m.text", "body": "the rules of the house"});
    let rules = send(&stage.synapse, &stage.alice, room, "m.room.message", said).await;
    let (alias, pins) = (("m.room.canonical_alias", ""), ("m.room.pinned_events", ""));
    let named = change(stage, room, alias, json!({"alias": address}), "room.alias.changed").await;
    let named = named.changes("/m.room.canonical_alias/alias", Value::Null, json!(address)).says(address);
    let pinned = change(stage, room, pins, json!({"pinned": [rules]}), "room.pinned.changed").await;
    let gone = change(stage, room, pins, json!({"pinned": []}), "room.pinned.changed").await;
    vec![
        named,
        pinned.says(format!("pinned: {rules}")).relates("event", &rules, "pinned"),
        gone.says(format!("unpinned: {rules}")).relates("event", &rules, "unpinned"),
    ]
}

/// Who is in a call, and who shows where they are.
async fn presence(stage: &Stage, room: &str) -> Vec<Expected> {
    let alice = stage.alice.user_id.as_str();
    let call = ("org.matrix.msc3401.call.member", alice);
    let devices = json!([{"application": "m.call", "call_id": "", "device_id": "PHONE", "expires": 60_000}]);
    let path = format!("/{}/{alice}/memberships", call.0);
    let live = ("org.matrix.msc3672.beacon_info", alice);
    let shared = json!({"live": true, "timeout": 90_000, "description": "on my way"});
    let mut expected = Vec::new();
    for (before, after, says) in
        [(Value::Null, devices.clone(), "joined the call"), (devices, json!([]), "left the call")]
    {
        let row = change(stage, room, call, json!({"memberships": after}), "call.member.changed").await;
        expected.push(row.says(says).changes(path.as_str(), before, after));
    }
    let row = change(stage, room, live, shared, "location.sharing.changed").await;
    expected.push(row.says("live location is shared for 2 min: on my way"));
    let info = state(&stage.synapse, &stage.alice, room, live).await["event_id"].as_str().unwrap().to_owned();
    let here = json!({"m.relates_to": {"rel_type": "m.reference", "event_id": info},
        "org.matrix.msc3488.location": {"uri": "geo:48.1,11.5", "description": "the bridge"}});
    let event = send(&stage.synapse, &stage.alice, room, "org.matrix.msc3672.beacon", here).await;
    let row = Expected::of(alice, event, "location.updated").says("the bridge\ngeo:48.1,11.5");
    expected.push(row.relates("event", &info, "references"));
    let row = change(stage, room, live, json!({"live": false}), "location.sharing.changed").await;
    expected.push(row.says("live location is no longer shared"));
    let cipher = json!({"algorithm": "m.megolm.v1.aes-sha2"});
    let row = change(stage, room, ("m.room.encryption", ""), cipher, "room.encryption.changed").await;
    expected.push(row.says("encryption switched on: m.megolm.v1.aes-sha2"));
    expected
}

/// A room comes into a space, says so, and goes again.
async fn spaces(stage: &Stage, room: &str) -> Vec<Expected> {
    let content = json!({"type": "m.space", "additional_creators": [stage.bob.user_id]});
    let office =
        stage.room(json!({"name": "Office", "room_version": "12", "creation_content": content})).await;
    let by = json!({"via": [stage.synapse.server_name]});
    let (child, parent) = (("m.space.child", room), ("m.space.parent", office.as_str()));
    let (alice, bob) = (&stage.alice.user_id, &stage.bob.user_id);
    let words = format!("room version 12\ncreated by {alice}, {bob}\na space");
    let mut expected = vec![created(stage, &office, &words).await.relates("user", bob, "creator")];
    for (content, verb) in [(by.clone(), "added"), (json!({}), "removed")] {
        let row = change(stage, &office, child, content, "space.child.changed").await;
        let row = row.says(format!("room of the space {verb}: {room}"));
        expected.push(row.relates("room", room, "child"));
    }
    let row = change(stage, room, parent, by, "space.parent.changed").await;
    let row = row.says(format!("space of the room added: {office}"));
    expected.push(row.relates("space", &office, "parent"));
    expected
}

async fn upgrade(stage: &Stage) -> Vec<Expected> {
    let (synapse, alice) = (&stage.synapse, &stage.alice);
    let old = stage.room(json!({"name": "Barn", "room_version": "11"})).await;
    let answer = done(synapse, alice, &old, "upgrade", json!({"new_version": "12"})).await;
    let new = answer["replacement_room"].as_str().unwrap();
    in_place(synapse, &stage.worker, new).await;
    let end = state(synapse, alice, &old, ("m.room.tombstone", "")).await;
    let row = Expected::of(&alice.user_id, end["event_id"].as_str().unwrap().to_owned(), "room.upgraded");
    let row = row.says(end["content"]["body"].as_str().unwrap()).relates("room", new, "successor");
    let ended = row.changes("/m.room.tombstone/replacement_room", Value::Null, json!(new));
    let words = format!("room version 12\ncreated by {}\nreplaces {old}", alice.user_id);
    vec![ended, created(stage, new, &words).await.relates("room", &old, "predecessor")]
}

/// Of a room that alice made.
async fn created(stage: &Stage, room: &str, words: &str) -> Expected {
    let event = state(&stage.synapse, &stage.alice, room, ("m.room.create", "")).await;
    let alice = &stage.alice.user_id;
    let mut creators = vec![json!(alice)];
    creators.extend(event["content"]["additional_creators"].as_array().cloned().unwrap_or_default());
    let row = Expected::of(alice, event["event_id"].as_str().unwrap().to_owned(), "room.created");
    let row = row.says(words).relates("user", alice, "creator");
    row.changes("/room/creators", Value::Null, Value::Array(creators))
}
