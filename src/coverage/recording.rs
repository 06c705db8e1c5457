//! Every act is recorded before it is done and after it was.

use std::sync::atomic::Ordering;

use super::{
    acts::{Act, ActOutcome, SentEvent},
    carry_out::{Context, VisitError},
    marks::Marks,
    planner::Step,
};
use crate::{
    domain::{Failure as _, RoomId},
    homeserver::{HomeserverError, Result},
};

impl Context {
    pub(super) async fn intend(&self, room: &RoomId, step: &Step) -> std::result::Result<Act, VisitError> {
        let act = Act {
            id: format!("coverage:{}:{}", self.started_ms, self.acts.fetch_add(1, Ordering::Relaxed)),
            room_id: room.clone(),
            kind: step.kind(),
            on_behalf_of: step.on_behalf_of().map(ToOwned::to_owned),
            person: step.person().map(ToOwned::to_owned),
            reason: step.reason(),
        };
        match self.log.intend(&act).await {
            Ok(()) => Ok(act),
            Err(error) => {
                tracing::warn!(%room, step = step.kind().as_str(), error = %error, "not done, since it cannot be recorded");
                Err(VisitError::Log)
            }
        }
    }

    /// Records how an act ended, with what it made the homeserver send in somebody's name.
    pub(super) async fn record(
        &self,
        act: &Act,
        result: &Result<()>,
        before: &Marks,
        after: std::result::Result<&Marks, &HomeserverError>,
    ) {
        let sent = match after {
            Ok(after) if act.on_behalf_of.is_some() => self.sent(act, before, after).await,
            _ => Vec::new(),
        };
        let outcome = match (result, after) {
            (Err(error), _) => ActOutcome::Failed { category: error.category(), sent },
            (Ok(()), Err(_)) if act.on_behalf_of.is_some() => {
                ActOutcome::Failed { category: "unverified", sent }
            }
            (Ok(()), _) => ActOutcome::Done { sent },
        };
        if let Err(error) = self.log.outcome(act, &outcome).await {
            tracing::warn!(room = %act.room_id, act = act.id, error = %error, "outcome cannot be recorded");
        }
    }

    async fn sent(&self, act: &Act, before: &Marks, after: &Marks) -> Vec<SentEvent> {
        before.sent(after, act, &*self.admin, &self.identity).await.unwrap_or_else(|error| {
            // The intention explains the events to whoever reads them.
            tracing::warn!(room = %act.room_id, act = act.id, error = %error, "what an act sent is not told");
            Vec::new()
        })
    }
}
