//! What can be wrong with a database: at the start, where the init container says it, and while
//! the worker runs, where nothing may be lost.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Database, Scene, Trail, eventually, leaks,
    metrics::Samples,
    sql::{copy_database, count, drop_database, offline, psql, sql, swap_database},
    unique,
    writes::writes_within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_database_is_a_condition_that_says_what_to_do() {
    let scene = Scene::set("dbfault", &[]).await;
    let (limited, pooled) = (Database::limited(&unique("limited")), Database::pooled(&unique("pooled")));
    let newer = Database::tenant(&unique("newer"));
    let good = scene.database.secret.clone();
    let but = |key: &str, value: &str| {
        let mut secret = good.clone();
        secret[key] = json!(value);
        secret
    };
    let wrong_ca = json!({"ca.crt": self_signed()});
    scene.tenant.secret("wrong-ca", &wrong_ca, &json!({})).await;
    scene
        .tenant
        .secret("right-ca", &json!({"ca.crt": fs::read_to_string(&limited.ca_file).unwrap()}), &json!({}))
        .await;
    let faults: [(&str, Value, &[&str]); 6] = [
        ("wrongpassword", but("password", "not-the-password-0123456789"), &["password"]),
        ("closedport", but("port", "9"), &["10.244.0.1:9"]),
        ("nodatabase", but("dbname", "no_such_database"), &["no_such_database"]),
        ("limited", limited.secret.clone(), &["CREATE ROLE", "LOGIN"]),
        ("pooled", pooled.secret.clone(), &["pool", "transaction"]),
        ("wrongca", good.clone(), &["certificate", "caSecretRef"]),
    ];
    for (name, secret, _) in &faults {
        scene.tenant.secret(&format!("db-{name}"), secret, &json!({})).await;
        bot(&scene, name, if *name == "wrongca" { Some("wrong-ca") } else { None }).await;
    }
    println!("-- the private authority of the server is accepted; a schema newer than the program is not");
    scene.tenant.secret("db-rightca", &good, &json!({})).await;
    bot(&scene, "rightca", Some("right-ca")).await;
    scene.tenant.secret("db-newer", &newer.secret, &json!({})).await;
    bot(&scene, "newer", None).await;
    for (name, _, words) in &faults {
        let (reason, message) =
            scene.tenant.wait_says("AuditBot", name, "DatabaseReady", "False", words).await;
        println!("-- {name}: {reason}: {message}");
        let ready = scene.tenant.condition("AuditBot", name, "Ready").await.unwrap();
        assert_eq!(ready.0, "False", "{name}: {ready:?}");
    }
    scene.tenant.wait_ready("AuditBot", "rightca").await;
    scene.tenant.wait_ready("AuditBot", "newer").await;

    a_limited_owner_needs_the_printed_sql(&scene, &limited).await;
    newer_than_the_program(&scene, &newer).await;
    println!("-- 10 s of watching the faulty bots");
    let written = writes_within(&scene.tenant, Duration::from_secs(10)).await;
    let total: u64 = written.values().sum();
    assert!(total <= 8, "at most one write a bot: {written:?}");
    leaks::assert_no_secret_shows(&scene.tenant, &["not-the-password-0123456789"]).await;
    println!("-- a password that is corrected is picked up");
    scene.tenant.secret("db-wrongpassword", &good, &json!({})).await;
    scene.tenant.wait_ready("AuditBot", "wrongpassword").await;
    scene.end().await;
}

async fn bot(scene: &Scene, name: &str, ca: Option<&str>) {
    let mut spec = json!({"username": name,
        "database": {"schema": name, "secretRef": {"name": format!("db-{name}")}}});
    if let Some(ca) = ca {
        spec["database"]["caSecretRef"] = json!({"name": ca});
    }
    scene.tenant.bot("AuditBot", name, &scene.synapse, spec).await;
}

/// A certificate of an authority that signed nothing here.
fn self_signed() -> String {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -days 2 -subj /CN=stranger";
    let done = std::process::Command::new("openssl").args(arguments.split(' ')).output().unwrap();
    String::from_utf8(done.stdout).unwrap()
}

/// The database's administrator runs what the condition prints, with the passwords of the Secret;
/// or makes roles of other names, and they are named in the specification.
async fn a_limited_owner_needs_the_printed_sql(scene: &Scene, limited: &Database) {
    let (_, _, message) = scene.tenant.condition("AuditBot", "limited", "DatabaseReady").await.unwrap();
    let names: Vec<String> = message
        .split("CREATE ROLE ")
        .skip(1)
        .map(|rest| rest.split([' ', ';']).next().unwrap().trim_matches('"').to_owned())
        .collect();
    println!("-- limited: the administrator makes {names:?}");
    let passwords = scene.tenant.secret_data("auditbot-limited-database-roles").await.unwrap();
    assert_eq!(names.len(), passwords.len(), "{message}");
    for name in &names {
        let (_, part) = name.rsplit_once('_').unwrap();
        let password = &passwords[&format!("{part}-password")];
        sql("postgres", &format!("CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'"));
    }
    // The pod would try again by itself, after up to five minutes.
    scene.tenant.kill_worker("auditbot-limited").await;
    scene.tenant.wait_ready("AuditBot", "limited").await;
    let size = count(&limited.name, "SELECT size FROM limited.head");
    assert!(size > 0);
    println!("-- limited: roles of the administrator's own naming");
    let mut given = json!({});
    for part in ["writer", "reader"] {
        let name = format!("given-{part}-{}", limited.name);
        sql("postgres", &format!("CREATE ROLE \"{name}\" LOGIN PASSWORD 'made-by-the-administrator'"));
        let data = json!({"username": name, "password": "made-by-the-administrator"});
        scene.tenant.secret(&format!("role-{part}"), &data, &json!({})).await;
        given[part] = json!({"secretRef": {"name": format!("role-{part}")}});
    }
    let old = crate::support::actions::uid(&scene.tenant.worker("auditbot-limited").await.unwrap());
    scene.tenant.patch_bot("AuditBot", "limited", json!({"spec": {"database": given}})).await;
    scene.tenant.wait_new_worker("auditbot-limited", &old).await;
    scene.tenant.wait_ready("AuditBot", "limited").await;
    let writers =
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'given-writer-{}'", limited.name);
    assert!(count("postgres", &writers) > 0, "the worker is connected as the given writer");
    assert!(count(&limited.name, "SELECT size FROM limited.head") > size, "and goes on with the trail");
    let mut reader = url::Url::parse(&limited.host_url).unwrap();
    reader.set_username(&format!("given-reader-{}", limited.name)).unwrap();
    reader.set_password(Some("made-by-the-administrator")).unwrap();
    psql(reader.as_str(), "SELECT count(*) FROM limited.content").expect("the given reader reads");
    psql(reader.as_str(), "DELETE FROM limited.content").expect_err("and does nothing else");
    scene.tenant.delete_bot("AuditBot", "limited").await;
    for name in
        names.into_iter().chain(["writer", "reader"].map(|part| format!("given-{part}-{}", limited.name)))
    {
        sql(&limited.name, &format!("DROP OWNED BY \"{name}\"; DROP ROLE \"{name}\""));
    }
}

async fn newer_than_the_program(scene: &Scene, newer: &Database) {
    println!("-- newer: a later release has migrated the schema");
    sql(
        &newer.name,
        "INSERT INTO newer._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99999999, 'of a later release', true, '\\x00', 0)",
    );
    scene.tenant.kill_worker("auditbot-newer").await;
    scene
        .tenant
        .wait_says("AuditBot", "newer", "DatabaseReady", "False", &["99999999", "newer version"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_worker_loses_nothing_with_its_database() {
    let mut scene = Scene::set("dblive", &["alice", "bob"]).await;
    scene.audit_bot().await;
    let room = scene.room("alice", &["bob"], &["auditbot"], json!({"encrypted": true}));
    let trail = scene.trail("auditbot").await;
    scene.client.send("alice", &room, "with a database");
    trail.wait_for_text("with a database").await;

    println!("-- the database is gone for a while");
    let name = scene.database.name.clone();
    offline(&name, true);
    scene.client.send("alice", &room, "without a database");
    scene.tenant.wait_condition("AuditBot", "auditbot", "DatabaseReady", "False", "").await;
    let samples = Samples::of(&scene.tenant.worker("auditbot").await.unwrap()).await;
    assert!(samples.count("ems_bots_worker_database_errors_total", &[]) > 0);
    assert_eq!(samples.count("ems_bots_worker_check", &[("check", "database")]), 0);
    offline(&name, false);
    trail.wait_for_text("without a database").await;
    scene.tenant.wait_ready("AuditBot", "auditbot").await;

    println!("-- the database cannot write");
    sql("postgres", &format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = on"));
    sql(
        "postgres",
        &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
    );
    scene.client.send("alice", &room, "while it was read-only");
    scene.tenant.wait_condition("AuditBot", "auditbot", "DatabaseReady", "False", "").await;
    sql("postgres", &format!("ALTER DATABASE \"{name}\" RESET default_transaction_read_only"));
    sql(
        "postgres",
        &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
    );
    trail.wait_for_text("while it was read-only").await;
    scene.tenant.wait_ready("AuditBot", "auditbot").await;

    a_full_disk_loses_nothing(&mut scene, &room, &trail).await;
    an_older_backup_is_not_appended_to(&mut scene, &room).await;
    for text in [
        "with a database",
        "without a database",
        "while it was read-only",
        "on a full disk",
        "after the backup",
    ] {
        assert_eq!(trail.count_text(text), 1, "{text:?} is recorded exactly once");
    }
    scene.end().await;
}

/// What Postgres answers when its disk is full, from a trigger.
async fn a_full_disk_loses_nothing(scene: &mut Scene, room: &str, trail: &Trail) {
    println!("-- the disk of the database is full");
    let name = scene.database.name.clone();
    sql(
        &name,
        "CREATE FUNCTION auditbot.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file: No space left on device';
         END $$;
         CREATE TRIGGER full_disk BEFORE INSERT ON auditbot.envelope FOR EACH ROW
             EXECUTE FUNCTION auditbot.full_disk()",
    );
    scene.client.send("alice", room, "on a full disk");
    let reason = "DatabaseCannotWrite";
    let message = scene.tenant.wait_condition("AuditBot", "auditbot", "DatabaseReady", "False", reason).await;
    assert!(message.contains("space"), "{message}");
    sql(&name, "DROP TRIGGER full_disk ON auditbot.envelope; DROP FUNCTION auditbot.full_disk");
    trail.wait_for_text("on a full disk").await;
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
}

async fn an_older_backup_is_not_appended_to(scene: &mut Scene, room: &str) {
    println!("-- the database is restored from an older backup");
    let trail = scene.trail("auditbot").await;
    let name = scene.database.name.clone();
    let (backup, live) = (format!("{name}-backup"), format!("{name}-live"));
    copy_database(&name, &backup);
    scene.client.send("bob", room, "after the backup");
    trail.wait_for_text("after the backup").await;
    let size = count(&name, "SELECT size FROM auditbot.head");
    // Promised is what was reported, and that is done at most once a minute.
    eventually("the point in the status", Duration::from_secs(90), || async {
        let status = scene.tenant.status("AuditBot", "auditbot").await;
        let reported = status["trail"]["size"].as_i64().unwrap_or(0);
        if reported >= size { Ok(()) } else { Err(format!("{reported} of {size}")) }
    })
    .await;
    swap_database(&name, &backup, &live);
    let old = count(&name, "SELECT size FROM auditbot.head");
    assert!(old < size);
    scene.tenant.kill_worker("auditbot").await;
    // What the survey finds may be recorded and reported after `size` was read: the status tells
    // what was promised.
    let (reason, message) = eventually("both sizes in the condition", Duration::from_secs(150), || async {
        let promised = scene.tenant.status("AuditBot", "auditbot").await["trail"]["size"].to_string();
        let seen = scene.tenant.condition("AuditBot", "auditbot", "DatabaseReady").await;
        match seen {
            Some((status, reason, message))
                if status == "False" && message.contains(&old.to_string()) && message.contains(&promised) =>
            {
                Ok((reason, message))
            }
            _ => Err(format!("{seen:?}, not {old} and {promised}")),
        }
    })
    .await;
    println!("   {reason}: {message}");
    scene.client.send("bob", room, "while the old copy was there");
    let status = scene.tenant.status("AuditBot", "auditbot").await;
    assert!(status["trail"]["size"].as_i64().unwrap() >= size, "the promise stays: {status}");
    assert_eq!(count(&name, "SELECT size FROM auditbot.head"), old, "nothing is appended to the old copy");
    println!("-- the right one is back");
    swap_database(&name, &live, &backup);
    // It is looked at again at the pace of what only a person mends.
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
    trail.wait_for_text("while the old copy was there").await;
    drop_database(&backup);
    psql(&trail.reader_url, "SELECT 1").unwrap();
}
