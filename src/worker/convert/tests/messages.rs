//! Kinds of messages.

use serde_json::json;

use super::*;
use crate::worker::convert::vocabulary as tables;

#[test]
fn every_type_of_the_table_has_its_verb() {
    for row in tables::MESSAGES {
        for kind in row.of {
            let kind = kind.replace('*', "anything");
            let made = record(&event(&kind, json!({})));
            assert_eq!((made.category, &*made.action), (row.verb.category, row.verb.action), "{kind}");
        }
    }
    for row in tables::MSGTYPES {
        for kind in row.of {
            let made = record(&event("m.room.message", json!({"msgtype": kind, "body": "b"})));
            assert_eq!(made.action, row.verb.action, "{kind}");
        }
    }
    for kind in ["m.text", "m.notice", "m.emote", "m.server_notice", "org.example.unknown"] {
        let made = record(&event("m.room.message", json!({"msgtype": kind, "body": "b"})));
        assert_eq!((made.action.as_str(), made.text.as_deref()), ("message.sent", Some("b")), "{kind}");
    }
    let unknown = record(&event("org.example.custom", json!({"body": "b"})));
    assert_eq!((unknown.action.as_str(), unknown.text.as_deref()), ("event.sent", Some("b")));
}

#[test]
fn every_type_that_is_redacted_has_its_verb() {
    let redaction = event("m.room.redaction", json!({"redacts": "$e"}));
    for row in tables::REDACTIONS {
        for kind in row.of {
            let gone = record_with(&redaction, Some(&Earlier::Event(event(kind, json!({"body": "b"})))));
            assert_eq!(gone.action, row.verb.action, "{kind}");
        }
    }
    let poll = json!({"m.poll": {"question": {"m.text": [{"body": "Lunch?"}]}}});
    let gone = record_with(&redaction, Some(&Earlier::Event(event("m.poll.start", poll))));
    assert_eq!((gone.action.as_str(), gone.text.as_deref()), ("event.redacted", Some("Lunch?")));
}

#[test]
fn a_voice_message_is_told_from_a_file() {
    let file = json!({"msgtype": "m.audio", "body": "Voice message", "url": "mxc://example.org/v",
        "info": {"duration": 11_400}, "org.matrix.msc3245.voice": {}});
    let spoken = record(&event("m.room.message", file.clone()));
    assert_eq!(spoken.action, "message.voice_sent");
    assert_eq!(spoken.text.as_deref(), Some("Voice message\nvoice message of 12 s"));
    assert!(has(&spoken, "media", "mxc://example.org/v", "attached"));
    let mut song = file;
    song.as_object_mut().unwrap().remove("org.matrix.msc3245.voice");
    let song = record(&event("m.room.message", song));
    assert_eq!((song.action.as_str(), song.text.as_deref()), ("message.file_sent", Some("Voice message")));
}

#[test]
fn a_location_has_its_coordinates_and_description() {
    let content = json!({"msgtype": "m.location", "body": "Location was shared", "geo_uri": "geo:51.5,-0.1;u=35",
        "org.matrix.msc3488.location": {"uri": "geo:51.5,-0.1;u=35", "description": "the office"},
        "m.text": [{"body": "Location was shared"}]});
    let sent = record(&event("m.room.message", content));
    assert_eq!(sent.action, "message.location_sent");
    assert_eq!(sent.text.as_deref(), Some("Location was shared\ngeo:51.5,-0.1;u=35\nthe office"));
}

#[test]
fn a_sticker_has_its_name_and_picture() {
    let content = json!({"body": "a cat", "url": "mxc://example.org/cat",
        "info": {"thumbnail_url": "mxc://example.org/small"}});
    let sent = record(&event("m.sticker", content));
    assert_eq!((sent.action.as_str(), sent.text.as_deref()), ("message.sticker_sent", Some("a cat")));
    assert!(has(&sent, "media", "mxc://example.org/cat", "attached"));
    assert!(has(&sent, "media", "mxc://example.org/small", "thumbnail"));
}

fn stable_poll() -> Value {
    json!({"m.text": [{"body": "Lunch? 1. Soup 2. Salad"}], "m.poll": {
        "question": {"m.text": [{"body": "Lunch?"}]}, "max_selections": 1,
        "answers": [{"m.id": "a", "m.text": [{"body": "Soup"}]}, {"m.id": "b", "m.text": [{"body": "Salad"}]}]}})
}

fn unstable_poll() -> Value {
    json!({"org.matrix.msc1767.text": "Lunch? 1. Soup 2. Salad", "org.matrix.msc3381.poll.start": {
        "question": {"org.matrix.msc1767.text": "Lunch?", "body": "Lunch?", "msgtype": "m.text"},
        "answers": [{"id": "a", "org.matrix.msc1767.text": "Soup"}, {"id": "b", "org.matrix.msc1767.text": "Salad"}]}})
}

#[test]
fn polls_are_told_in_words() {
    let reference = json!({"rel_type": "m.reference", "event_id": "$e"});
    for (prefix, poll, chosen) in [
        ("m", stable_poll(), json!({"m.selections": ["b"]})),
        (
            "org.matrix.msc3381",
            unstable_poll(),
            json!({"org.matrix.msc3381.poll.response": {"answers": ["b"]}}),
        ),
    ] {
        let start = event(&format!("{prefix}.poll.start"), poll);
        let started = record(&start);
        assert_eq!(started.action, "poll.started");
        assert_eq!(started.text.as_deref(), Some("Lunch?\nSoup\nSalad"));

        let mut content = chosen;
        content["m.relates_to"] = reference.clone();
        let response = event(&format!("{prefix}.poll.response"), content);
        assert_eq!(need(&response), newest("$e"));
        let answered = record_with(&response, Some(&earlier(&start)));
        assert_eq!(
            (answered.action.as_str(), answered.text.as_deref()),
            ("poll.answered", Some("Lunch?\nSalad"))
        );
        assert!(has(&answered, "event", "$e", "references"));
        assert_eq!(record(&response).text.as_deref(), Some("b"), "the poll is not known");

        let end = json!({"m.relates_to": reference.clone(), "m.text": "It is over", "org.matrix.msc1767.text": "x"});
        let end = event(&format!("{prefix}.poll.end"), end);
        assert_eq!(need(&end), newest("$e"));
        let ended = record_with(&end, Some(&earlier(&start)));
        assert_eq!(
            (ended.action.as_str(), ended.text.as_deref()),
            ("poll.ended", Some("Lunch?\nIt is over"))
        );
    }
}

#[test]
fn an_answer_can_be_taken_back_or_name_what_is_not_there() {
    let poll = earlier(&event("m.poll.start", stable_poll()));
    let answer = |chosen: Value| {
        let content =
            json!({"m.selections": chosen, "m.relates_to": {"rel_type": "m.reference", "event_id": "$e"}});
        record_with(&event("m.poll.response", content), Some(&poll)).text.unwrap()
    };
    assert_eq!(answer(json!([])), "Lunch?\nno answer");
    assert_eq!(answer(json!(["z", 7, "a"])), "Lunch?\nz\nSoup");
    assert_eq!(answer(json!("nonsense")), "Lunch?\nno answer");
}

#[test]
fn what_a_poll_says_beside_question_and_answers_is_kept() {
    let text = |kind: &str, content: Value| record(&event(kind, content)).text.unwrap();
    // As clients write it for those that do not know polls.
    for (key, poll) in [("m.text", stable_poll()), ("org.matrix.msc1767.text", unstable_poll())] {
        for fallback in ["Lunch?\n1. Soup\n2. Salad", "Lunch?\n- Soup\n- Salad\n", "Lunch?", "Soup Salad"] {
            let mut poll = poll.clone();
            poll[key] = fallback.into();
            poll["body"] = fallback.into();
            assert_eq!(text("m.poll.start", poll), "Lunch?\nSoup\nSalad", "{fallback}");
        }
        for more in ["Lunch?\n1. Soup\n2. Salad\n3. Fish", "Lunch? Souper", "Vote now!", "Salad\nSoup"] {
            let mut poll = poll.clone();
            poll[key] = more.into();
            assert_eq!(text("m.poll.start", poll), format!("{more}\nLunch?\nSoup\nSalad"));
        }
    }
    // Answers that look like the numbers of others.
    let numbers = json!({"m.text": "When?\n1. 1\n2. 2", "m.poll": {"question": {"m.text": "When?"},
        "answers": [{"m.id": "a", "m.text": "1"}, {"m.id": "b", "m.text": "2"}]}});
    assert_eq!(text("m.poll.start", numbers), "When?\n1\n2");
    // Of a form that nobody knows the text is all there is.
    let unknown = json!({"m.text": "Lunch?\n1. Soup", "org.example.poll": {"ask": "Lunch?"}});
    assert_eq!(text("m.poll.start", unknown), "Lunch?\n1. Soup");
}

#[test]
fn the_text_of_an_answer_or_an_end_is_told_once() {
    let poll = earlier(&event("m.poll.start", stable_poll()));
    let text = |kind: &str, mut content: Value| {
        content["m.relates_to"] = json!({"rel_type": "m.reference", "event_id": "$e"});
        record_with(&event(kind, content), Some(&poll)).text.unwrap()
    };
    let answer = |said: &str| text("m.poll.response", json!({"m.selections": ["b"], "m.text": said}));
    assert_eq!(answer("Salad"), "Lunch?\nSalad");
    assert_eq!(answer("Salad, but no onions"), "Lunch?\nSalad\nSalad, but no onions");
    let unknown = json!({"org.example.choice": 1, "m.text": "Salad for me"});
    assert_eq!(text("m.poll.response", unknown), "Lunch?\nSalad for me");
    assert_eq!(text("m.poll.response", json!({"org.example.choice": 1})), "Lunch?\nno answer");
    let end = |said: &str| text("m.poll.end", json!({"m.text": said, "body": said}));
    assert_eq!(end("Lunch?"), "Lunch?");
    assert_eq!(end("It is over"), "Lunch?\nIt is over");
}

#[test]
fn an_edited_poll_is_answered_as_it_is_now() {
    let mut edit = event(
        "m.poll.start",
        json!({"m.new_content": stable_poll(),
        "m.relates_to": {"rel_type": "m.replace", "event_id": "$e"}}),
    );
    edit["event_id"] = "$edit".into();
    let edited = record(&edit);
    assert_eq!(edited.action, "message.edited");
    let content =
        json!({"m.selections": ["a"], "m.relates_to": {"rel_type": "m.reference", "event_id": "$e"}});
    let answered = record_with(&event("m.poll.response", content), Some(&earlier(&edit)));
    assert_eq!(answered.text.as_deref(), Some("Lunch?\nSoup"));
}

#[test]
fn verification_in_a_room_is_no_conversation() {
    let asked = json!({"msgtype": "m.key.verification.request", "body": "Alice asks", "to": BOB});
    assert_eq!(record(&event("m.room.message", asked)).action, "verification.step");
    assert_eq!(record(&event("m.key.verification.done", json!({}))).action, "verification.step");
}
