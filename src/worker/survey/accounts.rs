//! Accounts: all of them are listed, and only those of which the listing shows a change are looked at
//! closer, then and once more. What the listing does not show of an account that nobody uses is found within a day.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::{
    LookError, Survey,
    draft::{Span, about},
    sessions,
};
use crate::{
    domain::record::{Category, Occurred, RecordDraft, Relation},
    homeserver::{AccountFacts, HomeserverError, Inspect},
    store::{Batch, Snapshot},
    worker::{
        convert::diff,
        vocabulary::{ACCOUNT_FACTS, ANOTHER_FACT, Verb},
    },
};

pub(super) const EVERY: Duration = Duration::from_mins(2);

const SOURCE: &str = "account";
/// When all accounts were last looked at, in milliseconds since 1970.
const CURSOR: &str = "survey:accounts";
/// Every account is looked at closer once in so many looks, whatever the listing shows: once a day.
const TURNS: u64 = 24 * 60 / 2;
/// Accounts whose records are written together.
const CHUNK: usize = 100;
/// Requests at a time: the homeserver has other things to do.
const CONCURRENCY: usize = 2;

/// What was last known of an account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    facts: Map<String, Value>,
    #[serde(default)]
    seen_ms: Option<i64>,
    /// None: its sessions were never looked at.
    #[serde(default)]
    sessions: Option<sessions::Sessions>,
    /// The listing showed a change at the last look. One request to the homeserver may change several things one
    /// after the other, and the look may have come in between: the next one is a closer look too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_settling: bool,
}

impl Survey {
    pub(super) async fn accounts(&self, cancel: &CancellationToken) -> Result<(), LookError> {
        let span = Span::new(self.number(CURSOR, cancel).await?, self.now_ms());
        let mut from = 0;
        loop {
            let page = self.inspect.accounts(from).await?;
            for rows in page.rows.chunks(CHUNK) {
                self.compare(rows, span, cancel).await?;
            }
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        let cursors = vec![(CURSOR.to_owned(), span.now.to_string())];
        self.recorder.append(&Batch { cursors, ..Batch::default() }, cancel).await?;
        Ok(())
    }

    async fn compare(
        &self,
        rows: &[AccountFacts],
        span: Span,
        cancel: &CancellationToken,
    ) -> Result<(), LookError> {
        let users: Vec<String> = rows.iter().map(|row| row.user.clone()).collect();
        let known = self.recorder.snapshots(SOURCE, &users, cancel).await?;
        let known: BTreeMap<String, Known> = known
            .into_iter()
            .filter_map(|(user, text)| Some((user, serde_json::from_str(&text).ok()?)))
            .collect();
        let mut looks = Vec::with_capacity(rows.len());
        for row in rows {
            looks.push(look_at(self.inspect.clone(), row.clone(), known.get(&row.user).cloned(), span));
        }
        let seen: Vec<Known> = futures::stream::iter(looks).buffered(CONCURRENCY).try_collect().await?;
        let span = span.until(self.now_ms());
        let mut batch = Batch::default();
        for (row, now) in rows.iter().zip(seen) {
            let before = known.get(&row.user);
            if before == Some(&now) {
                continue;
            }
            batch.drafts.extend(records(row, before, &now, span));
            let value = serde_json::to_string(&now).ok();
            batch.snapshots.push(Snapshot { source: SOURCE, key: row.user.clone(), value });
        }
        if !batch.snapshots.is_empty() {
            self.recorder.append(&batch, cancel).await?;
        }
        Ok(())
    }
}

/// What is known of the account now: looked at closer where there is a reason to.
async fn look_at(
    inspect: Arc<dyn Inspect>,
    row: AccountFacts,
    before: Option<Known>,
    span: Span,
) -> Result<Known, LookError> {
    let is_baseline = before.is_none() && span.before.is_none();
    let known = before.unwrap_or_default();
    let mut now = known.clone();
    now.facts.extend(row.facts);
    now.is_settling = known.facts != now.facts && !is_baseline;
    let is_changed = now.is_settling || known.sessions.is_none() || known.seen_ms != row.last_seen_ms;
    if !is_changed && !known.is_settling && !has_turn(&row.user, span) {
        return Ok(now);
    }
    if let Some(details) = of_one(&row.user, inspect.account(&row.user).await)? {
        now.facts.extend(details);
    }
    // What could not be seen is looked for again the next time.
    if let Some(sessions) = of_one(&row.user, inspect.sessions(&row.user).await)? {
        now.sessions = Some(sessions::remembered(known.sessions.as_ref(), sessions));
        now.seen_ms = row.last_seen_ms;
    }
    Ok(now)
}

/// What concerns one account only must not keep the others from being looked at. One that goes in this moment
/// is seen without it the next time.
fn of_one<T>(user: &str, answer: Result<Option<T>, HomeserverError>) -> Result<Option<T>, HomeserverError> {
    match answer {
        Err(error @ (HomeserverError::Refused { .. } | HomeserverError::Server { status: 500, .. })) => {
            tracing::warn!(user, %error, "cannot look at an account");
            Ok(None)
        }
        answer => answer,
    }
}

/// Whether it is the account's turn to be looked at closer: everybody's place in the day is another one, and all
/// those that have passed since the look before have their turn.
fn has_turn(user: &str, span: Span) -> bool {
    let digest = Sha256::digest(user);
    let place = digest.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)) % TURNS;
    let every = u64::try_from(EVERY.as_millis()).unwrap_or(1).max(1);
    let slot = |time_ms: i64| time_ms.unsigned_abs() / every;
    let Some(first) = span.before.map(|before| slot(before) + 1) else { return true };
    // The first slot of that place from there on.
    let next = first + (place + TURNS - first % TURNS) % TURNS;
    next <= slot(span.now)
}

/// What happened to an account between two looks.
fn records(row: &AccountFacts, before: Option<&Known>, now: &Known, span: Span) -> Vec<RecordDraft> {
    let mut drafts = match before {
        None => vec![first(row, now, span)],
        Some(before) => changed(&row.user, &before.facts, &now.facts, span),
    };
    if let Some(sessions) = &now.sessions {
        let old = match before {
            Some(known) => known.sessions.as_ref(),
            // Sessions of an account that is new have begun since it exists.
            None => None,
        };
        let is_baseline = old.is_none() && (before.is_some() || span.before.is_none());
        drafts.extend(sessions::changed(&row.user, old, sessions, is_baseline, span));
    }
    drafts
}

/// The first record of an account: found when recording began, or registered since.
fn first(row: &AccountFacts, now: &Known, span: Span) -> RecordDraft {
    let action = if span.before.is_none() { "account.found" } else { "account.registered" };
    // The same id for both: an account is first seen once.
    let id = format!("survey:account:{}", row.user);
    let mut draft = about(&row.user, id, Category::AdminOperation, action, span);
    if let (Some(_), Some(created)) = (span.before, row.created_ms) {
        draft.occurred = Occurred::At(created);
    }
    draft.changes = diff("/account", None, Some(&Value::Object(now.facts.clone())));
    if let Some(created) = row.created_ms {
        draft.changes.push(super::draft::new_value("/account/created", created));
    }
    if is_bot(&now.facts) {
        draft.relations.push(Relation::new("bot_account", &row.user, "target"));
    }
    draft
}

/// An account of a program: of a bridge, or declared as a bot.
fn is_bot(facts: &Map<String, Value>) -> bool {
    facts.get("user_type").is_some_and(|kind| kind == "bot")
        || facts.get("appservice_id").is_some_and(Value::is_string)
}

/// One record for each kind of change. What was not shown before is no change.
fn changed(
    user: &str,
    before: &Map<String, Value>,
    now: &Map<String, Value>,
    span: Span,
) -> Vec<RecordDraft> {
    let mut drafts: BTreeMap<&'static str, RecordDraft> = BTreeMap::new();
    for (field, after) in now {
        let Some(old) = before.get(field).filter(|old| *old != after) else { continue };
        let Verb { category, action } = verb(field, after);
        let draft = drafts.entry(action).or_insert_with(|| {
            let id = format!("survey:{action}:{user}:{}", span.now);
            let mut draft = about(user, id, category, action, span);
            if is_bot(now) {
                draft.relations.push(Relation::new("bot_account", user, "target"));
            }
            draft
        });
        draft.changes.extend(diff(&format!("/account/{field}"), Some(old), Some(after)));
    }
    drafts.into_values().collect()
}

fn verb(field: &str, after: &Value) -> Verb {
    let is_on = after.as_bool().unwrap_or_else(|| after.as_i64().is_some_and(|number| number != 0));
    match ACCOUNT_FACTS.iter().find(|fact| fact.name == field) {
        Some(fact) if is_on => fact.on,
        Some(fact) => fact.off,
        None => ANOTHER_FACT,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        domain::ServerName,
        homeserver::{Connect as _, mock::MockHomeserver},
    };

    const ALICE: &str = "@alice:example.org";
    const LATER: Span = Span::new(Some(1_000), 2_000);

    fn row(facts: &Value) -> AccountFacts {
        let facts = facts.as_object().unwrap().clone();
        AccountFacts { user: ALICE.to_owned(), facts, created_ms: Some(500), last_seen_ms: None }
    }

    fn known(facts: &Value) -> Known {
        Known { facts: facts.as_object().unwrap().clone(), seen_ms: None, sessions: None, is_settling: false }
    }

    fn between(before: &Value, now: &Value) -> Vec<(String, usize)> {
        let records = records(&row(now), Some(&known(before)), &known(now), LATER);
        records.into_iter().map(|record| (record.action, record.changes.len())).collect()
    }

    #[test]
    fn an_account_is_found_once_and_registered_later() {
        let facts = json!({"admin": true, "user_type": "bot"});
        let found = records(&row(&facts), None, &known(&facts), Span::new(None, 2_000));
        assert_eq!((found[0].action.as_str(), found[0].occurred), ("account.found", Occurred::Unknown));
        assert!(found[0].relations.contains(&Relation::new("bot_account", ALICE, "target")));
        let registered = records(&row(&facts), None, &known(&facts), LATER);
        assert_eq!(registered[0].action, "account.registered");
        assert_eq!(registered[0].occurred, Occurred::At(500));
        assert_eq!(registered[0].source_id, found[0].source_id);
    }

    #[test]
    fn every_flag_has_a_record_for_on_and_for_off() {
        for fact in ACCOUNT_FACTS {
            let (no, yes) = (json!({fact.name: false}), json!({fact.name: true}));
            assert_eq!(between(&no, &yes), [(fact.on.action.to_owned(), 1)]);
            assert_eq!(between(&yes, &no), [(fact.off.action.to_owned(), 1)]);
        }
    }

    #[test]
    fn changes_of_one_kind_are_one_record_with_before_and_after() {
        let before = json!({"displayname": "A", "avatar_url": null, "locked": false, "user_type": null});
        let now = json!({"displayname": "B", "avatar_url": "mxc://x/y", "locked": true, "user_type": "bot"});
        let seen = between(&before, &now);
        let expected = [("account.changed", 1), ("account.locked", 1), ("account.profile_changed", 2)];
        assert_eq!(seen, expected.map(|(action, changes)| (action.to_owned(), changes)));
        let records = records(&row(&now), Some(&known(&before)), &known(&now), LATER);
        let locked = records.iter().find(|record| record.action == "account.locked").unwrap();
        assert_eq!(locked.occurred, Occurred::Between(1_000, 2_000));
        assert_eq!(locked.actor, crate::domain::record::Actor::Unknown);
        assert_eq!(
            (&locked.changes[0].before, &locked.changes[0].after),
            (&Some(json!(false)), &Some(json!(true)))
        );
    }

    #[tokio::test]
    async fn a_change_that_a_look_saw_half_of_is_seen_whole_by_the_next() {
        let shown = MockHomeserver::new(ServerName::parse("example.org").unwrap());
        let root = shown.add_user(&"root".parse().unwrap(), true);
        let inspect: Arc<dyn Inspect> = Arc::from(shown.inspect(root));
        let address = |value: &str| json!({"threepids": [value]}).as_object().unwrap().clone();
        let list = |name: &str| row(&json!({"displayname": name}));
        let show = |row: &AccountFacts, details: &str| {
            let inspection = &mut shown.world().inspection;
            inspection.accounts = vec![row.clone()];
            inspection.details.insert(ALICE.to_owned(), address(details));
        };
        let look = |row: AccountFacts, before: &Known| {
            let (inspect, before) = (inspect.clone(), before.clone());
            async move { look_at(inspect, row, Some(before), LATER).await.unwrap() }
        };
        let first = Known { sessions: Some(BTreeMap::new()), ..known(&json!({"displayname": "Alice"})) };
        // One request changes both, and the look comes after the first of them.
        show(&list("Alicia"), "old");
        let half = look(list("Alicia"), &first).await;
        show(&list("Alicia"), "new");
        let whole = look(list("Alicia"), &half).await;
        assert_eq!((&half.facts["threepids"], &whole.facts["threepids"]), (&json!(["old"]), &json!(["new"])));
        // Settled: nobody is looked at closer for ever.
        show(&list("Alicia"), "newer");
        assert_eq!(look(list("Alicia"), &whole).await, whole);
    }

    #[test]
    fn what_was_never_shown_before_is_no_change() {
        assert!(between(&json!({"admin": false}), &json!({"admin": false, "suspended": true})).is_empty());
    }

    #[test]
    fn everybody_has_a_turn_once_a_day() {
        let (start, day) = (1_790_000_000_000, 24 * 3_600_000);
        for user in ["@a:x", "@b:x", "@c:x"] {
            // A look takes a while: they are never quite as far apart as they should be. Once nobody looked for hours.
            for gap in [120_000, 133_713, 7_200_000] {
                let looks: Vec<i64> =
                    (0..=day / gap).map(|look| start + look * gap).chain([start + day]).collect();
                let spans = looks.windows(2).map(|pair| Span::new(Some(pair[0]), pair[1]));
                assert_eq!(spans.filter(|span| has_turn(user, *span)).count(), 1, "{user} every {gap} ms");
            }
            assert!(
                has_turn(user, Span::new(Some(start), start + day)) && has_turn(user, Span::new(None, start))
            );
        }
    }
}
