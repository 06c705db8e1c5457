//! Calls and live locations.

use serde_json::json;

use super::*;

#[test]
fn the_steps_of_a_call_belong_together() {
    let step = |kind: &str, mut content: Value| {
        content["call_id"] = "c1".into();
        let step = record(&event(kind, content));
        assert!(has(&step, "call", "c1", "part_of"), "{kind}");
        step
    };
    let video =
        step("m.call.invite", json!({"invitee": BOB, "offer": {"sdp": "v=0\r\nm=audio 9\r\nm=video 9"}}));
    assert_eq!((video.action.as_str(), video.text.as_deref()), ("call.invited", Some("video call")));
    assert!(subject_of(&video, BOB, "target") && has(&video, "user", BOB, "target"));
    let voice = step("m.call.invite", json!({"offer": {"sdp": "v=0\r\nm=audio 9"}}));
    assert_eq!(voice.text.as_deref(), Some("voice call"));
    assert_eq!(step("m.call.answer", json!({})).action, "call.answered");
    assert_eq!(step("m.call.reject", json!({})).action, "call.rejected");
    let over = step("m.call.hangup", json!({"reason": "ice_failed"}));
    assert_eq!((over.action.as_str(), over.context.reason.as_deref()), ("call.ended", Some("ice_failed")));
    for kind in [
        "m.call.candidates",
        "m.call.select_answer",
        "m.call.negotiate",
        "m.call.sdp_stream_metadata_changed",
        "org.matrix.call.sdp_stream_metadata_changed",
        "m.call.replaces",
        "m.call.asserted_identity",
        "m.call.something_new",
        "io.element.call.encryption_keys",
    ] {
        assert_eq!(step(kind, json!({})).action, "call.signalled", "{kind}");
    }
}

#[test]
fn a_group_call_is_announced_and_declined() {
    let ring = json!({"notification_type": "ring", "m.mentions": {"user_ids": [BOB]},
        "m.relates_to": {"rel_type": "m.reference", "event_id": "$member"}});
    let rings = record(&event("org.matrix.msc4075.rtc.notification", ring));
    assert_eq!((rings.action.as_str(), rings.text.as_deref()), ("call.announced", Some("the call rings")));
    assert!(has(&rings, "event", "$member", "references") && subject_of(&rings, BOB, "mentioned"));
    let older = record(&event("m.call.notify", json!({"notify_type": "notify", "call_id": ""})));
    assert_eq!((older.action.as_str(), older.text.as_deref()), ("call.announced", Some("a call began")));
    assert!(!older.relations.iter().any(|relation| relation.kind == "call"));
    let reference = json!({"m.relates_to": {"rel_type": "m.reference", "event_id": "$ring"}});
    let declined = record(&event("org.matrix.msc4310.rtc.decline", reference));
    assert_eq!(declined.action, "call.rejected");
    assert!(has(&declined, "event", "$ring", "references"));
}

#[test]
fn who_is_in_a_call_is_told() {
    let part = |content: Value, before: Option<Value>| {
        let part =
            record(&state("org.matrix.msc3401.call.member", "_@alice:example.org_DEV", content, before));
        assert_eq!(part.action, "call.member.changed");
        part.text.unwrap()
    };
    let device = json!({"application": "m.call", "call_id": "", "device_id": "DEV"});
    assert_eq!(part(device.clone(), None), "joined the call");
    assert_eq!(part(device.clone(), Some(json!({}))), "joined the call");
    assert_eq!(part(device.clone(), Some(device.clone())), "stays in the call");
    assert_eq!(part(json!({}), Some(device.clone())), "left the call");
    assert_eq!(part(json!({"leave_reason": "lostConnection"}), Some(device)), "left the call");
    assert_eq!(part(json!({"memberships": []}), Some(json!({"memberships": [{}]}))), "left the call");
    let message = record(&event("org.matrix.msc4143.rtc.member", json!({"application": {}})));
    assert_eq!(
        (message.action.as_str(), message.text.as_deref()),
        ("call.member.changed", Some("joined the call"))
    );
}

#[test]
fn a_live_location_begins_moves_and_ends() {
    for (info, beacon, place) in [
        ("m.beacon_info", "m.beacon", "m.location"),
        ("org.matrix.msc3672.beacon_info", "org.matrix.msc3672.beacon", "org.matrix.msc3488.location"),
    ] {
        let live = json!({"live": true, "timeout": 3_600_000, "description": "on the way"});
        let began = record(&state(info, ALICE, live.clone(), None));
        assert_eq!(began.action, "location.sharing.changed");
        assert_eq!(began.text.as_deref(), Some("live location is shared for 60 min: on the way"));
        assert!(subject_of(&began, ALICE, "target"));
        let ended = record(&state(info, ALICE, json!({"live": false}), Some(live)));
        assert_eq!(ended.text.as_deref(), Some("live location is no longer shared"));
        let content = json!({place: {"uri": "geo:1,2", "description": "bridge"},
            "m.relates_to": {"rel_type": "m.reference", "event_id": "$info"}});
        let moved = record(&event(beacon, content));
        assert_eq!(
            (moved.action.as_str(), moved.text.as_deref()),
            ("location.updated", Some("bridge\ngeo:1,2"))
        );
        assert!(has(&moved, "event", "$info", "references"));
    }
}
