//! A report as the worker's part of the status (pure).

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    crd::{Bot, BotStatus, HistoryStatus, RoomsStatus, TrailStatus},
    domain::{
        BotKind,
        worker::{Check, WorkerReport},
    },
    kube_util::conditions::{State, condition, merge},
    operator::status::types,
};

/// The complete set of what the worker applies.
pub(super) fn status<B: Bot>(live: &B, report: &WorkerReport, now: Timestamp) -> BotStatus {
    let none = BotStatus::default();
    let old = live.status().unwrap_or(&none);
    let mut checks = vec![
        (types::ENCRYPTION, &report.encryption),
        (types::DATABASE, &report.database),
        (types::ROOMS, &report.rooms_covered),
        (types::INTEGRITY, &report.integrity),
        (types::MODULE, &report.module),
    ];
    if B::KIND == BotKind::Audit {
        checks.push((types::RECORDING, &report.recording));
    }
    let new = checks.iter().map(|(type_, check)| to_condition(type_, check, report.generation)).collect();
    BotStatus {
        conditions: merge(&old.conditions, new, now),
        device_id: report.device_id.as_ref().map(ToString::to_string).or_else(|| old.device_id.clone()),
        rooms: Some(RoomsStatus::from(&report.rooms)),
        history: report.history.map(HistoryStatus::from).or_else(|| old.history.clone()),
        undecryptable: report
            .undecryptable
            .iter()
            .map(|(reason, count)| (reason.clone(), i64::try_from(*count).unwrap_or(i64::MAX)))
            .collect(),
        trail: trail(old.trail.as_ref(), report),
        ..BotStatus::default()
    }
}

/// The trail never goes back: what was promised stays until there is something further.
fn trail(old: Option<&TrailStatus>, report: &WorkerReport) -> Option<TrailStatus> {
    let new = report.trail.as_ref().map(TrailStatus::at);
    let further = |new: &TrailStatus| old.is_none_or(|old| (new.epoch, new.size) >= (old.epoch, old.size));
    let mut trail = new.filter(further).or_else(|| old.cloned())?;
    trail.closed = report.closed;
    Some(trail)
}

fn to_condition(type_: &str, check: &Check, generation: i64) -> Condition {
    let state = match check.ok {
        Some(true) => State::True,
        Some(false) => State::False,
        None => State::Unknown,
    };
    condition(type_, state, check.reason, &check.message, Some(generation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crd::{AdminBot, AuditBot},
        domain::{trail::TrailPoint, worker::HistoryProgress},
        worker::board::Board,
    };

    fn bot<B: Bot>(kind: &str, trail: Option<(i64, i64)>) -> B {
        let trail = trail.map(
            |(epoch, size)| serde_json::json!({"epoch": epoch, "size": size, "rootHash": "a".repeat(64)}),
        );
        serde_json::from_value(serde_json::json!({
            "apiVersion": "ems.element.io/v1alpha1", "kind": kind, "metadata": {"name": "b", "namespace": "n"},
            "spec": {"homeserver": {"serverName": "example.org", "url": "http://synapse:8008", "plan": "Gold"}},
            "status": {"trail": trail},
        }))
        .unwrap()
    }

    fn report(epoch: i64, size: i64) -> WorkerReport {
        let mut report = Board::new().get();
        report.trail = Some(TrailPoint { epoch, size, root_hash: "b".repeat(64) });
        report
    }

    #[test]
    fn the_trail_never_shrinks() {
        let live: AuditBot = bot("AuditBot", Some((1, 10)));
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(status(&live, &report(1, 11), now).trail.unwrap().size, 11);
        assert_eq!(status(&live, &report(1, 9), now).trail.unwrap().size, 10);
        assert_eq!(status(&live, &report(2, 9), now).trail.unwrap().epoch, 2);
        let mut nothing = report(1, 1);
        nothing.trail = None;
        assert_eq!(status(&live, &nothing, now).trail.unwrap().size, 10);
    }

    #[test]
    fn how_far_the_history_is_read_stays_until_more_is_known() {
        let mut live: AuditBot = bot("AuditBot", None);
        let (now, mut told) = (Timestamp::UNIX_EPOCH, report(1, 1));
        assert_eq!(status(&live, &told, now).history, None);
        let reached = Some(Timestamp::from_millisecond(1_790_000_000_999).unwrap());
        told.history = Some(HistoryProgress { remaining: 3, rooms: 2, events: 700, reached });
        live.status = Some(status(&live, &told, now));
        let expected = serde_json::json!(
            {"remaining": 3, "rooms": 2, "events": 700, "reached": "2026-09-21T14:13:20Z"});
        assert_eq!(serde_json::to_value(&live.status).unwrap()["history"], expected);
        let restarted = status(&live, &report(1, 1), now);
        assert_eq!(restarted.history, live.status.unwrap().history);
    }

    #[test]
    fn only_the_audit_bot_has_the_condition_recording() {
        let now = Timestamp::UNIX_EPOCH;
        let types = |status: BotStatus| {
            status.conditions.into_iter().map(|condition| condition.type_).collect::<Vec<_>>()
        };
        let audit = status(&bot::<AuditBot>("AuditBot", None), &report(1, 1), now);
        assert!(types(audit).contains(&"Recording".to_owned()));
        let admin = status(&bot::<AdminBot>("AdminBot", None), &report(1, 1), now);
        assert!(!types(admin).contains(&"Recording".to_owned()));
    }

    #[test]
    fn what_the_operator_owns_is_left_to_it() {
        let status = status(&bot::<AuditBot>("AuditBot", None), &report(1, 1), Timestamp::UNIX_EPOCH);
        assert!(
            status.user_id.is_none() && status.observed_generation.is_none() && status.login_url.is_none()
        );
    }
}
