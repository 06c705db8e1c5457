//! The operator dies after every single write, be it to the API server or to the homeserver, and a
//! new process takes over: the end is always the same, and nothing is made twice.

use ems_bots::crd::{AdminBot, AuditBot};
use serde_json::{Value, json};

use super::world::{Kind, NAMESPACE, World};

/// Reconciles until this process has nothing more to write, or dies. Returns whether it lived.
pub(super) async fn live_or_die<B: Kind>(world: &World) -> bool {
    let ctx = world.start();
    tokio::select! {
        _ = world.settle::<B>(&ctx) => true,
        () = world.api.crash.died.notified() => false,
    }
}

/// Everything that must be the same however often the operator died, without random values.
fn picture(world: &World) -> Value {
    let plurals = [
        "secrets",
        "serviceaccounts",
        "roles",
        "rolebindings",
        "services",
        "networkpolicies",
        "persistentvolumeclaims",
        "statefulsets",
        "configmaps",
    ];
    let objects: Vec<Value> =
        plurals.iter().map(|plural| json!([plural, world.api.names(plural, NAMESPACE)])).collect();
    let users: Vec<Value> = world
        .homeserver
        .world()
        .users
        .values()
        .map(|user| {
            json!([
                user.account.user_id.as_str(),
                user.account.admin,
                user.account.locked,
                user.account.deactivated,
                user.account.display_name,
                user.unlimited,
                user.account.ownership.is_some()
            ])
        })
        .collect();
    json!({"objects": objects, "users": users})
}

async fn dies_after_every_write<B: Kind>(more: Value) {
    let undisturbed = World::new();
    undisturbed.bot::<B>(&more);
    assert!(live_or_die::<B>(&undisturbed).await);
    let expected = picture(&undisturbed);
    let mut deaths = 0;
    loop {
        let world = World::new();
        world.bot::<B>(&more);
        world.api.crash.after(deaths);
        let lived = live_or_die::<B>(&world).await;
        world.api.crash.never();
        let phrase = format!("{}-backup-phrase", B::NAME);
        let before = world.api.get("secrets", NAMESPACE, &phrase);
        if !lived {
            assert!(live_or_die::<B>(&world).await);
        }
        assert_eq!(picture(&world), expected, "after dying at write {deaths}");
        if let Some(before) = before {
            let after = world.api.get("secrets", NAMESPACE, &phrase).unwrap();
            assert_eq!(before["data"], after["data"], "a second phrase after dying at write {deaths}");
        }
        assert_eq!(world.condition::<B>("AccountReady").0, "True", "after dying at write {deaths}");
        let account = format!("@{}:example.org", B::NAME);
        let known = world.homeserver.world().users[&account].clone();
        assert_eq!(known.password, world.secret_text(&format!("{}-account", B::NAME), "password"));
        world.settle::<B>(&world.start()).await;
        if lived {
            break;
        }
        deaths += 1;
    }
    assert!(deaths >= 17, "only {deaths} writes were interrupted");
}

#[tokio::test]
async fn an_audit_bot_comes_into_being_whatever_is_interrupted() {
    dies_after_every_write::<AuditBot>(json!({})).await;
}

#[tokio::test]
async fn a_suspended_admin_bot_comes_into_being_whatever_is_interrupted() {
    dies_after_every_write::<AdminBot>(json!({"suspend": true})).await;
}

#[tokio::test]
async fn no_process_gets_further_than_three_writes() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let mut deaths = 0;
    loop {
        // Three writes are the longest way from one kept result to the next: a session is opened, its
        // limits are lifted, it is put into its Secret.
        world.api.crash.after(2);
        if live_or_die::<AuditBot>(&world).await {
            break;
        }
        deaths += 1;
        assert!(deaths < 100, "it gets nowhere");
    }
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
    assert_eq!(world.homeserver.world().users.len(), 2);
}

#[tokio::test]
async fn a_lost_answer_of_the_homeserver_makes_nothing_twice() {
    for call in ["register_admin", "set_unlimited", "create_account", "set_locked"] {
        let world = World::new();
        world.bot::<AuditBot>(&json!({"suspend": true}));
        world.homeserver.lose_answer(call, 1);
        let ctx = world.start();
        assert!(world.reconcile::<AuditBot>(&ctx).await.unwrap().is_err(), "{call}");
        world.settle::<AuditBot>(&ctx).await;
        assert_eq!(world.homeserver.world().users.len(), 2, "{call}");
        assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True", "{call}");
    }
}

#[tokio::test]
async fn every_failure_of_the_api_server_is_survived() {
    for (code, every) in [(409, 1), (500, 1), (403, 7), (429, 7), (503, 7)] {
        for nth in (0..45).step_by(every) {
            let world = World::new();
            world.bot::<AuditBot>(&json!({}));
            let count = std::sync::atomic::AtomicUsize::new(0);
            world
                .api
                .fault(code, 1, move |_| count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == nth);
            world.settle_through_errors().await;
            assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True", "{code} at request {nth}");
            assert_eq!(world.homeserver.world().users.len(), 2, "{code} at request {nth}");
        }
    }
}
