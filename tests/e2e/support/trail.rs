//! A bot's audit trail as people read it: with `ems-bots audit search` in the reader's role.

use std::{process::Command, time::Duration};

use serde_json::Value;
use sha2::Digest as _;

use super::{Database, Tenant, eventually};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ems-bots");

/// See the module.
#[derive(Debug, Clone)]
pub struct Trail {
    pub reader_url: String,
    pub schema: String,
}

/// Runs the program with these variables; exit code, standard output, standard error.
pub fn ems_bots(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let done = Command::new(PROGRAM)
        .args(arguments)
        .env_remove("DATABASE_URL")
        .envs(variables.iter().copied())
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (done.status.code().unwrap_or(-1), text(done.stdout), text(done.stderr))
}

impl Trail {
    /// Of the bot whose children's names begin with `base`.
    pub async fn of(tenant: &Tenant, database: &Database, base: &str, schema: &str) -> Self {
        let roles =
            tenant.secret_data(&format!("{base}-database-roles")).await.expect("roles were generated");
        let hash = hex::encode(sha2::Sha256::digest(database.name.as_bytes()));
        // Roles belong to the whole server, so the database is part of the name (ADR 3).
        let mut url = url::Url::parse(&database.host_url).unwrap();
        url.set_username(&format!("{schema}_{}_reader", &hash[..8])).unwrap();
        url.set_password(Some(&roles["reader-password"])).unwrap();
        Self { reader_url: url.into(), schema: schema.to_owned() }
    }

    /// One search; fails with what the program said.
    pub fn try_search(&self, arguments: &[&str]) -> Result<Vec<Value>, (i32, String)> {
        let found = self.lines(&[&["audit", "search"], arguments].concat())?;
        Ok(found.into_iter().map(flat).collect())
    }

    /// Where the bot stands in every room.
    pub fn rooms(&self) -> Vec<Value> {
        self.lines(&["rooms", "list"]).unwrap_or_else(|error| panic!("rooms list: {error:?}"))
    }

    fn lines(&self, command: &[&str]) -> Result<Vec<Value>, (i32, String)> {
        let all = [command, &["--schema", &self.schema, "--output", "json"]].concat();
        let (code, out, error) = ems_bots(&all, &[("DATABASE_URL", &self.reader_url)]);
        if code != 0 {
            return Err((code, error));
        }
        let lines = serde_json::Deserializer::from_str(&out).into_iter::<Value>();
        Ok(lines.map(|one| one.unwrap_or_else(|error| panic!("no JSON: {error}: {out}"))).collect())
    }

    pub fn search(&self, arguments: &[&str]) -> Vec<Value> {
        self.try_search(arguments).unwrap_or_else(|error| panic!("audit search {arguments:?}: {error:?}"))
    }

    /// Waits until a search finds a record that fits; returns it.
    pub async fn wait_for(&self, arguments: &[&str], what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("record of {what}"), Duration::from_mins(1), || async {
            let found = self.search(arguments);
            match found.iter().find(|record| fits(record)) {
                Some(record) => Ok(record.clone()),
                None => Err(format!("{} records of {arguments:?}, none such: {found:#?}", found.len())),
            }
        })
        .await
    }

    /// Waits for the message with exactly this text.
    pub async fn wait_for_text(&self, text: &str) -> Value {
        self.wait_for(&[text], text, |record| record["text"] == text).await
    }

    /// How many records have exactly this text.
    pub fn count_text(&self, text: &str) -> usize {
        let found = self.search(&[text, "--limit", "100"]);
        found.iter().filter(|record| record["text"] == text && !is_ciphertext(record)).count()
    }
}

/// What was recorded, with the record's number and times beside it.
fn flat(mut record: Value) -> Value {
    let mut flat = record["content"].take();
    for key in ["seq", "epoch", "recorded_at", "occurred_at"] {
        flat[key] = record[key].take();
    }
    flat
}

fn is_ciphertext(record: &Value) -> bool {
    record["trust"] == "undecryptable"
}

/// Whether a record has a relation of this kind, identifier and role.
pub fn relates(record: &Value, kind: &str, id: &str, role: &str) -> bool {
    let wanted = serde_json::json!({"kind": kind, "id": id, "role": role});
    record["relations"].as_array().is_some_and(|all| all.contains(&wanted))
}

/// Before and after of the change at this path.
pub fn change(record: &Value, path: &str) -> Option<(Value, Value)> {
    let changes = record["changes"].as_array()?;
    let found = changes.iter().find(|change| change["path"] == path)?;
    Some((found["before"].clone(), found["after"].clone()))
}

/// Identifier of the actor.
pub fn actor(record: &Value) -> &str {
    record["actor"]["id"].as_str().unwrap_or_default()
}
