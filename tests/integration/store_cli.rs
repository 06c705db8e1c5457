//! `ems-bots migrate` and `ems-bots audit search` as a person or a pod runs them.

use std::{
    path::Path,
    process::{Command, Output},
};

use ems_bots::store::{AuditStore as _, pg::Role};
use serde_json::Value;

use crate::{
    postgres::TestDatabase,
    store_append::{batch, message, now},
};

const SECRET: &str = "only-for-this-test";

fn ems_bots(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ems-bots"));
    command.env_clear().args(arguments);
    command
}

pub(crate) fn code(output: &Output) -> Option<i32> {
    let all =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!all.contains(SECRET), "a password is printed: {all}");
    output.status.code()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn migrate(folder: &Path, database: &TestDatabase) -> Output {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("owner/host", &database.host);
    write("owner/port", &database.port.to_string());
    write("owner/dbname", &database.name);
    write("owner/username", &database.name);
    write("owner/password", SECRET);
    for role in Role::ALL {
        write(&format!("roles/{}-password", role.as_str()), &TestDatabase::password(role));
    }
    ems_bots(&["migrate"])
        .env("EMS_DATABASE_OWNER_DIR", folder.join("owner"))
        .env("EMS_DATABASE_ROLES_DIR", folder.join("roles"))
        .output()
        .unwrap()
}

fn url(database: &TestDatabase, password: &str) -> String {
    let role = database.role_name(Role::Reader);
    format!("postgresql://{role}:{password}@{}:{}/{}", database.host, database.port, database.name)
}

/// What somebody gets who reads a database.
pub(crate) fn reader(database: &TestDatabase, arguments: &[&str]) -> Output {
    let password = TestDatabase::password(Role::Reader);
    ems_bots(arguments).env("DATABASE_URL", url(database, &password)).output().unwrap()
}

fn search(database: &TestDatabase, arguments: &[&str]) -> Output {
    reader(database, &[&["audit", "search"], arguments].concat())
}

#[tokio::test]
async fn a_migrated_trail_is_searched_by_people_and_machines() {
    let folder = tempfile::tempdir().unwrap();
    let database = TestDatabase::empty().await;
    let migrated = migrate(folder.path(), &database);
    assert_eq!(code(&migrated), Some(0), "{}", stderr(&migrated));
    let again = migrate(folder.path(), &database);
    assert_eq!(code(&again), Some(0), "{}", stderr(&again));

    let store = database.writer(1);
    store.open(None).await.unwrap();
    let drafts =
        vec![message("a", "first invoice"), message("b", "\u{1b}[2Jsecond invoice"), message("c", "third")];
    store.append(&batch(drafts), now()).await.unwrap();

    let table = search(&database, &["invoice", "--since", "2026-09-01"]);
    assert_eq!(code(&table), Some(0), "{}", stderr(&table));
    let table = String::from_utf8(table.stdout).unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(
        lines[0].contains("ACTOR") && lines[1].contains("second invoice") && !table.contains('\u{1b}'),
        "{table}"
    );
    assert!(lines[2].contains("@alice:example.org") && lines[2].contains("first invoice"), "{table}");

    let json = search(&database, &["--room", "!room:example.org", "--limit", "2", "--output", "json"]);
    assert_eq!(code(&json), Some(0), "{}", stderr(&json));
    let records: Vec<Value> = String::from_utf8(json.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), 2);
    assert_eq!((&records[0]["seq"], &records[0]["content"]["source_id"]), (&3.into(), &"c".into()));

    let nothing = search(&database, &["--until", "2020-01-01"]);
    assert_eq!((code(&nothing), String::from_utf8(nothing.stdout).unwrap().lines().count()), (Some(0), 1));
}

#[tokio::test]
async fn each_failure_says_what_to_do() {
    let database = TestDatabase::migrated().await;
    let wrong = ems_bots(&["audit", "search"]).env("DATABASE_URL", url(&database, "wrong")).output().unwrap();
    assert_eq!(code(&wrong), Some(4));
    assert!(stderr(&wrong).contains("check user, password"), "{}", stderr(&wrong));
    let absent = ems_bots(&["audit", "search"]).output().unwrap();
    assert_eq!(code(&absent), Some(2));
    assert!(stderr(&absent).contains("--database-url"), "{}", stderr(&absent));
    let broken =
        ems_bots(&["audit", "search"]).env("DATABASE_URL", format!("nonsense {SECRET}")).output().unwrap();
    assert_eq!(code(&broken), Some(1));
    assert!(stderr(&broken).contains("postgresql://user:password@host:port/database"), "{}", stderr(&broken));
    let other = search(&database, &["--schema", "elsewhere"]);
    assert_eq!(code(&other), Some(1));
    assert!(stderr(&other).contains("--schema"), "{}", stderr(&other));
    let time = search(&database, &["--since", "soon"]);
    assert_eq!(code(&time), Some(2));
    assert!(stderr(&time).contains("2026-11-20"), "{}", stderr(&time));
    let help = search(&database, &["--help"]);
    assert_eq!(code(&help), Some(0));
}

#[tokio::test]
async fn a_refused_migration_has_an_exit_code_of_its_own_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let database = TestDatabase::with_owner("NOCREATEROLE").await;
    let refused = migrate(folder.path(), &database);
    assert_eq!(code(&refused), Some(4));
    let told = stderr(&refused);
    assert!(told.contains("CREATE ROLE") && told.trim_end().lines().count() == 1, "{told}");
    let incomplete = ems_bots(&["migrate"])
        .env("EMS_DATABASE_OWNER_DIR", folder.path().join("elsewhere"))
        .output()
        .unwrap();
    assert_eq!(code(&incomplete), Some(1));
    assert!(stderr(&incomplete).contains("is its Secret complete?"), "{}", stderr(&incomplete));
}
