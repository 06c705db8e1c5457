//! Rooms: how they begin, what they are connected to, who is kept out.

use serde_json::json;

use super::*;

#[test]
fn rooms_are_created_and_upgraded() {
    let created = record(&state("m.room.create", "", json!({"predecessor": {"room_id": "!old"}}), None));
    assert_eq!(created.action, "room.created");
    assert!(has(&created, "room", "!old", "predecessor"));
    let upgraded = record(&state("m.room.tombstone", "", json!({"replacement_room": "!new"}), None));
    assert_eq!(upgraded.action, "room.upgraded");
    assert!(has(&upgraded, "room", "!new", "successor"));
}

#[test]
fn a_room_has_creators_according_to_its_version() {
    let created = |content: Value| record(&state("m.room.create", "", content, None));
    let creators = |record: &RecordDraft| change(record, "/room/creators").after;
    let old = created(json!({"creator": BOB, "additional_creators": ["@c:x"]}));
    assert_eq!(creators(&old), Some(json!([BOB])));
    assert_eq!(old.text.as_deref(), Some("room version 1\ncreated by @bob:example.org"));
    assert!(has(&old, "user", BOB, "creator") && subject_of(&old, BOB, "creator"));
    let eleven = created(json!({"room_version": "11", "creator": BOB, "additional_creators": ["@c:x"]}));
    assert_eq!(creators(&eleven), Some(json!([ALICE])));
    let twelve =
        created(json!({"room_version": "12", "additional_creators": [BOB, ALICE, 7], "type": "m.space",
        "m.federate": false, "predecessor": {"room_id": "!old"}}));
    assert_eq!(creators(&twelve), Some(json!([ALICE, BOB])));
    assert!(has(&twelve, "user", ALICE, "creator") && has(&twelve, "user", BOB, "creator"));
    assert_eq!(
        twelve.text.as_deref(),
        Some(
            "room version 12\ncreated by @alice:example.org, @bob:example.org\na space\n\
             closed to other homeservers\nreplaces !old"
        )
    );
    assert_eq!(change(&twelve, "/m.room.create/room_version").after, Some(json!("12")));
}

#[test]
fn an_acl_says_who_was_and_is_kept_out() {
    let before = json!({"allow": ["*"], "deny": ["evil.example", "old.example"], "allow_ip_literals": true});
    let after =
        json!({"allow": ["*.example"], "deny": ["evil.example", "new.example"], "allow_ip_literals": false});
    let changed = record(&state("m.room.server_acl", "", after, Some(before)));
    assert_eq!((changed.category, &*changed.action), (Category::SystemChange, "room.server_acl.changed"));
    assert_eq!(
        changed.text.as_deref(),
        Some(
            "denied now: new.example\nno longer denied: old.example\nallowed now: *.example\n\
             no longer allowed: *\nIP addresses instead of names: denied now"
        )
    );
    let deny = change(&changed, "/m.room.server_acl/deny");
    assert_eq!(deny.before, Some(json!(["evil.example", "old.example"])));
    assert_eq!(deny.after, Some(json!(["evil.example", "new.example"])));
    let many: Vec<String> = (0..60).map(|i| format!("s{i}.example")).collect();
    let text = record(&state("m.room.server_acl", "", json!({"deny": many}), None)).text.unwrap();
    assert!(text.ends_with(" and 10 more"), "{text}");
}

#[test]
fn pinned_events_are_told_one_by_one() {
    let before = json!({"pinned": ["$a", "$b"]});
    let changed =
        record(&state("m.room.pinned_events", "", json!({"pinned": ["$b", "$c", 7]}), Some(before)));
    assert!(has(&changed, "event", "$c", "pinned") && has(&changed, "event", "$a", "unpinned"));
    assert!(!changed.relations.iter().any(|relation| relation.id == "$b"));
    assert_eq!(changed.text.as_deref(), Some("pinned: $c\nunpinned: $a"));
}

#[test]
fn encryption_is_switched_on_and_never_off() {
    let text = |content: Value, before: Option<Value>| {
        let changed = record(&state("m.room.encryption", "", content, before));
        assert_eq!(changed.action, "room.encryption.changed");
        changed.text.unwrap_or_default()
    };
    let on = json!({"algorithm": "m.megolm.v1.aes-sha2"});
    assert_eq!(text(on.clone(), None), "encryption switched on: m.megolm.v1.aes-sha2");
    let rotates = json!({"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": 1});
    assert!(text(rotates, Some(on.clone())).starts_with("encryption settings changed"));
    assert!(text(json!({"algorithm": "x"}), Some(on.clone())).contains("from m.megolm.v1.aes-sha2 to x"));
    assert!(text(json!({}), Some(on)).ends_with("the room stays encrypted"));
    assert_eq!(text(json!({}), None), "");
}

#[test]
fn a_restricted_room_names_who_may_come_in() {
    let content =
        json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": "!staff"}, 1]});
    let changed = record(&state("m.room.join_rules", "", content, Some(json!({"join_rule": "invite"}))));
    assert_eq!(changed.text.as_deref(), Some("restricted\nopen to members of: !staff"));
    assert!(has(&changed, "room", "!staff", "admits"));
    assert_eq!(change(&changed, "/m.room.join_rules/join_rule").before, Some(json!("invite")));
}

#[test]
fn spaces_are_the_organisation() {
    let via = json!({"via": ["example.org"], "suggested": true});
    let added = record(&state("m.space.child", "!room", via.clone(), None));
    assert_eq!((added.category, &*added.action), (Category::AdminOperation, "space.child.changed"));
    assert_eq!(added.text.as_deref(), Some("room of the space added: !room"));
    assert!(has(&added, "room", "!room", "child"));
    let removed = record(&state("m.space.child", "!room", json!({}), Some(via.clone())));
    assert_eq!(removed.text.as_deref(), Some("room of the space removed: !room"));
    let moved = record(&state("m.space.parent", "!space", json!({"via": ["b"]}), Some(via)));
    assert_eq!((moved.category, &*moved.action), (Category::AdminOperation, "space.parent.changed"));
    assert_eq!(moved.text.as_deref(), Some("space of the room changed: !space"));
    assert!(has(&moved, "space", "!space", "parent"));
}

#[test]
fn a_bridge_is_a_resource_of_its_own() {
    let content = json!({"bridgebot": "@irc:example.org", "creator": BOB,
        "protocol": {"id": "irc", "displayname": "IRC"}, "network": {"id": "libera", "displayname": "Libera"},
        "channel": {"id": "#matrix"}});
    for kind in ["m.bridge", "uk.half-shot.bridge"] {
        let bridged = record(&state(kind, "org.example://irc/libera/#matrix", content.clone(), None));
        assert_eq!(bridged.action, "room.bridge.changed");
        assert_eq!(bridged.text.as_deref(), Some("bridge: IRC, Libera, #matrix"));
        assert!(has(&bridged, "bridge", "org.example://irc/libera/#matrix", "target"));
        assert!(
            has(&bridged, "user", "@irc:example.org", "bridge_bot") && subject_of(&bridged, BOB, "creator")
        );
        let gone = record(&state(kind, "org.example://irc/libera/#matrix", json!({}), Some(content.clone())));
        assert_eq!(gone.text.as_deref(), Some("bridge removed: IRC, Libera, #matrix"));
    }
    assert!(has(&record(&state("m.bridge", "", content, None)), "bridge", "irc", "target"));
}

#[test]
fn a_widget_is_a_resource_of_its_own() {
    let content = json!({"id": "w1", "type": "jitsi", "name": "Meeting", "url": "https://meet.example/x",
        "creatorUserId": BOB});
    for kind in ["m.widget", "im.vector.modular.widgets"] {
        let shown = record(&state(kind, "w1", content.clone(), None));
        assert_eq!(shown.action, "room.widget.changed");
        assert_eq!(shown.text.as_deref(), Some("widget: Meeting, jitsi, https://meet.example/x"));
        assert!(has(&shown, "widget", "w1", "target") && has(&shown, "user", BOB, "creator"));
        let gone = record(&state(kind, "w1", json!({}), Some(content.clone())));
        assert_eq!(gone.text.as_deref(), Some("widget removed: Meeting, jitsi, https://meet.example/x"));
        assert_eq!(change(&gone, &format!("/{kind}/w1/name")).after, None);
    }
}

#[test]
fn a_ban_list_names_whom_it_bans() {
    let content = json!({"entity": "@spam:evil.example", "recommendation": "m.ban", "reason": "spam"});
    let banned = record(&state("m.policy.rule.user", "rule:1", content.clone(), None));
    assert_eq!((banned.category, &*banned.action), (Category::SystemChange, "policy.rule.changed"));
    assert_eq!(banned.text.as_deref(), Some("m.ban @spam:evil.example"));
    assert_eq!(banned.context.reason.as_deref(), Some("spam"));
    assert!(subject_of(&banned, "@spam:evil.example", "target"));
    let lifted = record(&state("m.policy.rule.user", "rule:1", json!({}), Some(content)));
    assert_eq!(lifted.text.as_deref(), Some("rule removed: @spam:evil.example"));
    let many = json!({"entity": "*.evil.example", "recommendation": "m.ban"});
    let pattern = record(&state("m.policy.rule.server", "rule:2", many, None));
    assert!(!pattern.relations.iter().any(|relation| relation.kind == "server"));
    let one = json!({"entity": "evil.example", "recommendation": "org.matrix.mjolnir.ban"});
    let server = record(&state("org.matrix.mjolnir.rule.server", "rule:3", one, None));
    assert_eq!(server.action, "policy.rule.changed");
    assert!(has(&server, "server", "evil.example", "target"));
}

#[test]
fn a_room_has_addresses() {
    let content = json!({"alias": "#main:example.org", "alt_aliases": ["#other:example.org"]});
    let named = record(&state("m.room.canonical_alias", "", content, None));
    assert_eq!(named.text.as_deref(), Some("#main:example.org\n#other:example.org"));
}
