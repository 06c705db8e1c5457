//! What can keep a worker from logging in or from trusting its homeserver.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::support::{Scene, actions, eventually, scene};

/// Two wrong passwords, then none for 100 s; everything else as Synapse has it.
const STRICT: &str = r#"{"rc_login": {"failed_attempts": {"per_second": 0.01, "burst_count": 2}}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_cannot_log_in_says_why_and_goes_on_by_itself() {
    let scene = Scene::set_with("login", &[], &["--extra", "-"], Some(STRICT)).await;
    scene.audit_bot().await;
    the_limiter_of_logins_is_waited_for(&scene).await;
    password_login_is_switched_off(&scene).await;
    scene.end().await;
}

async fn the_limiter_of_logins_is_waited_for(scene: &Scene) {
    println!("-- somebody guesses the bot's password, and the worker must log in anew");
    let user = scene.user_id("auditbot");
    eventually("the limiter", Duration::from_secs(20), || async {
        let guess = json!({"type": "m.login.password", "password": "guessed",
            "identifier": {"type": "m.id.user", "user": user}});
        let (status, answer) =
            scene.synapse.request("POST", "/_matrix/client/v3/login", "", Some(guess)).await;
        if status == 429 { Ok(()) } else { Err(format!("{status} {answer}")) }
    })
    .await;
    let old = actions::uid(&scene.tenant.worker("auditbot").await.unwrap());
    scene.tenant.lose_volume("auditbot").await;
    let words = ["waits as long as the homeserver asks", "rc_login"];
    let (reason, message) =
        scene.tenant.wait_says("AuditBot", "auditbot", "EncryptionReady", "False", &words).await;
    println!("   {reason}: {message}");
    assert_eq!(reason, "RateLimited");
    scene.tenant.wait_new_worker("auditbot", &old).await;
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
    assert_eq!(scene::devices(&scene.synapse, &user).await.len(), 1, "one device of its own");
}

async fn password_login_is_switched_off(scene: &Scene) {
    println!("-- password login is switched off, and the worker must log in anew");
    crate::support::services::dev(&["synapse", "up", &scene.synapse.name, "--password-login", "no"], None);
    scene.tenant.lose_volume("auditbot").await;
    let words = ["password login", "password_config"];
    let (reason, message) =
        scene.tenant.wait_says("AuditBot", "auditbot", "EncryptionReady", "False", &words).await;
    println!("   {reason}: {message}");
    assert_eq!(reason, "PasswordLoginDisabled");
    println!("-- and on again");
    crate::support::services::dev(&["synapse", "up", &scene.synapse.name, "--password-login", "yes"], None);
    // It would look again by itself after five minutes.
    scene.tenant.kill_worker("auditbot").await;
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_homeserver_with_a_private_authority_is_trusted_when_told_to() {
    let scene = Scene::set("private", &[]).await;
    let url = scene.synapse.pod_tls_url.as_str();
    let shared = json!({"registration-shared-secret": scene.synapse.registration_shared_secret});
    scene.tenant.secret("ems-bots-homeserver", &shared, &json!({"ems.element.io/homeserver": url})).await;
    let authority = fs::read_to_string(&scene.synapse.ca_file).unwrap();
    scene.tenant.secret("authority", &json!({"ca.crt": authority}), &json!({})).await;

    println!("-- of an authority that nobody named");
    scene.tenant.bot("AuditBot", "auditbot", &scene.synapse, json!({"homeserver": {"url": url}})).await;
    let words = ["certificate", "caSecretRef"];
    let (reason, message) =
        scene.tenant.wait_says("AuditBot", "auditbot", "AccountReady", "False", &words).await;
    println!("   {reason}: {message}");

    println!("-- which is then named: operator and worker both use it");
    let named: Value = json!({"spec": {"homeserver": {"caSecretRef": {"name": "authority"}}}});
    scene.tenant.patch_bot("AuditBot", "auditbot", named).await;
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
    scene.end().await;
}
