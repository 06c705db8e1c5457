//! The effective configuration of operator and console: the trail of each bot says it once, and then what changes.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    deliver::messages,
    estate::{Estate, Life},
    intake::{Entry, Target},
};
use crate::{
    domain::{
        BotName,
        diff::diff,
        record::{Actor, Context, Occurred, RecordDraft, Relation, Trust},
        vocabulary,
    },
    store::{StoreError, platform::PlatformStore},
};

/// Which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// The operator.
    Operator,
    /// The console.
    Console,
}

impl Process {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Console => "console",
        }
    }
}

/// The record of a configuration that differs from the one before, for the trail of a bot. (pure)
pub fn changed(
    bot: &BotName,
    process: Process,
    before: Option<&Value>,
    after: &Value,
    now: Timestamp,
) -> Option<Entry> {
    let name = process.as_str();
    let changes = diff(&format!("/{name}"), before, Some(after));
    if changes.is_empty() {
        return None;
    }
    let verb = vocabulary::CONFIGURATION_CHANGED;
    let draft = RecordDraft {
        source_id: format!("configuration:{name}:{}", now.as_microsecond()),
        category: verb.category,
        action: verb.action.to_owned(),
        occurred: Occurred::At(now.as_millisecond()),
        actor: Actor::Service { id: format!("ems-bots/{name}") },
        on_behalf_of: None,
        context: Context::default(),
        relations: vec![Relation::new("process", name, "target")],
        changes,
        text: Some(format!("the configuration of the {name} changed")),
        source_raw: None,
        plaintext_raw: None,
        trust: Trust::Plain,
        undecryptable_reason: None,
        subjects: Vec::new(),
    };
    Some(Entry { target: Target::Bot(bot.clone()), draft })
}

/// Notes what a process runs with, in the trail of every bot.
#[derive(Debug)]
pub struct Notes {
    process: Process,
    /// What it ran with when this was asked last, and whose trails say so.
    last: Option<Value>,
    noted: BTreeSet<Life>,
    /// The bots that there were at first.
    first: Option<BTreeSet<Life>>,
}

impl Notes {
    /// Of this process.
    pub fn of(process: Process) -> Self {
        Self { process, last: None, noted: BTreeSet::new(), first: None }
    }

    /// Notes it for each bot whose trail does not say it. To be asked again and again: there may be new bots.
    pub async fn note(
        &mut self,
        platform: &Arc<dyn PlatformStore>,
        estate: &Estate,
        value: &Value,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.last.as_ref() != Some(value) {
            self.noted.clear();
            self.last = Some(value.clone());
        }
        let bots: BTreeSet<Life> = estate.lives().collect();
        let first = self.first.get_or_insert_with(|| bots.clone());
        for known in [&mut *first, &mut self.noted] {
            known.retain(|bot| bots.contains(bot));
        }
        for bot in bots {
            if self.noted.contains(&bot) {
                continue;
            }
            // While an upgrade goes on two consoles run with two configurations. The new one says its own when it starts;
            // the old one must not say the contrary afterwards.
            let compares = self.process == Process::Operator || first.contains(&bot);
            if note(platform, &bot, self.process, value, compares, now).await? {
                self.noted.insert(bot);
            }
        }
        Ok(())
    }
}

/// Returns whether it is settled; else another replica was faster, and it is to be looked at once more.
async fn note(
    platform: &Arc<dyn PlatformStore>,
    life: &Life,
    process: Process,
    after: &Value,
    compares: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let name = name(process, life);
    let known = platform.known(&name).await?;
    if known.is_some() && !compares {
        return Ok(true);
    }
    let before: Option<Value> = known.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let Some(entry) = changed(&life.bot, process, before.as_ref(), after, now) else { return Ok(true) };
    let messages = messages(&[entry], &Estate::default(), true);
    platform.note(&name, known.as_deref(), &after.to_string(), &messages).await
}

/// Under which it is known what the trail of a bot says.
fn name(process: Process, life: &Life) -> String {
    format!("configuration:{}:{}:{}", process.as_str(), life.bot, life.uid)
}

/// All of them, of these bots.
pub(super) fn names(estate: &Estate) -> Vec<String> {
    let of = |life: Life| [Process::Operator, Process::Console].map(|process| name(process, &life));
    estate.lives().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::console::estate::tests::audit_bot;

    #[test]
    fn only_what_differs_is_recorded() {
        let now = Timestamp::UNIX_EPOCH;
        let bot = audit_bot("tenant", "auditbot");
        let before = json!({"paused": false, "resync": "10m"});
        assert_eq!(changed(&bot, Process::Operator, Some(&before), &before, now), None);
        let after = json!({"paused": true, "resync": "10m"});
        let entry = changed(&bot, Process::Operator, Some(&before), &after, now).unwrap();
        assert_eq!(entry.target, Target::Bot(bot.clone()));
        assert_eq!(entry.draft.changes.len(), 1);
        assert_eq!(entry.draft.changes[0].path, "/operator/paused");
        assert_eq!(entry.draft.changes[0].before, Some(json!(false)));
        assert_eq!(changed(&bot, Process::Console, None, &after, now).unwrap().draft.changes.len(), 2);
    }
}
