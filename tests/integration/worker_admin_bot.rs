//! What an Admin Bot records: what it does, and what is done to it.

use ems_bots::domain::BotKind;
use serde_json::{Value, json};

use crate::{
    matrix_fake::USER,
    worker_stage::{ROOM, Stage, message, page, sync, sync_of, text},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_bot_records_its_own_events_however_deep_they_are() {
    let mut stage = Stage::set().await;
    stage.kind = BotKind::Admin;
    let deep: Value = (0..130).fold(json!("x"), |inner, _| json!([inner]));
    let of = |id: &str, sender: &str, content: &Value| {
        json!({"event_id": id, "type": "org.example.deep", "sender": sender,
            "origin_server_ts": 1_790_000_000_000_u64, "content": content})
    };
    let events = [
        of("$ours", USER, &json!({"a": deep})),
        of("$theirs", "@alice:example.org", &json!({"a": deep})),
        of("$plain", USER, &json!({"a": "x"})),
    ];
    stage.scene.fake.world().syncs.insert(String::new(), sync("s1", &events, None));
    let running = stage.start(None);
    stage.until_asked("s1", 1).await;
    running.stop().await.unwrap();
    let sources: Vec<_> = stage.trail().await.into_iter().map(|draft| draft.source_id).collect();
    let ours: Vec<_> = sources.iter().filter(|source| source.starts_with("matrix:event:")).collect();
    assert_eq!(ours, ["matrix:event:$ours", "matrix:event:$plain"]);
}

/// The bot's membership, by this person; `unsigned` tells what was before.
fn member(id: &str, sender: &str, membership: &str, unsigned: &Value) -> Value {
    json!({"event_id": id, "type": "m.room.member", "state_key": USER, "sender": sender,
        "origin_server_ts": 1_790_000_000_000_u64, "content": {"membership": membership}, "unsigned": unsigned})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_bot_reads_nothing_from_before_it_first_came_to_a_room() {
    const LONG: &str = "!long:example.org";
    const BACK: &str = "!back:example.org";
    let mut stage = Stage::set().await;
    stage.kind = BotKind::Admin;
    let (alice, nothing) = ("@alice:example.org", json!({}));
    let invited = |id: &str| member(id, alice, "invite", &nothing);
    let joined =
        |id: &str, was: &str| member(id, USER, "join", &json!({"prev_content": {"membership": was}}));
    {
        let mut world = stage.scene.fake.world();
        let new = [invited("$1"), joined("$2", "invite")];
        // Since it came, more was said than sync tells.
        let long = [message("$3", text("later"))];
        let back = [joined("$4", "leave")];
        let rooms: [(&str, &[Value], _); 3] =
            [(ROOM, &new, Some("p-new")), (LONG, &long, Some("p-long")), (BACK, &back, Some("p-back"))];
        world.syncs.insert(String::new(), sync_of("s1", &rooms));
        let long = [joined("$5", "invite"), invited("$6"), message("$7", text("before"))];
        world.pages.insert("p-long".into(), page(&long, "p-long-2"));
        let left = member("$8", USER, "leave", &json!({"replaces_state": "$10"}));
        world.pages.insert("p-back".into(), page(&[left], "p-back-2"));
        world.pages.insert("p-back-2".into(), page(&[message("$9", text("while it was there"))], "p-back-3"));
        world.pages.insert("p-back-3".into(), page(&[joined("$10", "invite"), invited("$11")], "p-back-4"));
    }
    let running = stage.start(None);
    // One room after the other has its turn.
    stage.until_asked("p-back-3", 1).await;
    running.stop().await.unwrap();
    let mut asked = stage.scene.fake.world().asked.clone();
    asked.retain(|token| token.starts_with('p'));
    asked.sort();
    assert_eq!(asked, ["p-back", "p-back-2", "p-back-3", "p-long"]);
}
