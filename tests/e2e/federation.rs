//! Rooms of another homeserver, and its invitations: two of them, which federate over loopback. No cluster is needed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ems_bots::domain::worker::RoomTotals;
use serde_json::{Value, json};

use super::support::{
    Database, LocalWorker, Synapse,
    coverage_bot::start,
    eventually,
    rooms::{act, create_room},
    services::{Person, urlencode},
    unique,
};

/// Invitations to rooms that nobody of the homeserver is in. `make bench-coverage` sends a thousand.
const INVITATIONS: usize = 25;
/// Kilobytes of memory that may come with invitations, however many there are: what a worker needs that does anything at all.
const MOST_GROWTH: u64 = 16 << 10;
/// Rooms of the homeserver itself.
const OWN: usize = 3;

fn ok((status, answer): (u16, Value)) {
    assert_eq!(status, 200, "{answer}");
}

/// A room of Bob's, on the other homeserver, that Alice is in.
async fn shared(there: &Synapse, here: &Synapse, bob: &Person, alice: &Person, mut body: Value) -> String {
    body["invite"] = json!([alice.user_id]);
    let room = create_room(there, bob, body).await;
    ok(act(here, alice, &room, "join", json!({})).await);
    room
}

fn reasons(counts: &BTreeMap<&'static str, u64>) -> Vec<(&'static str, u64)> {
    counts.iter().map(|(reason, count)| (*reason, *count)).collect()
}

#[tokio::test]
async fn rooms_of_another_homeserver_are_covered_only_where_that_is_wished_for_and_as_far_as_rights_allow() {
    let (here, there) = (Synapse::federated(&unique("fedhere")), Synapse::federated(&unique("fedthere")));
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let mut rooms: Vec<(String, &str, i64)> = Vec::new();
    for version in ["11", "12"] {
        let of = |preset: &str| json!({"preset": preset, "room_version": version});
        // Everybody may come in, and nobody of this homeserver may give power.
        rooms.push((shared(&there, &here, &bob, &alice, of("public_chat")).await, "join", 0));
        // Alice may invite.
        rooms.push((shared(&there, &here, &bob, &alice, of("private_chat")).await, "join", 0));
        // Alice may do nothing.
        let mut closed = of("private_chat");
        closed["power_level_content_override"] = json!({"invite": 50});
        rooms.push((shared(&there, &here, &bob, &alice, closed).await, "none", 0));
        // Alice is an admin, or from version 12 on a creator.
        rooms.push((shared(&there, &here, &bob, &alice, of("trusted_private_chat")).await, "join", 100));
    }
    let own = create_room(&here, &alice, json!({"preset": "private_chat", "invite": [bob.user_id]})).await;
    ok(act(&there, &bob, &own, "join", json!({})).await);

    let mut bot = start(&here, "auditbot").await;
    let user = bot.user.to_string();
    let left_out =
        |totals: &RoomTotals| totals.covered == 1 && reasons(&totals.excluded) == [("remote_room", 8)];
    bot.until("only the own room", 60, |state| state.is_complete && left_out(&state.totals)).await;
    for (room, ..) in &rooms {
        assert_eq!(here.standing(room, &user).await.0, "none", "{room}");
    }
    assert_eq!(here.standing(&own, &user).await, ("join".to_owned(), 100));

    bot.control.send_modify(|control| control.selection.local_only = false);
    let as_far_as_rights_allow = |totals: &RoomTotals| {
        totals.covered == 3
            && reasons(&totals.limited) == [("no_local_admin", 4)]
            && reasons(&totals.blocked) == [("no_local_admin", 2)]
            && totals.excluded.is_empty()
    };
    bot.until("all that can be", 120, |state| as_far_as_rights_allow(&state.totals)).await;
    for (room, membership, power) in &rooms {
        let expected = ((*membership).to_owned(), *power);
        assert_eq!(here.standing(room, &user).await, expected, "{room}");
        // The other homeserver sees the same.
        eventually("the other homeserver to hear of it", Duration::from_secs(30), || async {
            let standing = there.standing(room, &user).await;
            if standing == expected { Ok(()) } else { Err(format!("{room}: {standing:?}")) }
        })
        .await;
    }
    bot.stop().await;
}

#[tokio::test]
async fn a_public_room_that_only_another_homeserver_is_left_in_is_joined_by_it() {
    let (here, there) = (Synapse::federated(&unique("lefthere")), Synapse::federated(&unique("leftthere")));
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let mut rooms = Vec::new();
    for (version, preset) in [("11", "public_chat"), ("12", "public_chat"), ("12", "private_chat")] {
        let body = json!({"preset": preset, "room_version": version, "invite": [bob.user_id]});
        let room = create_room(&here, &alice, body).await;
        ok(act(&there, &bob, &room, "join", json!({})).await);
        ok(act(&here, &alice, &room, "leave", json!({})).await);
        rooms.push(room);
    }
    let mut bot = start(&here, "auditbot").await;
    let user = bot.user.to_string();
    bot.until("joined", 120, |state| {
        reasons(&state.totals.limited) == [("no_local_admin", 2)]
            && reasons(&state.totals.blocked) == [("nobody_local", 1)]
    })
    .await;
    for room in &rooms[..2] {
        assert_eq!(here.standing(room, &user).await, ("join".to_owned(), 0));
    }
    bot.stop().await;
}

#[tokio::test]
async fn invitations_of_another_homeserver_are_refused_and_leave_nothing_behind() {
    refuses(INVITATIONS).await;
}

/// Invites a bot that looks after its own rooms into so many of another homeserver; nothing may come of it.
pub(crate) async fn refuses(invitations: usize) {
    let (here, there) = (Synapse::federated(&unique("invhere")), Synapse::federated(&unique("invthere")));
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let database = Database::tenant(&unique("inv").replace('-', "_"));
    for _ in 0..OWN {
        create_room(&here, &alice, json!({"preset": "private_chat"})).await;
    }
    let mut worker = LocalWorker::prepare("auditbot", &here, &database).await;
    let user = worker.user_id.clone();
    worker.start(&here);
    worker.wait_ready().await;
    only_the_own_rooms_are_covered(&worker).await;
    let memory = worker.kilobytes("VmRSS");
    let started = Instant::now();
    let mut rooms = Vec::new();
    for number in 0..invitations {
        let body = json!({"name": format!("room {number}"), "invite": [user]});
        rooms.push(create_room(&there, &bob, body).await);
    }
    let sent = started.elapsed();
    for room in &rooms {
        let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{user}", urlencode(room));
        eventually("an invitation to be refused", Duration::from_mins(5), || async {
            let (_, member) = there.request("GET", &path, &bob.access_token, None).await;
            if member["membership"] == "leave" { Ok(()) } else { Err(format!("{room}: {member}")) }
        })
        .await;
    }
    let grown = worker.kilobytes("VmRSS").saturating_sub(memory);
    println!(
        "== {invitations} invitations of another homeserver, sent within {sent:.0?}, refused {:.0?} later; {memory} kB of memory \
         before, {grown} kB more after",
        started.elapsed().saturating_sub(sent),
    );
    assert!(grown < MOST_GROWTH, "{grown} kB more");
    only_the_own_rooms_are_covered(&worker).await;
    let path = format!("/_synapse/admin/v1/users/{}/joined_rooms", urlencode(&user));
    let (_, joined) = here.admin("GET", &path, None).await;
    assert_eq!(joined["total"], OWN, "{joined}");
    worker.stop().await;
}

async fn only_the_own_rooms_are_covered(worker: &LocalWorker) {
    let wanted = [format!("ems_bots_worker_rooms{{state=\"covered\"}} {OWN}")];
    eventually("the own rooms, and no other", Duration::from_mins(1), || async {
        let (_, metrics) = worker.get("/metrics").await;
        let rooms = metrics.lines().filter(|line| line.starts_with("ems_bots_worker_rooms{"));
        let counted: Vec<&str> = rooms.filter(|line| !line.ends_with(" 0")).collect();
        if counted == wanted { Ok(()) } else { Err(format!("{counted:?}")) }
    })
    .await;
}
