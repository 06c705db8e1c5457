//! Whether the module in the homeserver puts the bot into new rooms while they are made.
//!
//! It is optional, and configured by whoever runs the homeserver: only a look at it tells whether it knows the bot, and
//! whether it keeps out of the rooms that `spec.rooms` leaves out.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{board::Board, ports::InstructionsReceiver, recorder::Stop};
use crate::{
    domain::{RoomId, UserId, selection::RoomSelection, worker::Check},
    homeserver::{Inspect, ModuleFacts},
};

/// A change of the module's configuration needs a restart of the homeserver.
const EVERY: Duration = Duration::from_mins(10);

/// The part of the worker that looks.
pub(crate) struct ModuleWatch {
    pub(crate) inspect: Arc<dyn Inspect>,
    pub(crate) bot: UserId,
    pub(crate) instructions: InstructionsReceiver,
    pub(crate) board: Board,
    /// It looks no less often than this.
    pub(crate) at_least_every: Duration,
}

impl ModuleWatch {
    /// Looks until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> Result<(), Stop> {
        let mut seen = None;
        self.board.set(|report| report.module = not_checked());
        loop {
            match cancel.run_until_cancelled(self.inspect.module()).await {
                None => return Ok(()),
                Some(Ok(facts)) => seen = Some(facts),
                // What was seen last counts; sync says what is wrong with the homeserver.
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot look at the homeserver's module");
                    if seen.is_none() {
                        let why =
                            Check::unknown("NotChecked", format!("the module does not answer: {error}"));
                        self.board.set(|report| report.module = why);
                    }
                }
            }
            let next = tokio::time::Instant::now() + EVERY.min(self.at_least_every);
            loop {
                let selection = self.instructions.borrow_and_update().rooms.clone();
                if let Some(facts) = &seen {
                    let found = check(facts.as_ref(), &self.bot, &selection);
                    self.board.set(|report| report.module = found);
                }
                tokio::select! {
                    () = cancel.cancelled() => return Ok(()),
                    () = tokio::time::sleep_until(next) => break,
                    changed = self.instructions.changed() => if changed.is_err() {
                        cancel.cancelled().await;
                        return Ok(());
                    },
                }
            }
        }
    }
}

/// Before the first look.
pub(crate) fn not_checked() -> Check {
    Check::unknown("NotChecked", "nobody has looked at the homeserver's module yet")
}

/// The condition `SynapseModuleActive`.
fn check(facts: Option<&ModuleFacts>, bot: &UserId, selection: &RoomSelection) -> Check {
    let Some(facts) = facts else {
        return Check::failed(
            "NotLoaded",
            "the homeserver has no module synapse-ems-bots, or does not serve /_synapse/client/ at \
             spec.homeserver.url: the bot comes into new rooms a moment after they were made",
        );
    };
    let ModuleFacts { version, active, bots } = facts;
    if !active {
        let message =
            format!("module {version} does not know this version of Synapse and does nothing: upgrade it");
        return Check::failed("Inactive", message);
    }
    let Some(rooms) = bots.get(bot.as_str()) else {
        let message =
            format!("the configuration of module {version} does not list {bot}: add it, and restart Synapse");
        return Check::failed("BotMissing", message);
    };
    let fields = differing(rooms, selection);
    if fields.is_empty() {
        return Check::ok("Active", format!("module {version} puts the bot into new rooms"));
    }
    let message = format!(
        "the configuration of module {version} has other rooms for {bot} than spec.rooms ({}): copy them there, and \
         restart Synapse; until then the bot is invited to rooms that it then does not enter, or comes later into others",
        fields.join(", ")
    );
    Check::failed("SelectionDiffers", message)
}

/// The fields by which the module decides, as far as they differ. What is not there has its default.
fn differing(rooms: &Value, selection: &RoomSelection) -> Vec<&'static str> {
    let texts = |field: &str| -> BTreeSet<&str> {
        let listed = rooms.get(field).and_then(Value::as_array);
        listed.into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let direct = rooms.get("directMessages").and_then(Value::as_bool).unwrap_or(true);
    let pattern = rooms.get("creatorPattern").and_then(Value::as_str);
    let fields = [
        ("directMessages", direct == selection.direct_messages),
        ("only", texts("only") == selection.only.iter().map(RoomId::as_str).collect()),
        (
            "excludeUsers",
            texts("excludeUsers") == selection.exclude_users.iter().map(UserId::as_str).collect(),
        ),
        (
            "excludeSpaces",
            texts("excludeSpaces") == selection.exclude_spaces.iter().map(RoomId::as_str).collect(),
        ),
        ("creatorPattern", pattern == selection.creator_pattern.as_ref().map(regex::Regex::as_str)),
    ];
    fields.into_iter().filter(|(_, same)| !same).map(|(field, _)| field).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn bot() -> UserId {
        UserId::parse("@auditbot:example.org").unwrap()
    }

    fn module(rooms: Value) -> ModuleFacts {
        let bots = BTreeMap::from([(bot().to_string(), rooms)]);
        ModuleFacts { version: "0.1.0".to_owned(), active: true, bots }
    }

    fn selection() -> RoomSelection {
        RoomSelection {
            exclude_users: vec![UserId::parse("@doctor:example.org").unwrap()],
            creator_pattern: Some(regex::Regex::new("^@[^_]").unwrap()),
            ..RoomSelection::default()
        }
    }

    #[test]
    fn each_state_of_the_module_has_its_reason() {
        let same = json!({"excludeUsers": ["@doctor:example.org"], "creatorPattern": "^@[^_]", "notice": "recorded"});
        let told = |facts: Option<&ModuleFacts>| {
            let check = check(facts, &bot(), &selection());
            (check.ok, check.reason)
        };
        assert_eq!(told(None), (Some(false), "NotLoaded"));
        assert_eq!(told(Some(&module(same.clone()))), (Some(true), "Active"));
        assert_eq!(told(Some(&ModuleFacts { active: false, ..module(same) })), (Some(false), "Inactive"));
        assert_eq!(
            told(Some(&ModuleFacts { bots: BTreeMap::new(), ..module(json!({})) })),
            (Some(false), "BotMissing")
        );
        let other = check(Some(&module(json!({"directMessages": false}))), &bot(), &selection());
        assert_eq!((other.ok, other.reason), (Some(false), "SelectionDiffers"));
        assert!(
            other.message.contains("(directMessages, excludeUsers, creatorPattern)"),
            "{}",
            other.message
        );
    }
}
