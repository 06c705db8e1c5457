//! What is broken, forged, late, early or huge.

use serde_json::json;

use super::*;

#[test]
fn a_plaintext_cannot_pretend_to_be_state() {
    let cipher = event("m.room.encrypted", json!({})).to_string();
    let plain = state("m.room.power_levels", "", json!({"users": {ALICE: 100}}), None).to_string();
    let plaintext = Plaintext { raw: &plain, trust: Trust::UnknownDevice, device_id: None, session_id: None };
    let input =
        Input { room_id: "!r", raw: &cipher, encryption: Encryption::Decrypted(plaintext), caused_by: None };
    assert_eq!(convert(&input, None).action, "event.sent");
}

#[test]
fn malformed_events_are_recorded_as_they_came() {
    for raw in ["", "nonsense", "[]", "{}", r#"{"event_id":7,"sender":[]}"#] {
        let input = Input { room_id: "!r", raw, encryption: Encryption::None, caused_by: None };
        let record = convert(&input, None);
        assert_eq!(record.action, "event.malformed", "{raw}");
        assert_eq!(record.source_raw.as_deref(), Some(raw));
        assert!(record.source_id.starts_with("matrix:opaque:"));
    }
    let (one, two) = (digest_id("!r", "a"), digest_id("!s", "a"));
    assert_ne!(one, two);
}

#[test]
fn a_content_too_deep_to_read_still_has_sender_and_event() {
    let deep = format!("{}1{}", "{\"a\":".repeat(400), "}".repeat(400));
    let raw = format!(
        r#"{{"event_id":"$e","sender":"{ALICE}","type":"m.room.message","origin_server_ts":1,"content":{deep}}}"#
    );
    let input = Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None };
    let record = convert(&input, None);
    assert_eq!((record.source_id.as_str(), record.action.as_str()), ("matrix:event:$e", "message.sent"));
    assert!(has(&record, "field", "content", "unreadable"));
}

#[test]
fn what_cannot_be_read_is_told_beside_the_reason_that_somebody_gave() {
    let raw = |reason: &str| {
        format!(
            r#"{{"event_id":"$e","sender":"{ALICE}","type":"m.room.redaction","origin_server_ts":1e999,
                "content":{{"redacts":"$m","reason":"{reason}"}}}}"#
        )
    };
    // Whatever somebody gives as a reason, it says nothing of the event's parts.
    for reason in ["spam", "unreadable: content"] {
        let raw = raw(reason);
        let input = Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None };
        let record = convert(&input, None);
        is_of_the_vocabulary(&record);
        assert_eq!(record.context.reason.as_deref(), Some(reason));
        let fields = record.relations.iter().filter(|relation| relation.kind == "field");
        let fields: Vec<&str> = fields.map(|relation| relation.id.as_str()).collect();
        assert_eq!(fields, ["origin_server_ts"]);
    }
    let whole = record(&event("m.room.redaction", json!({"redacts": "$m", "reason": "unreadable: content"})));
    assert!(whole.relations.iter().all(|relation| relation.kind != "field"));
}

#[test]
fn of_very_many_fields_that_cannot_be_read_the_first_ones_are_named() {
    let fields: Vec<String> = (0..2_000).map(|i| format!(r#""f{i}":1e999"#)).collect();
    let fields = fields.join(",");
    let raw = format!(r#"{{"event_id":"$e","sender":"{ALICE}","type":"m.room.message",{fields}}}"#);
    let input = Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None };
    let record = convert(&input, None);
    assert_eq!(record.relations.iter().filter(|relation| relation.kind == "field").count(), 50);
}

#[test]
fn what_was_redacted_before_capture_is_fetched() {
    let mut gone = event("m.room.message", json!({}));
    gone["unsigned"] = json!({"redacted_because": {"event_id": "$red"}});
    let raw = gone.to_string();
    let input = Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None };
    assert_eq!(needs(&input), Some(Need::Original("$e".into())));
    let kept = Earlier::Event(event("m.room.message", json!({"body": "was here"})));
    let record = convert(&input, Some(&kept));
    assert_eq!(record.text.as_deref(), Some("was here"));
    assert_eq!(change(&record, "/content/body").before, Some(json!("was here")));
    assert!(has(&record, "event", "$red", "redacted_by"));
}

#[test]
fn a_reaction_that_was_taken_back_before_capture_is_fetched() {
    let mut gone = event("m.reaction", json!({}));
    gone["unsigned"] = json!({"redacted_because": {"event_id": "$red"}});
    let relation = json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "$m", "key": "👍"}});
    let kept = Earlier::Event(event("m.reaction", relation));
    let record = record_with(&gone, Some(&kept));
    assert!(has(&record, "event", "$m", "reacts_to"));
    assert_eq!(record.text.as_deref(), Some("👍"));
}

#[test]
fn an_edit_of_somebody_elses_message_is_no_edit() {
    let mut original = event("m.room.message", json!({"msgtype": "m.text", "body": "old"}));
    original["sender"] = BOB.into();
    let record = record_with(&edit_of("$e", "forged"), Some(&earlier(&original)));
    assert_eq!(record.action, "message.edit_ignored");
    assert!(!has(&record, "event", "$e", "replaces") && has(&record, "event", "$e", "claims_to_replace"));
    assert!(record.changes.is_empty());
    assert!(subject_of(&record, BOB, "author"));
}

/// A message whose ciphertext opened to this text.
fn decrypted(raw: &str) -> RecordDraft {
    let cipher = event("m.room.encrypted", json!({"ciphertext": "x", "session_id": "s"})).to_string();
    let plaintext =
        Plaintext { raw, trust: Trust::VerifiedDevice, device_id: Some("DEV"), session_id: Some("s") };
    let record = convert(
        &Input { room_id: "!r", raw: &cipher, encryption: Encryption::Decrypted(plaintext), caused_by: None },
        None,
    );
    is_of_the_vocabulary(&record);
    record
}

#[test]
fn a_plaintext_that_is_no_event_is_kept_as_it_is() {
    for raw in ["", "nonsense", "[1]", "{}", r#"{"type":7,"content":{}}"#, "{\"type\":\"m.room.message\""] {
        let record = decrypted(raw);
        assert_eq!(record.action, "event.malformed", "{raw}");
        assert_eq!(record.source_id, "matrix:event:$e");
        assert_eq!(record.plaintext_raw.as_deref(), Some(raw));
        assert_eq!((record.trust, record.actor), (Trust::VerifiedDevice, Actor::matrix(ALICE)));
    }
    assert!(has(&decrypted("nonsense"), "field", ".", "unreadable"));
    let odd = decrypted(r#"{"type":"m.room.message","content":7}"#);
    assert_eq!((odd.action.as_str(), odd.text), ("message.sent", None));
}

#[test]
fn a_ciphertext_without_content_or_within_another_one_is_corrupt() {
    let empty = record(&event("m.room.encrypted", json!({})));
    let nested = decrypted(r#"{"type":"m.room.encrypted","content":{"ciphertext":"y"}}"#);
    for record in [empty, nested] {
        assert_eq!(record.action, "message.undecryptable");
        assert_eq!(record.undecryptable_reason.as_deref(), Some("corrupt"));
        assert_eq!(record.trust, Trust::Undecryptable);
    }
}

#[test]
fn a_ciphertext_that_was_redacted_before_capture_is_not_undecryptable() {
    let mut gone = event("m.room.encrypted", json!({}));
    gone["unsigned"] = json!({"redacted_because": {"event_id": "$red"}});
    assert_eq!(need(&gone), Some(Need::Original("$e".into())));
    let nothing = record(&gone);
    assert_eq!((nothing.action.as_str(), nothing.trust), ("message.emptied", Trust::Plain));
    assert!(has(&nothing, "event", "$red", "redacted_by"));
    // The homeserver still had it, and the key was there.
    let relation = json!({"body": "was here", "m.relates_to": {"rel_type": "m.thread", "event_id": "$root"}});
    let opened = record_with(&gone, Some(&Earlier::Event(event("m.room.message", relation))));
    assert_eq!((opened.action.as_str(), opened.text.as_deref()), ("message.sent", Some("was here")));
    assert!(has(&opened, "event", "$root", "thread"));
    let closed =
        record_with(&gone, Some(&Earlier::Event(event("m.room.encrypted", json!({"ciphertext": "x"})))));
    assert_eq!(closed.action, "message.emptied");
}

#[test]
fn absurd_times_are_kept_as_claimed_or_unknown() {
    let at = |time: Value| {
        let mut message = event("m.room.message", json!({"body": "b"}));
        message["origin_server_ts"] = time;
        record(&message).occurred
    };
    assert_eq!(at(json!(i64::MAX)), Occurred::At(i64::MAX));
    assert_eq!(at(json!(i64::MIN)), Occurred::At(i64::MIN));
    assert_eq!(at(json!(0)), Occurred::At(0));
    for time in [json!(u64::MAX), json!(1e300), json!(1.5), json!("now"), json!(null), json!([1])] {
        assert_eq!(at(time.clone()), Occurred::Unknown, "{time}");
    }
    let raw = format!(
        r#"{{"event_id":"$e","sender":"{ALICE}","type":"m.room.message","origin_server_ts":1e999,"content":{{"body":"b"}}}}"#
    );
    let input = Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None };
    let record = convert(&input, None);
    assert_eq!((record.occurred, record.text.as_deref()), (Occurred::Unknown, Some("b")));
    assert!(has(&record, "field", "origin_server_ts", "unreadable"));
}

#[test]
fn a_redaction_may_come_before_what_it_redacts() {
    let redaction = event("m.room.redaction", json!({"redacts": "$later", "reason": "spam"}));
    assert_eq!(need(&redaction), newest("$later"));
    let early = record(&redaction);
    assert_eq!(early.action, "event.redacted");
    assert!(has(&early, "event", "$later", "redacts") && early.changes.is_empty());
    assert_eq!(early.context.reason.as_deref(), Some("spam"));
    // What it redacts arrives emptied, and names the redaction.
    let mut late = event("m.room.message", json!({}));
    late["event_id"] = "$later".into();
    late["unsigned"] = json!({"redacted_because": {"event_id": "$e"}});
    let late = record(&late);
    assert_eq!((late.action.as_str(), late.text.as_deref()), ("message.sent", None));
    assert!(has(&late, "event", "$e", "redacted_by"));
    // One that names nothing redacts nothing.
    let aimless = record(&event("m.room.redaction", json!({"reason": "spam"})));
    assert_eq!(aimless.action, "event.redacted");
}

#[test]
fn an_edit_may_come_before_what_it_edits() {
    let edited = record(&edit_of("$later", "new"));
    assert_eq!(edited.action, "message.edited");
    assert!(has(&edited, "event", "$later", "replaces"));
    assert_eq!(change(&edited, "/content/body").before, None);
}

#[test]
fn an_edit_of_another_type_is_no_edit() {
    let poll = event("m.poll.start", json!({"m.poll": {}}));
    let record = record_with(&edit_of("$e", "forged"), Some(&earlier(&poll)));
    assert_eq!(record.action, "message.edit_ignored");
}

/// State events come in the timeline, among the room's state, or both, and with or without what
/// they replace: it is one event, and one record.
#[test]
fn an_event_that_arrives_twice_is_one_record() {
    let timeline = state("m.room.name", "", json!({"name": "n"}), Some(json!({"name": "old"})));
    let among_state = state("m.room.name", "", json!({"name": "n"}), None);
    assert_eq!(record(&timeline).source_id, record(&among_state).source_id);
    let sent = event("m.room.message", json!({"body": "b"}));
    let mut echoed = sent.clone();
    echoed["unsigned"] = json!({"transaction_id": "t1", "age": 5});
    assert_eq!(record(&sent).source_id, record(&echoed).source_id);
    // The same transaction may be used again for another event.
    let mut other = echoed.clone();
    other["event_id"] = "$other".into();
    assert_ne!(record(&echoed).source_id, record(&other).source_id);
}

/// After a state reset an older event is in force again: what it replaces is what the homeserver
/// says, whatever the times are.
#[test]
fn an_older_state_event_may_replace_a_newer_one() {
    let mut reset = state("m.room.name", "", json!({"name": "old"}), Some(json!({"name": "newer"})));
    reset["origin_server_ts"] = 1_600_000_000_000_i64.into();
    reset["unsigned"]["replaces_state"] = "$newer".into();
    assert_eq!(need(&reset), None);
    let back = record(&reset);
    assert_eq!(change(&back, "/m.room.name/name").before, Some(json!("newer")));
    assert_eq!(change(&back, "/m.room.name/name").after, Some(json!("old")));
    assert_eq!(back.occurred, Occurred::At(1_600_000_000_000));
    assert!(has(&back, "event", "$newer", "replaces_state"));
}

/// The same where no event comes: what the trail says was in force is what was there before.
#[test]
fn what_is_in_force_again_has_both_events_and_no_actor() {
    let member = |id: &str, sender: &str, membership: &str| {
        let content = json!({"membership": membership, "reason": "of that time"});
        let mut event = state("m.room.member", BOB, content, None);
        (event["event_id"], event["sender"]) = (id.into(), sender.into());
        event
    };
    let known = record(&member("$ban", ALICE, "ban"));
    let mut joined = member("$join", BOB, "join");
    joined["unsigned"] = json!({"replaces_state": "$invite", "redacted_because": {"event_id": "$red"}});
    let at = Occurred::Between(1, 2);
    let again = |known: &RecordDraft, event: &Value| {
        let again = reset("!r", &event.to_string(), known, at);
        is_of_the_vocabulary(&again);
        again
    };
    let back = again(&known, &joined);
    assert_eq!((back.category, back.action.as_str()), (Category::ResourceChange, "room.state.reset"));
    let membership = change(&back, "/m.room.member/@bob:example.org/membership");
    assert_eq!((membership.before, membership.after), (Some(json!("ban")), Some(json!("join"))));
    assert_eq!((&back.actor, back.occurred, &back.context.reason), (&Actor::Unknown, at, &None));
    assert!(has(&back, "event", "$join", "restored") && has(&back, "event", "$ban", "replaces_state"));
    assert!(has(&back, "event", "$red", "redacted_by") && has(&back, "user", BOB, "target"));
    assert!(!has(&back, "event", "$join", "self") && !has(&back, "event", "$invite", "replaces_state"));
    assert!(subject_of(&back, BOB, "author") && subject_of(&back, BOB, "target"));
    assert!(subject_of(&back, ALICE, "author") && !subject_of(&back, BOB, "actor"));
    assert_eq!(back.source_raw, Some(joined.to_string()));
    assert_eq!((restored(&known), restored(&back)), (Some("$ban"), Some("$join")));
    // The same is told again; what ends this is another one, and so is the same after that.
    assert_eq!(again(&known, &joined).source_id, back.source_id);
    let banned = again(&back, &member("$ban", ALICE, "ban"));
    assert_eq!(change(&banned, "/m.room.member/@bob:example.org/membership").before, Some(json!("join")));
    assert!(has(&banned, "event", "$join", "replaces_state") && subject_of(&banned, BOB, "author"));
    assert_ne!(again(&banned, &joined).source_id, back.source_id);
}

#[test]
fn the_largest_events_are_recorded_whole() {
    let body = "é".repeat(32_000);
    let message = event("m.room.message", json!({"msgtype": "m.text", "body": body}));
    assert!(message.to_string().len() > 64_000);
    let sent = record(&message);
    assert_eq!((sent.text, sent.source_raw), (Some(body), Some(message.to_string())));
    let people: serde_json::Map<String, Value> =
        (0..2_000).map(|i| (format!("@user{i}:example.org"), json!(i))).collect();
    let levels = record(&state("m.room.power_levels", "", json!({"users": people.clone()}), None));
    assert_eq!(levels.text.unwrap().lines().count(), 50);
    assert_eq!(levels.changes.len(), 1, "one change of the whole");
    assert_eq!(levels.changes[0].after.as_ref().unwrap()["users"], json!(people));
    let pins: Vec<String> = (0..1_400).map(|i| format!("$event{i}")).collect();
    let pinned = record(&state("m.room.pinned_events", "", json!({"pinned": pins}), None));
    assert_eq!(pinned.relations.iter().filter(|relation| relation.role == "pinned").count(), 50);
    assert_eq!(change(&pinned, "/m.room.pinned_events/pinned").after, Some(json!(pins)));
}
