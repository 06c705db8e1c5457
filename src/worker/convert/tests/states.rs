//! State: membership, permissions, and what stood there before.

use serde_json::json;

use super::*;

#[test]
fn membership_has_target_reason_and_both_values() {
    let record = record(&state(
        "m.room.member",
        BOB,
        json!({"membership": "leave", "reason": "flooding"}),
        Some(json!({"membership": "join", "displayname": "Bob"})),
    ));
    assert_eq!(record.action, "room.member.kicked");
    assert_eq!(record.context.reason.as_deref(), Some("flooding"));
    assert!(subject_of(&record, BOB, "target") && has(&record, "user", BOB, "target"));
    let membership = change(&record, "/m.room.member/@bob:example.org/membership");
    assert_eq!((membership.before, membership.after), (Some(json!("join")), Some(json!("leave"))));
}

#[test]
fn power_levels_say_who_gained_what() {
    let record = record(&state(
        "m.room.power_levels",
        "",
        json!({"users": {ALICE: 100, BOB: 50}, "ban": 50}),
        Some(json!({"users": {ALICE: 100}, "ban": 100})),
    ));
    assert_eq!(record.action, "room.power_levels.changed");
    assert_eq!(
        record.text.as_deref(),
        Some("@bob:example.org gained power: 0 → 50\nbanning people needs 50, needed 100")
    );
    assert_eq!(change(&record, "/m.room.power_levels/users/@bob:example.org").after, Some(json!(50)));
    assert_eq!(change(&record, "/m.room.power_levels/ban").before, Some(json!(100)));
    assert_eq!(record.changes.len(), 2);
}

#[test]
fn state_without_its_previous_content_is_looked_up() {
    let mut named = state("m.room.name", "", json!({"name": "new"}), None);
    named["unsigned"] = json!({"replaces_state": "$old"});
    let raw = named.to_string();
    let input = Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None };
    assert_eq!(needs(&input), newest("$old"));
    let old = earlier(&state("m.room.name", "", json!({"name": "old"}), None));
    let record = convert(&input, Some(&old));
    assert_eq!((record.category, record.action.as_str()), (Category::ResourceChange, "room.name.changed"));
    assert_eq!(change(&record, "/m.room.name/name").before, Some(json!("old")));
}

#[test]
fn power_levels_also_say_what_needs_how_much() {
    let before = json!({"users": {ALICE: 100, BOB: "50"}, "users_default": 0, "invite": 0, "redact": 50,
        "events": {"m.room.name": 50, "m.room.topic": 50}, "notifications": {"room": 50}});
    let after = json!({"users": {ALICE: 100, "@c:x": 10}, "users_default": 10, "invite": 50,
        "events": {"m.room.name": 100, "m.reaction": 0}, "notifications": {"room": 100}});
    let changed = record(&state("m.room.power_levels", "", after, Some(before)));
    let text = changed.text.unwrap();
    for line in [
        "@bob:example.org lost power: 50 → 10",
        "everybody else gained power: 0 → 10",
        "inviting people needs 50, needed 0",
        "notifying everybody needs 100, needed 50",
        "m.room.name needs 100, needed 50",
        "m.room.topic needs the default, needed 50",
        "m.reaction needs 0, needed the default",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in {text}");
    }
    assert!(text.lines().any(|line| line == "@c:x gained power: 0 → 10"), "{text}");
    assert!(!text.contains("alice") && !text.contains("removing"), "{text}");
}

#[test]
fn the_first_power_levels_have_nothing_before() {
    let first = record(&state("m.room.power_levels", "", json!({"users": {ALICE: 100}, "ban": 75}), None));
    let expected = "@alice:example.org gained power: 0 → 100\nbanning people needs 75";
    assert_eq!(first.text.as_deref(), Some(expected));
}

#[test]
fn somebody_knocks_with_a_reason() {
    let mut knock =
        state("m.room.member", ALICE, json!({"membership": "knock", "reason": "let me in"}), None);
    let knocked = record(&knock);
    assert_eq!(knocked.action, "room.member.knocked");
    assert_eq!(knocked.context.reason.as_deref(), Some("let me in"));
    knock["sender"] = BOB.into();
    knock["content"] = json!({"membership": "leave", "reason": "no"});
    knock["unsigned"] = json!({"prev_content": {"membership": "knock", "reason": "let me in"}});
    let denied = record(&knock);
    assert_eq!(denied.action, "room.member.knock_denied");
    assert_eq!(denied.context.reason.as_deref(), Some("no"));
    let reason = change(&denied, "/m.room.member/@alice:example.org/reason");
    assert_eq!(reason.before, Some(json!("let me in")));
}

#[test]
fn somebody_is_invited_by_mail() {
    let invite =
        json!({"display_name": "carol@…", "public_key": "k", "key_validity_url": "https://id.example"});
    let invited = record(&state("m.room.third_party_invite", "token", invite.clone(), None));
    assert_eq!(invited.action, "room.third_party_invite.changed");
    assert_eq!(invited.text.as_deref(), Some("invited by mail or phone: carol@…"));
    assert!(has(&invited, "state", "m.room.third_party_invite/token", "target"));
    let withdrawn = record(&state("m.room.third_party_invite", "token", json!({}), Some(invite)));
    assert_eq!(withdrawn.text.as_deref(), Some("invitation withdrawn: carol@…"));
    let content = json!({"membership": "invite",
        "third_party_invite": {"display_name": "carol@…", "signed": {"mxid": BOB, "token": "token"}}});
    let accepted = record(&state("m.room.member", BOB, content, None));
    assert_eq!(accepted.action, "room.member.invited");
    assert!(has(&accepted, "state", "m.room.third_party_invite/token", "accepts"));
    assert_eq!(accepted.text.as_deref(), Some("carol@…"));
}

#[test]
fn every_type_of_the_table_has_its_verb() {
    for row in crate::worker::convert::vocabulary::STATES {
        for kind in row.of {
            let kind = kind.replace('*', "anything");
            let made = record(&state(&kind, "", json!({}), None));
            assert_eq!((made.category, &*made.action), (row.verb.category, row.verb.action), "{kind}");
        }
    }
    let unknown = record(&state("org.example.custom", "key", json!({"a": 1}), Some(json!({"a": 0}))));
    assert_eq!(unknown.action, "room.state.changed");
    assert!(has(&unknown, "state", "org.example.custom/key", "target"));
    assert_eq!(change(&unknown, "/org.example.custom/key/a").before, Some(json!(0)));
}

#[test]
fn state_that_was_redacted_before_capture_is_fetched() {
    let mut gone = state("m.room.topic", "", json!({}), Some(json!({"topic": "old"})));
    gone["unsigned"]["redacted_because"] = json!({"event_id": "$red"});
    assert_eq!(need(&gone), Some(Need::Original("$e".into())));
    let kept = Earlier::Event(state("m.room.topic", "", json!({"topic": "was here"}), None));
    let topic = record_with(&gone, Some(&kept));
    assert_eq!(topic.text.as_deref(), Some("was here"));
    assert_eq!(change(&topic, "/m.room.topic/topic").before, Some(json!("old")));
    assert_eq!(change(&topic, "/m.room.topic/topic").after, Some(json!("was here")));
    assert!(has(&topic, "event", "$red", "redacted_by"));
    let unknown = record(&gone);
    assert_eq!(change(&unknown, "/m.room.topic/topic").after, None);
}

#[test]
fn a_redaction_of_state_says_which() {
    let name = state("m.room.name", "", json!({"name": "gone"}), None);
    let redaction = event("m.room.redaction", json!({"redacts": "$e", "reason": "typo"}));
    let redacted = record_with(&redaction, Some(&earlier(&name)));
    assert_eq!(redacted.action, "room.state.redacted");
    assert!(has(&redacted, "state", "m.room.name/", "target"));
    assert_eq!(change(&redacted, "/content/name").before, Some(json!("gone")));
}
