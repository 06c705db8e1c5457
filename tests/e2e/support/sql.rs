//! The database server from its superuser's side: what a test does to a database, and what it
//! counts there.

use std::{
    io::Write,
    process::{Command, Stdio},
};

/// Runs statements in a database as the superuser; rows as lines, columns separated by `|`.
pub fn sql(database: &str, text: &str) -> String {
    try_sql(database, text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The same, or what Postgres said.
pub fn try_sql(database: &str, text: &str) -> Result<String, String> {
    let url = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL is set by make test");
    let mut url = url::Url::parse(&url).unwrap();
    url.set_path(database);
    psql(url.as_str(), text)
}

/// Runs statements with any URL.
pub fn psql(url: &str, text: &str) -> Result<String, String> {
    let mut child = Command::new("psql")
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql is installed");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    if done.status.success() { Ok(out) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// A number that a query returns.
pub fn count(database: &str, query: &str) -> i64 {
    let answer = sql(database, query);
    answer.parse().unwrap_or_else(|_| panic!("{query}: {answer:?} is no number"))
}

/// A copy of a database as it is now: what a backup would hold.
pub fn copy_database(from: &str, to: &str) {
    offline(from, true);
    sql("postgres", &format!("CREATE DATABASE \"{to}\" TEMPLATE \"{from}\" OWNER \"{from}\""));
    offline(from, false);
}

/// Puts one database in the place of another, which is kept under a third name.
pub fn swap_database(name: &str, replacement: &str, kept_as: &str) {
    offline(name, true);
    sql("postgres", &format!("ALTER DATABASE \"{name}\" RENAME TO \"{kept_as}\""));
    sql("postgres", &format!("ALTER DATABASE \"{replacement}\" RENAME TO \"{name}\""));
    offline(name, false);
}

/// Refuses and ends all connections to a database, or allows them again.
pub fn offline(name: &str, off: bool) {
    sql("postgres", &format!("ALTER DATABASE \"{name}\" WITH ALLOW_CONNECTIONS {}", !off));
    if off {
        // A backend ends a little later than it is told to.
        sql(
            "postgres",
            &format!(
                "DO $$ BEGIN FOR i IN 1..100 LOOP
                   PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}';
                   PERFORM pg_stat_clear_snapshot();
                   EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{name}');
                   PERFORM pg_sleep(0.05);
                 END LOOP; END $$"
            ),
        );
    }
}

pub fn drop_database(name: &str) {
    sql("postgres", &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"));
}
