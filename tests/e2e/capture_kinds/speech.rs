//! Messages of all kinds: text, edits, reactions, polls, files, calls, and what was taken away.

use serde_json::{Value, json};

use super::Conversation;

const MESSAGE: &str = "m.room.message";

pub(super) async fn each_kind(room: &mut Conversation<'_>) {
    let hello = texts(room).await;
    answers(room, &hello).await;
    edits(room).await;
    reactions(room, &hello).await;
    redactions(room).await;
    polls(room).await;
    attachments(room).await;
    calls(room).await;
}

fn text(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

fn related(mut content: Value, relation: Value) -> Value {
    content["m.relates_to"] = relation;
    content
}

/// Those that stand for themselves. Returns the first one.
async fn texts(room: &mut Conversation<'_>) -> String {
    let hello = room.say("alice", MESSAGE, text("good morning"), "message.sent", |row| {
        row.says("good morning").holds("m.text")
    });
    let hello = hello.await;
    let formatted = json!({"msgtype": "m.text", "body": "so *bold*", "format": "org.matrix.custom.html",
        "formatted_body": "so <strong>bold</strong>"});
    let here = json!({"msgtype": "m.location", "body": "the office", "geo_uri": "geo:51.5,-0.1"});
    let pin = json!({"m.text": [{"body": "the inn"}],
        "m.location": {"uri": "geo:48.1,11.5", "description": "a blue door"}});
    let unheard = json!({"msgtype": "org.example.smoke", "body": "two short, one long"});
    for (kind, content, action, says, holds) in [
        (MESSAGE, formatted, "message.sent", "so *bold*", "<strong>bold</strong>"),
        (MESSAGE, json!({"msgtype": "m.emote", "body": "waves"}), "message.sent", "waves", "m.emote"),
        (MESSAGE, json!({"msgtype": "m.notice", "body": "done"}), "message.sent", "done", "m.notice"),
        (MESSAGE, unheard, "message.sent", "two short, one long", "org.example.smoke"),
        (MESSAGE, here, "message.location_sent", "the office\ngeo:51.5,-0.1", "geo_uri"),
        ("m.location", pin, "message.location_sent", "the inn\na blue door\ngeo:48.1,11.5", "m.location"),
        ("org.example.unknown", json!({"body": "a riddle"}), "event.sent", "a riddle", "org.example.unknown"),
    ] {
        room.say("bob", kind, content, action, |row| row.says(says).holds(holds)).await;
    }
    hello
}

async fn answers(room: &mut Conversation<'_>, hello: &str) {
    let alice = room.user_id("alice");
    let quoting = format!("> <{alice}> good morning\n\nand to you");
    let reply = related(text(&quoting), json!({"m.in_reply_to": {"event_id": hello}}));
    room.say("bob", MESSAGE, reply, "message.sent", |row| {
        row.says("and to you").relates("event", hello, "replies_to").holds("> <@alice")
    })
    .await;
    // What older clients are told to show as a reply is none.
    let beside = json!({"rel_type": "m.thread", "event_id": hello, "is_falling_back": true,
        "m.in_reply_to": {"event_id": hello}});
    room.say("bob", MESSAGE, related(text("by the way"), beside), "message.sent", |row| {
        row.says("by the way").relates("event", hello, "thread")
    })
    .await;
}

fn edit(event: &str, body: &str) -> Value {
    let mut content =
        related(text(&format!("* {body}")), json!({"rel_type": "m.replace", "event_id": event}));
    content["m.new_content"] = text(body);
    content
}

async fn edits(room: &mut Conversation<'_>) {
    let first = room.say("alice", MESSAGE, text("buy"), "message.sent", |row| row.says("buy")).await;
    for (before, after) in [("buy", "hold"), ("hold", "sell")] {
        room.say("alice", MESSAGE, edit(&first, after), "message.edited", |row| {
            let row = row.says(after).relates("event", &first, "replaces");
            row.changes("/content/body", json!(before), json!(after))
        })
        .await;
    }
    room.say("bob", MESSAGE, edit(&first, "give away"), "message.edit_ignored", |row| {
        row.says("give away").relates("event", &first, "claims_to_replace")
    })
    .await;
    // What was there last is what goes.
    room.take("alice", &first, "bad advice", "message.redacted", |row| {
        row.says("sell").changes("/content/body", json!("sell"), Value::Null)
    })
    .await;
}

async fn reactions(room: &mut Conversation<'_>, hello: &str) {
    let path = format!("/reactions/👍/{}", room.user_id("bob"));
    let sign = json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": hello, "key": "👍"}});
    let given = room.say("bob", "m.reaction", sign, "reaction.added", |row| {
        row.says("👍").relates("event", hello, "reacts_to").changes(&path, Value::Null, json!(true))
    });
    let given = given.await;
    room.take("bob", &given, "a slip", "reaction.removed", |row| {
        row.says("👍").relates("event", hello, "reacts_to").changes(&path, json!(true), Value::Null)
    })
    .await;
}

async fn redactions(room: &mut Conversation<'_>) {
    let secret = room.say("alice", MESSAGE, text("the password is swordfish"), "message.sent", |row| {
        row.says("the password is swordfish")
    });
    let secret = secret.await;
    room.take("alice", &secret, "not here", "message.redacted", |row| {
        let what = json!("the password is swordfish");
        row.says("the password is swordfish").changes("/content/body", what, Value::Null)
    })
    .await;
    let odd = json!({"body": "a draft"});
    let odd = room.say("bob", "org.example.unknown", odd, "event.sent", |row| row.says("a draft")).await;
    room.take("bob", &odd, "too early", "event.redacted", |row| {
        row.says("a draft").changes("/content/body", json!("a draft"), Value::Null)
    })
    .await;
}

/// In the words of the experiment, which clients still use, and in those of the specification.
async fn polls(room: &mut Conversation<'_>) {
    let name = |what: &str| format!("org.matrix.msc3381.poll.{what}");
    let words = |text: &str| json!({"org.matrix.msc1767.text": text});
    let mut soup = words("soup");
    soup["id"] = json!("s");
    let mut bread = words("bread");
    bread["id"] = json!("b");
    let lunch = json!({name("start"): {"kind": name("disclosed"), "max_selections": 1,
        "question": words("lunch?"), "answers": [soup, bread]}});
    let (answer, end) = (json!({name("response"): {"answers": ["b"]}}), json!({name("end"): {}}));
    poll(room, ["start", "response", "end"].map(name), [lunch, answer, end], ["lunch?", "soup", "bread"])
        .await;
    let words = |text: &str| json!([{"body": text}]);
    let walk = json!({"m.poll": {"kind": "m.disclosed", "max_selections": 1, "question": {"m.text": words("walk?")},
        "answers": [{"m.id": "y", "m.text": words("yes")}, {"m.id": "n", "m.text": words("no")}]}});
    let name = |what: &str| format!("m.poll.{what}");
    let (answer, end) = (json!({"m.selections": ["n"]}), json!({}));
    poll(room, ["start", "response", "end"].map(name), [walk, answer, end], ["walk?", "yes", "no"]).await;
}

/// Start, answer and end of a poll whose second answer is chosen.
async fn poll(room: &mut Conversation<'_>, kinds: [String; 3], contents: [Value; 3], words: [&str; 3]) {
    let ([start, response, end], [asked, answer, over]) = (kinds, contents);
    let [question, _, chosen] = words;
    let poll = room.say("alice", &start, asked, "poll.started", |row| row.says(words.join("\n"))).await;
    let part = json!({"rel_type": "m.reference", "event_id": poll});
    room.say("bob", &response, related(answer, part.clone()), "poll.answered", |row| {
        row.says(format!("{question}\n{chosen}")).relates("event", &poll, "references")
    })
    .await;
    let mut over = related(over, part);
    over["body"] = json!("nobody won");
    room.say("alice", &end, over, "poll.ended", |row| {
        row.says(format!("{question}\nnobody won")).relates("event", &poll, "references")
    })
    .await;
}

async fn attachments(room: &mut Conversation<'_>) {
    let file = |msgtype: &str, name: &str| {
        json!({"msgtype": msgtype, "body": name, "url": "mxc://example.org/file",
            "info": {"thumbnail_url": "mxc://example.org/small"}})
    };
    let mut spoken = file("m.audio", "Voice message");
    spoken["org.matrix.msc3245.voice"] = json!({});
    spoken["info"]["duration"] = json!(4_200);
    let mut captioned = file("m.image", "the new roof");
    captioned["filename"] = json!("roof.jpg");
    let sticker = json!({"body": "a cat", "url": "mxc://example.org/file",
        "info": {"thumbnail_url": "mxc://example.org/small"}});
    for (kind, content, action, says) in [
        (MESSAGE, file("m.file", "plan.pdf"), "message.file_sent", "plan.pdf"),
        (MESSAGE, captioned, "message.file_sent", "the new roof\nroof.jpg"),
        (MESSAGE, spoken, "message.voice_sent", "Voice message\nvoice message of 5 s"),
        ("m.sticker", sticker, "message.sticker_sent", "a cat"),
    ] {
        room.say("bob", kind, content, action, |row| {
            let row = row.says(says).relates("media", "mxc://example.org/file", "attached");
            row.relates("media", "mxc://example.org/small", "thumbnail")
        })
        .await;
    }
}

async fn calls(room: &mut Conversation<'_>) {
    let step = |mut content: Value| {
        content["call_id"] = json!("call-1");
        content["party_id"] = json!("phone");
        content["version"] = json!("1");
        content
    };
    let bob = room.user_id("bob");
    let offer =
        json!({"lifetime": 60_000, "invitee": bob, "offer": {"type": "offer", "sdp": "v=0\r\nm=audio 9"}});
    room.say("alice", "m.call.invite", step(offer), "call.invited", |row| {
        row.says("voice call").relates("call", "call-1", "part_of").relates("user", &bob, "target")
    })
    .await;
    let answer = json!({"answer": {"type": "answer", "sdp": "v=0\r\nm=audio 9"}});
    for (who, kind, content, action, reason) in [
        ("bob", "m.call.candidates", json!({"candidates": []}), "call.signalled", None),
        ("bob", "m.call.answer", answer, "call.answered", None),
        ("alice", "m.call.hangup", json!({"reason": "user_hangup"}), "call.ended", Some("user_hangup")),
        ("bob", "m.call.reject", json!({}), "call.rejected", None),
    ] {
        room.say(who, kind, step(content), action, |row| {
            let row = row.relates("call", "call-1", "part_of");
            if let Some(reason) = reason { row.because(reason) } else { row }
        })
        .await;
    }
    let ring = json!({"notification_type": "ring", "lifetime": 30_000, "sender_ts": 1,
        "m.mentions": {"user_ids": [bob]}});
    room.say("alice", "org.matrix.msc4075.rtc.notification", ring, "call.announced", |row| {
        row.says("the call rings")
    })
    .await;
}
