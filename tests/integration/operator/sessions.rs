//! The operator's admin account and its session: how they come about, and when a session is made anew.

use ems_bots::crd::AuditBot;
use serde_json::json;

use super::world::{NAMESPACE, World};

#[tokio::test]
async fn an_access_token_creates_the_admin_account_with_a_mark_of_its_own() {
    let world = World::new();
    world.bot_with_access_token(true);
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
    let admin = world.secret_text("auditbot-admin-token", "user-id");
    let ours = world.homeserver.world().users[&admin].clone();
    assert!(ours.account.admin && ours.unlimited);
    assert_ne!(
        ours.account.ownership,
        world.homeserver.world().users["@auditbot:example.org"].account.ownership
    );
    assert!(
        !world.homeserver.world().users["@root:example.org"].unlimited,
        "the person's account is left alone"
    );
}

#[tokio::test]
async fn a_session_that_was_revoked_is_made_anew() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    let admin = world.secret_text("auditbot-admin-token", "user-id").parse().unwrap();
    let old = world.secret_text("auditbot-admin-token", "access-token");
    world.homeserver.world().revoke_tokens(&admin);
    world.settle::<AuditBot>(&world.start()).await;
    assert_ne!(world.secret_text("auditbot-admin-token", "access-token"), old);
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
    assert_eq!(world.homeserver.world().users.len(), 2, "no second admin account");
    let notes = world.notes("SessionRenewed");
    assert!(notes.len() == 1 && notes[0].contains("no longer accepted"), "{notes:?}");
}

#[tokio::test]
async fn a_session_for_another_url_is_made_anew_and_not_called_refused() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    let moved = "http://synapse-main:8008";
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| bot["spec"]["homeserver"]["url"] = moved.into());
    world.api.edit("secrets", NAMESPACE, "ems-bots-homeserver", |secret| {
        secret["metadata"]["annotations"]["ems.element.io/homeserver"] = moved.into();
    });
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
    let notes = world.notes("SessionRenewed");
    assert!(notes.len() == 1 && notes[0].contains("is for another URL"), "{notes:?}");
}

#[tokio::test]
async fn a_session_with_an_owner_is_kept_without_one() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    let session = || world.api.get("secrets", NAMESPACE, "auditbot-admin-token").unwrap();
    let (before, logins) = (session(), world.homeserver.count("login"));
    let uid = world.api.get("auditbots", NAMESPACE, "auditbot").unwrap()["metadata"]["uid"].clone();
    world.api.edit("secrets", NAMESPACE, "auditbot-admin-token", |secret| {
        secret["metadata"]["ownerReferences"] = json!([{"apiVersion": "ems.element.io/v1alpha1",
            "kind": "AuditBot", "name": "auditbot", "uid": uid, "controller": true}]);
    });
    world.settle::<AuditBot>(&world.start()).await;
    let after = session();
    assert!(after["metadata"]["ownerReferences"].is_null(), "{}", after["metadata"]);
    for part in ["data", "immutable", "type"] {
        assert_eq!(before[part], after[part], "{part}");
    }
    for part in ["labels", "annotations"] {
        assert_eq!(before["metadata"][part], after["metadata"][part], "{part}");
    }
    assert_eq!(world.homeserver.count("login"), logins, "it is the same session");
}

#[tokio::test]
async fn a_session_that_an_earlier_bot_left_behind_hinders_nobody() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    let earlier = world.secret_text("auditbot-admin-token", "user-id");
    // Somebody takes the finalizer away: nothing is cleaned up.
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| bot["metadata"]["finalizers"] = json!([]));
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
    assert_ne!(world.secret_text("auditbot-admin-token", "user-id"), earlier);
    assert!(world.notes("SessionRenewed")[0].contains("earlier bot"));
}
