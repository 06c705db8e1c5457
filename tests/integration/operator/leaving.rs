//! Deletions in which something that is needed went first.

use ems_bots::crd::AuditBot;
use serde_json::json;

use super::{
    cleanup::{close, goes, goes_though_it_dies, rooms, working},
    world::{NAMESPACE, World},
};

const ABANDON: &str =
    "kubectl annotate auditbot auditbot --namespace tenant ems.element.io/abandon-cleanup=true";

fn delete(world: &World) {
    world.api.delete("auditbots", NAMESPACE, "auditbot");
}

/// What the garbage collector does, before the operator, when the bot is deleted in the foreground.
fn children_go_first(world: &World) {
    let bot = world.api.get("auditbots", NAMESPACE, "auditbot").unwrap();
    world.api.collect_garbage(bot["metadata"]["uid"].as_str().unwrap());
    assert!(world.api.names("statefulsets", NAMESPACE).is_empty());
}

fn lose_session(world: &World) {
    world.api.delete("secrets", NAMESPACE, "auditbot-admin-token");
}

fn abandon(world: &World) {
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
        bot["metadata"]["annotations"] = json!({"ems.element.io/abandon-cleanup": "true"});
    });
}

fn lose_rights(world: &World) {
    world.api.fault(403, usize::MAX, |call| {
        let is_everywhere = call.path.contains("/auditbots/") || call.path.ends_with("/events");
        call.path.contains("/namespaces/tenant/") && !is_everywhere
    });
}

fn has_told(world: &World, reason: &str) -> bool {
    world.events().contains(&reason.to_owned())
}

/// Whether the bot's account and the worker's admin account are deactivated.
fn deactivated(world: &World) -> (bool, bool) {
    let homeserver = world.homeserver.world();
    let bot = homeserver.users["@auditbot:example.org"].account.deactivated;
    let admin = homeserver.users.values().find(|user| user.account.admin).unwrap();
    assert_ne!(admin.account.deactivated, admin.unlimited, "it has no limits for as long as it works");
    (bot, admin.account.deactivated)
}

fn admin_secrets(world: &World) -> Vec<String> {
    world.api.names("secrets", NAMESPACE).into_iter().filter(|name| name.contains("-admin-")).collect()
}

/// A deletion that waits; returns what it says.
async fn waits(world: &World) -> String {
    let ctx = world.start();
    for _ in 0..2 {
        assert!(world.reconcile::<AuditBot>(&ctx).await.unwrap().is_err());
    }
    let (_, reason, message) = world.condition::<AuditBot>("Ready");
    assert_eq!(reason, "Deleting");
    message
}

#[tokio::test]
async fn a_deletion_in_the_foreground_does_what_the_policy_says() {
    for (policy, in_rooms, is_deactivated) in [("LeaveRooms", 0, false), ("Deactivate", 0, true)] {
        let world = working(policy).await;
        delete(&world);
        children_go_first(&world);
        goes(&world).await;
        assert_eq!((rooms(&world), deactivated(&world)), (in_rooms, (is_deactivated, true)), "{policy}");
        assert!(has_told(&world, "LastRecordMissing") && !has_told(&world, "AccountsLeft"));
        assert!(admin_secrets(&world).is_empty());
    }
}

#[tokio::test]
async fn a_worker_that_still_ends_may_write_the_last_record() {
    let world = working("Retain").await;
    world.api.put(
        "pods",
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
        "metadata": {"name": "auditbot-worker-0", "namespace": NAMESPACE,
            "labels": {"ems.element.io/kind": "auditbot", "ems.element.io/bot": "auditbot"}}}),
    );
    delete(&world);
    world.api.delete("statefulsets", NAMESPACE, "auditbot-worker");
    assert!(waits(&world).await.contains(ABANDON));
    world.api.delete("pods", NAMESPACE, "auditbot-worker-0");
    goes(&world).await;
    assert!(has_told(&world, "LastRecordMissing"));
}

#[tokio::test]
async fn a_worker_that_lost_what_it_reports_with_is_not_waited_for() {
    for plural in ["serviceaccounts", "roles", "rolebindings"] {
        let world = working("Retain").await;
        delete(&world);
        assert!(waits(&world).await.contains("last record"));
        world.api.delete(plural, NAMESPACE, "auditbot-worker");
        goes(&world).await;
        assert!(has_told(&world, "LastRecordMissing"), "{plural}");
    }
}

#[tokio::test]
async fn without_a_session_the_password_opens_the_account_whatever_is_interrupted() {
    let mut deaths = 0;
    loop {
        let world = working("Deactivate").await;
        lose_session(&world);
        delete(&world);
        close(&world);
        let lived = goes_though_it_dies(&world, deaths).await;
        assert_eq!(deactivated(&world), (true, true), "after dying at write {deaths}");
        assert!(!has_told(&world, "AccountsLeft"), "after dying at write {deaths}");
        assert!(admin_secrets(&world).is_empty(), "after dying at write {deaths}");
        if lived {
            break;
        }
        deaths += 1;
    }
    assert!(deaths >= 7, "only {deaths} writes were interrupted");
}

/// What somebody does to the worker's admin account.
type Trouble = fn(&World);

/// Neither the session nor the password is accepted.
fn lock_out(world: &World) {
    let admin = world.secret_text("auditbot-admin-token", "user-id");
    let mut homeserver = world.homeserver.world();
    homeserver.revoke_tokens(&admin.parse().unwrap());
    "another".clone_into(&mut homeserver.users.get_mut(&admin).unwrap().password);
}

/// Nothing says which homeserver the Secrets are for.
fn forget_url(world: &World) {
    for name in admin_secrets(world) {
        world.api.edit("secrets", NAMESPACE, &name, |secret| {
            secret["metadata"]["annotations"].as_object_mut().unwrap().remove("ems.element.io/homeserver");
        });
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_waited_for_and_never_left_out_in_silence() {
    let cases: [(Trouble, &str); 2] = [(lock_out, "password"), (forget_url, "ems.element.io/homeserver")];
    for (spoil, hint) in cases {
        for policy in ["LeaveRooms", "Deactivate"] {
            let world = working(policy).await;
            spoil(&world);
            delete(&world);
            close(&world);
            let message = waits(&world).await;
            assert!(message.contains(ABANDON) && message.contains(hint), "{message}");
            assert!(!has_told(&world, "AccountsLeft") && admin_secrets(&world).len() == 2);
            abandon(&world);
            goes(&world).await;
            let notes = world.notes("AccountsLeft");
            let admin = world.homeserver.world().users.keys().find(|user| user.contains("-admin-")).cloned();
            assert!(notes.len() == 1 && notes[0].contains(&admin.unwrap()), "{notes:?}");
        }
        // The bot's account is to stay as it is; of the other one people are told.
        let world = working("Retain").await;
        spoil(&world);
        delete(&world);
        close(&world);
        goes(&world).await;
        assert!(has_told(&world, "AccountsLeft"));
    }
}

#[tokio::test]
async fn an_admin_account_that_was_demoted_is_named() {
    let world = working("Deactivate").await;
    let admin = world.secret_text("auditbot-admin-token", "user-id");
    let promote = |is_admin| world.homeserver.world().users.get_mut(&admin).unwrap().account.admin = is_admin;
    promote(false);
    delete(&world);
    close(&world);
    let message = waits(&world).await;
    assert!(message.contains(&format!("make {admin} a server admin again")), "{message}");
    promote(true);
    goes(&world).await;
    assert_eq!(deactivated(&world), (true, true));
}

#[tokio::test]
async fn a_namespace_that_was_closed_first_can_be_given_up() {
    let world = working("Deactivate").await;
    lose_rights(&world);
    delete(&world);
    let message = waits(&world).await;
    assert!(message.contains("kubectl create rolebinding") && message.contains(ABANDON), "{message}");
    assert!(!has_told(&world, "AccountsLeft"));
    abandon(&world);
    goes(&world).await;
    assert!(has_told(&world, "AccountsLeft"));
    assert_eq!(deactivated(&world), (false, false));
}

#[tokio::test]
async fn a_namespace_that_is_deleted_with_its_bots_is_not_held_up() {
    // Its objects go in any order: with the rights or with the Secrets first.
    for first in [lose_rights, |world: &World| {
        children_go_first(world);
        for name in world.api.names("secrets", NAMESPACE) {
            world.api.delete("secrets", NAMESPACE, &name);
        }
    }] {
        let world = working("Deactivate").await;
        world.api.terminate_namespaces();
        delete(&world);
        first(&world);
        goes(&world).await;
    }
}

#[tokio::test]
async fn accounts_whose_secrets_are_gone_are_told_of() {
    let world = working("Deactivate").await;
    delete(&world);
    close(&world);
    for name in world.api.names("secrets", NAMESPACE) {
        world.api.delete("secrets", NAMESPACE, &name);
    }
    goes(&world).await;
    let notes = world.notes("AccountsLeft");
    assert!(notes.len() == 1 && notes[0].contains("@auditbot:example.org"), "{notes:?}");
}
