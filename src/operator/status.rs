//! The status step: the operator's whole share of the status. (no client)
//!
//! The operator owns `Ready`, `AccountReady`, `WorkerReady`, `Suspended` and `Paused`. While the
//! worker's pod is not ready it also says that what the worker last said is not known any more.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{error::Aspect, worker_state::WorkerState};
use crate::{
    crd::{
        BotStatus,
        common::{BackupPhraseStatus, SecretRef},
    },
    domain::{BotKind, worker::Check},
    kube_util::conditions::{State, condition, find, merge},
};

/// Types of conditions.
pub mod types {
    /// All is well.
    pub const READY: &str = "Ready";
    /// The bot's account is there and ours.
    pub const ACCOUNT: &str = "AccountReady";
    /// The worker's pod runs.
    pub const WORKER: &str = "WorkerReady";
    /// The bot is suspended.
    pub const SUSPENDED: &str = "Suspended";
    /// The bot is not reconciled.
    pub const PAUSED: &str = "Paused";
    /// The worker's: its device and keys.
    pub const ENCRYPTION: &str = "EncryptionReady";
    /// The worker's: the trail's database.
    pub const DATABASE: &str = "DatabaseReady";
    /// The worker's: rooms.
    pub const ROOMS: &str = "RoomsCovered";
    /// The worker's: sources.
    pub const RECORDING: &str = "Recording";
    /// The worker's: the trail.
    pub const INTEGRITY: &str = "IntegrityVerified";
    /// The worker's: the homeserver's module.
    pub const MODULE: &str = "SynapseModuleActive";

    /// Those of the operator.
    pub const OPERATOR: [&str; 5] = [READY, ACCOUNT, WORKER, SUSPENDED, PAUSED];
    /// Those of the worker.
    pub const OF_WORKER: [&str; 6] = [ENCRYPTION, DATABASE, ROOMS, RECORDING, INTEGRITY, MODULE];
}

/// Reason of the worker's conditions while the operator writes them.
pub const WORKER_NOT_READY: &str = "WorkerNotReady";
/// Reason of `DatabaseReady` while the init container does not succeed.
const MIGRATION_FAILED: &str = "MigrationFailed";

/// What is known after a reconciliation.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Condition `AccountReady`.
    pub account: Check,
    /// The worker's pod.
    pub worker: WorkerState,
    /// Reconciliation is paused, and by what.
    pub paused: Option<&'static str>,
    /// The bot is to be suspended.
    pub suspend: bool,
    /// Fields in use that have no effect yet.
    pub without_effect: Vec<&'static str>,
    /// What was made, once it is.
    pub facts: Facts,
}

/// What goes into the status besides conditions. Left out: what was there stays.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// User id of the bot.
    pub user_id: Option<String>,
    /// User id of the worker's admin account.
    pub admin_user_id: Option<String>,
    /// Secret with the phrase.
    pub phrase_secret: Option<String>,
    /// Where people sign in; `Some(None)`: nowhere.
    pub login_url: Option<Option<String>>,
}

/// The operator's whole share of the status.
pub fn compute(
    kind: BotKind,
    generation: Option<i64>,
    old: Option<&BotStatus>,
    observed: &Observed,
    now: Timestamp,
) -> BotStatus {
    let none = BotStatus::default();
    let old = old.unwrap_or(&none);
    let of = |type_: &str, check: &Check| to_condition(type_, check, generation);
    let mut new = vec![
        of(types::ACCOUNT, &observed.account),
        of(types::WORKER, &observed.worker.check),
        of(types::SUSPENDED, &suspended(observed)),
        of(types::PAUSED, &paused(observed)),
    ];
    if observed.worker.speaks {
        new.extend(said_for_worker(kind, old));
    } else {
        new.extend(of_worker(kind, observed).iter().map(|(type_, check)| of(type_, check)));
    }
    let mut ready = ready(kind, old, observed, &new);
    if !observed.without_effect.is_empty() {
        let fields = observed.without_effect.join(", ");
        ready.message = format!("{}; without effect in this release: {fields}", ready.message);
    }
    new.push(of(types::READY, &ready));
    let facts = &observed.facts;
    BotStatus {
        observed_generation: generation,
        conditions: merge(&old.conditions, new, now),
        user_id: facts.user_id.clone().or_else(|| old.user_id.clone()),
        admin_user_id: facts.admin_user_id.clone().or_else(|| old.admin_user_id.clone()),
        backup_phrase: facts
            .phrase_secret
            .clone()
            .map(|name| BackupPhraseStatus { secret_ref: SecretRef { name } })
            .or_else(|| old.backup_phrase.clone()),
        login_url: facts.login_url.clone().unwrap_or_else(|| old.login_url.clone()),
        ..BotStatus::default()
    }
}

/// The status of a bot that is paused: what was said stays, but for `Paused`.
pub fn compute_paused(
    kind: BotKind,
    generation: Option<i64>,
    old: Option<&BotStatus>,
    why: &'static str,
    now: Timestamp,
) -> BotStatus {
    let check = Check::ok(why, format!("nothing is changed while this is paused ({why})"));
    let status = with_one(kind, old, to_condition(types::PAUSED, &check, generation), now);
    BotStatus { observed_generation: old.and_then(|old| old.observed_generation), ..status }
}

/// The status of a bot that nothing is done for but what `ready` says: one that is being deleted, or
/// whose specification cannot be read. What was said stays, but for `Ready`.
pub fn compute_not_ready(
    kind: BotKind,
    generation: Option<i64>,
    old: Option<&BotStatus>,
    ready: &Check,
    now: Timestamp,
) -> BotStatus {
    let status = with_one(kind, old, to_condition(types::READY, ready, generation), now);
    BotStatus { observed_generation: generation, ..status }
}

/// What was said, with one condition said anew; the worker goes on speaking for itself.
fn with_one(kind: BotKind, old: Option<&BotStatus>, said: Condition, now: Timestamp) -> BotStatus {
    let none = BotStatus::default();
    let old = old.unwrap_or(&none);
    let stays = |c: &&Condition| types::OPERATOR.contains(&c.type_.as_str()) && c.type_ != said.type_;
    let mut new: Vec<Condition> = old.conditions.iter().filter(stays).cloned().collect();
    new.extend(said_for_worker(kind, old));
    new.push(said);
    BotStatus {
        conditions: merge(&old.conditions, new, now),
        user_id: old.user_id.clone(),
        admin_user_id: old.admin_user_id.clone(),
        backup_phrase: old.backup_phrase.clone(),
        login_url: old.login_url.clone(),
        ..BotStatus::default()
    }
}

/// The checks after an error: the aspect that it belongs to fails, the other stays as it was.
pub fn failed(
    aspect: Aspect,
    check: Check,
    old: Option<&BotStatus>,
    worker: WorkerState,
) -> (Check, WorkerState) {
    match aspect {
        Aspect::Account => (check, worker),
        Aspect::Worker => {
            (previous(old, types::ACCOUNT), WorkerState { check, migration: None, speaks: worker.speaks })
        }
    }
}

/// What a condition said before.
fn previous(old: Option<&BotStatus>, type_: &str) -> Check {
    let is_true = old.and_then(|old| find(&old.conditions, type_)).is_some_and(|c| c.status == "True");
    if is_true {
        Check::ok("AccountUsable", "the account was usable when it was last looked at")
    } else {
        Check::unknown("NotReached", "not looked at yet")
    }
}

/// The worker's conditions of a kind: all but `Recording` count for both.
fn conditions_of(kind: BotKind) -> &'static [&'static str] {
    match kind {
        BotKind::Audit => &types::OF_WORKER,
        BotKind::Admin => {
            &[types::ENCRYPTION, types::DATABASE, types::ROOMS, types::INTEGRITY, types::MODULE]
        }
    }
}

/// What was said in the worker's place and stands until the worker itself says something: it has
/// fields of these conditions too, so that taking ours away would leave halves of them, which the
/// API server refuses.
fn said_for_worker(kind: BotKind, old: &BotStatus) -> Vec<Condition> {
    let is_ours = |c: &&Condition| {
        conditions_of(kind).contains(&c.type_.as_str())
            && [WORKER_NOT_READY, MIGRATION_FAILED].contains(&c.reason.as_str())
    };
    old.conditions.iter().filter(is_ours).cloned().collect()
}

fn of_worker(kind: BotKind, observed: &Observed) -> Vec<(&'static str, Check)> {
    let unknown =
        Check::unknown(WORKER_NOT_READY, "not known while the worker is not ready; see WorkerReady");
    conditions_of(kind)
        .iter()
        .map(|type_| match &observed.worker.migration {
            Some(why) if *type_ == types::DATABASE => (*type_, Check::failed(MIGRATION_FAILED, why.clone())),
            _ => (*type_, unknown.clone()),
        })
        .collect()
}

fn suspended(observed: &Observed) -> Check {
    match (observed.suspend, observed.account.ok) {
        (true, Some(true)) => Check::ok("Suspended", "the bot is stopped and its account is locked"),
        (true, _) => Check::failed("Suspending", "the account is not locked yet"),
        (false, _) => Check::failed("Active", "the bot is not suspended"),
    }
}

fn paused(observed: &Observed) -> Check {
    match observed.paused {
        Some(why) => Check::ok(why, "nothing is changed while this is paused"),
        None => Check::failed("Active", "reconciliation is not paused"),
    }
}

/// `Ready`: the first thing that is not well says why.
fn ready(kind: BotKind, old: &BotStatus, observed: &Observed, new: &[Condition]) -> Check {
    if observed.suspend {
        return Check::failed("Suspended", "the bot is suspended; set spec.suspend to false to resume it");
    }
    let needed: &[&str] = match kind {
        BotKind::Audit => &[
            types::ACCOUNT,
            types::WORKER,
            types::DATABASE,
            types::ENCRYPTION,
            types::ROOMS,
            types::RECORDING,
        ],
        BotKind::Admin => &[types::ACCOUNT, types::WORKER, types::DATABASE, types::ENCRYPTION, types::ROOMS],
    };
    for type_ in needed {
        match find(new, type_).or_else(|| find(&old.conditions, type_)) {
            Some(condition) if condition.status == "True" => {}
            Some(condition) => {
                return Check {
                    ok: (condition.status == "False").then_some(false),
                    reason: reason_of(type_),
                    message: format!("{type_} is {}: {}", condition.status, condition.message),
                };
            }
            None => return Check::unknown(reason_of(type_), format!("{type_} is not reported yet")),
        }
    }
    Check::ok("AllReady", "the bot works")
}

fn reason_of(type_: &str) -> &'static str {
    match type_ {
        types::ACCOUNT => "AccountNotReady",
        types::WORKER => "WorkerNotReady",
        types::DATABASE => "DatabaseNotReady",
        types::ENCRYPTION => "EncryptionNotReady",
        types::ROOMS => "RoomsNotCovered",
        _ => "NotRecording",
    }
}

fn to_condition(type_: &str, check: &Check, generation: Option<i64>) -> Condition {
    let state = check.ok.map_or(State::Unknown, State::from);
    condition(type_, state, check.reason, &check.message, generation)
}

#[cfg(test)]
mod tests;
