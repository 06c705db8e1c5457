//! What happens before a bot may go.

use ems_bots::{
    crd::AuditBot,
    homeserver::{HomeserverError, mock::RoomKind},
};
use serde_json::json;

use super::world::{NAMESPACE, World};

/// A bot that works, with a trail and a room.
pub(super) async fn working(policy: &str) -> World {
    working_in(World::new(), policy).await
}

/// The same in a world of one's own.
pub(super) async fn working_in(world: World, policy: &str) -> World {
    world.bot::<AuditBot>(&json!({"deletionPolicy": policy}));
    world.settle::<AuditBot>(&world.start()).await;
    world.worker_is_ready::<AuditBot>();
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
        bot["status"]["trail"] = json!({"epoch": 1, "size": 7, "rootHash": "a".repeat(64), "closed": false});
    });
    let room = world.homeserver.create_room(&World::user("auditbot"), "11", RoomKind::Private);
    assert_eq!(world.homeserver.membership(&room, &World::user("auditbot")), "join");
    world.settle::<AuditBot>(&world.start()).await;
    world
}

pub(super) fn rooms(world: &World) -> usize {
    let bot = World::user("auditbot");
    let rooms: Vec<_> = world.homeserver.world().rooms.keys().cloned().collect();
    rooms.iter().filter(|room| world.homeserver.membership(room, &bot) == "join").count()
}

pub(super) fn close(world: &World) {
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
        bot["status"]["trail"] = json!({"epoch": 1, "size": 9, "rootHash": "b".repeat(64), "closed": true});
    });
}

pub(super) fn is_gone(world: &World) -> bool {
    world.api.get("auditbots", NAMESPACE, "auditbot").is_none()
}

pub(super) async fn goes(world: &World) {
    let ctx = world.start();
    for _ in 0..5 {
        world.reconcile::<AuditBot>(&ctx).await;
        if is_gone(world) {
            return;
        }
    }
    panic!("still there: {:?}", world.condition::<AuditBot>("Ready"));
}

/// Lets it go, where the process dies after so many writes and is started anew; whether it lived all the way.
pub(super) async fn goes_though_it_dies(world: &World, writes: usize) -> bool {
    world.api.crash.after(writes);
    let lived = tokio::select! {
        () = goes(world) => true,
        () = world.api.crash.died.notified() => false,
    };
    world.api.crash.never();
    if !lived && !is_gone(world) {
        goes(world).await;
    }
    lived
}

#[tokio::test]
async fn it_waits_for_the_last_record_and_keeps_the_checkpoint() {
    let world = working("Retain").await;
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    let ctx = world.start();
    assert!(world.reconcile::<AuditBot>(&ctx).await.unwrap().is_err());
    assert!(
        world.api.get("statefulsets", NAMESPACE, "auditbot-worker").is_some(),
        "the worker has work to do"
    );
    let (_, reason, message) = world.condition::<AuditBot>("Ready");
    assert_eq!(reason, "Deleting");
    assert!(message.contains("last record") && message.contains("abandon-cleanup"), "{message}");
    close(&world);
    goes(&world).await;
    let kept = world.api.get("configmaps", NAMESPACE, "auditbot-trail").unwrap();
    assert_eq!(kept["data"]["size"], "9");
}

#[tokio::test]
async fn every_policy_does_what_it_says() {
    for (policy, in_rooms, deactivated) in
        [("Retain", 1, false), ("LeaveRooms", 0, false), ("Deactivate", 0, true)]
    {
        let world = working(policy).await;
        world.api.delete("auditbots", NAMESPACE, "auditbot");
        close(&world);
        goes(&world).await;
        let account = world.homeserver.world().users["@auditbot:example.org"].account.clone();
        assert_eq!((rooms(&world), account.deactivated), (in_rooms, deactivated), "{policy}");
        let admins: Vec<bool> = world
            .homeserver
            .world()
            .users
            .values()
            .filter(|user| user.account.admin)
            .map(|user| user.account.deactivated)
            .collect();
        assert_eq!(admins, [true], "the worker's admin account ends, {policy}");
        let secrets = world.api.names("secrets", NAMESPACE);
        let kept = ["auditbot-account", "auditbot-backup-phrase", "auditbot-database-roles"];
        assert!(kept.iter().all(|name| secrets.contains(&(*name).to_owned())), "{secrets:?}");
        assert!(!secrets.iter().any(|name| name.contains("admin")), "{secrets:?}");
        assert!(world.api.names("statefulsets", NAMESPACE).is_empty());
        assert!(world.api.names("persistentvolumeclaims", NAMESPACE).is_empty());
    }
}

#[tokio::test]
async fn the_same_bot_made_anew_takes_everything_up_again() {
    let world = working("Retain").await;
    let phrase = world.secret_text("auditbot-backup-phrase", "phrase");
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    close(&world);
    goes(&world).await;
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
    assert_eq!(world.secret_text("auditbot-backup-phrase", "phrase"), phrase);
    assert_eq!(rooms(&world), 1);
    assert_eq!(world.api.get("configmaps", NAMESPACE, "auditbot-trail").unwrap()["data"]["size"], "9");
}

#[tokio::test]
async fn a_deactivated_account_of_ours_is_taken_up_again_too() {
    let world = working("Deactivate").await;
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    close(&world);
    goes(&world).await;
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    assert!(!world.homeserver.world().users["@auditbot:example.org"].account.deactivated);
    assert!(world.events().contains(&"AccountReactivated".to_owned()));
}

#[tokio::test]
async fn a_homeserver_that_is_down_is_waited_for_and_can_be_given_up() {
    let world = working("Deactivate").await;
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    close(&world);
    let down = || HomeserverError::Unreachable { host: "synapse".into(), problem: "refused".into() };
    world.homeserver.fail_always("server_version", down);
    let ctx = world.start();
    for _ in 0..3 {
        assert!(world.reconcile::<AuditBot>(&ctx).await.unwrap().is_err());
    }
    assert!(world.condition::<AuditBot>("Ready").2.contains("not reachable"));
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
        bot["metadata"]["annotations"] = json!({"ems.element.io/abandon-cleanup": "true"});
    });
    goes(&world).await;
    let events = world.events();
    assert!(events.contains(&"CleanupAbandoned".to_owned()) && events.contains(&"AccountsLeft".to_owned()));
    assert!(!world.homeserver.world().users["@auditbot:example.org"].account.deactivated);
}

#[tokio::test]
async fn a_bot_whose_specification_cannot_be_read_can_go() {
    let world = working("Deactivate").await;
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
        bot["spec"]["homeserver"] = json!("nonsense");
        bot["spec"]["displayName"] = json!({});
    });
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    close(&world);
    goes(&world).await;
    assert!(world.homeserver.world().users["@auditbot:example.org"].account.deactivated);
}

#[tokio::test]
async fn a_bot_that_never_began_can_go() {
    let world = World::new();
    world.homeserver.fail_always("server_name", || HomeserverError::Server { status: 500, what: "keys" });
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    goes(&world).await;
}

#[tokio::test]
async fn an_account_that_lost_our_mark_is_left_alone() {
    let world = working("Deactivate").await;
    world.homeserver.world().users.get_mut("@auditbot:example.org").unwrap().account.ownership = None;
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    close(&world);
    goes(&world).await;
    assert!(!world.homeserver.world().users["@auditbot:example.org"].account.deactivated);
}

#[tokio::test]
async fn the_worker_has_ended_before_rooms_are_left() {
    let world = working("LeaveRooms").await;
    world.api.put(
        "pods",
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
        "metadata": {"name": "auditbot-worker-0", "namespace": NAMESPACE,
            "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    close(&world);
    let ctx = world.start();
    for _ in 0..3 {
        assert!(world.reconcile::<AuditBot>(&ctx).await.unwrap().is_err());
    }
    assert_eq!(rooms(&world), 1);
    world.api.delete("pods", NAMESPACE, "auditbot-worker-0");
    goes(&world).await;
    assert_eq!(rooms(&world), 0);
}

#[tokio::test]
async fn a_deletion_that_is_interrupted_anywhere_comes_to_the_same_end() {
    for policy in ["LeaveRooms", "Deactivate"] {
        let mut deaths = 0;
        loop {
            let world = working(policy).await;
            world.api.delete("auditbots", NAMESPACE, "auditbot");
            close(&world);
            let lived = goes_though_it_dies(&world, deaths).await;
            let account = world.homeserver.world().users["@auditbot:example.org"].account.clone();
            let expected = if policy == "Deactivate" { account.deactivated } else { rooms(&world) == 0 };
            assert!(expected, "{policy} after dying at write {deaths}");
            assert!(!world.api.names("secrets", NAMESPACE).iter().any(|name| name.contains("admin")));
            if lived {
                break;
            }
            deaths += 1;
        }
        assert!(deaths >= 5, "{policy}: only {deaths} writes were interrupted");
    }
}

#[tokio::test]
async fn a_paused_bot_says_why_it_does_not_go() {
    let world = working("Retain").await;
    close(&world);
    let pause = |value: &'static str| {
        world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
            bot["metadata"]["annotations"]["ems.element.io/paused"] = value.into();
        });
    };
    pause("true");
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    world.reconcile::<AuditBot>(&world.start()).await;
    assert!(!is_gone(&world));
    assert_eq!(world.condition::<AuditBot>("Paused").0, "True");
    pause("false");
    goes(&world).await;
}
