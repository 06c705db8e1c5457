//! What the record of an event has to say, and the comparison of many of them at once.

use std::time::Duration;

use ems_bots::domain::record::{Actor, Category, RecordDraft, Relation, Trust};
use serde_json::Value;

use super::{LocalWorker, eventually};

/// The category of which `docs/trail.md` says that records with this action have it.
pub fn promised_category(action: &str) -> Category {
    let cell = format!("`{action}`");
    let found = include_str!("../../../docs/trail.md").lines().find_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let at = cells.iter().position(|known| *known == cell)?;
        Category::parse(cells[at.checked_sub(1)?].trim_matches('`'))
    });
    found.unwrap_or_else(|| panic!("docs/trail.md does not have {action}"))
}

/// Whether a record says this of a value before and after. Null stands for none.
pub fn has_changed(record: &RecordDraft, path: &str, before: &Value, after: &Value) -> bool {
    record.changes.iter().any(|change| {
        change.path == path
            && change.before.as_ref().unwrap_or(&Value::Null) == before
            && change.after.as_ref().unwrap_or(&Value::Null) == after
    })
}

/// One event, and what its record says.
#[derive(Debug, Clone)]
pub struct Expected {
    event: String,
    actor: String,
    action: &'static str,
    trust: Trust,
    text: Option<String>,
    reason: Option<String>,
    relations: Vec<Relation>,
    changes: Vec<(String, Value, Value)>,
    source: Option<String>,
}

impl Expected {
    /// What this person did with this event.
    pub fn of(actor: &str, event: String, action: &'static str) -> Self {
        Self {
            event,
            actor: actor.to_owned(),
            action,
            trust: Trust::Plain,
            text: None,
            reason: None,
            relations: Vec::new(),
            changes: Vec::new(),
            source: None,
        }
    }

    /// This is its text; without it none is compared.
    pub fn says(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// This is the reason; without it there is none.
    pub fn because(mut self, reason: &str) -> Self {
        self.reason = Some(reason.to_owned());
        self
    }

    /// This is among its relations.
    pub fn relates(mut self, kind: &str, id: &str, role: &str) -> Self {
        self.relations.push(Relation::new(kind, id, role));
        self
    }

    /// This is among its changes; null stands for none.
    pub fn changes(mut self, path: impl Into<String>, before: Value, after: Value) -> Self {
        self.changes.push((path.into(), before, after));
        self
    }

    /// The event is kept as it came, with this in it.
    pub fn holds(mut self, source: &str) -> Self {
        self.source = Some(source.to_owned());
        self
    }

    /// It was encrypted, on a device that its owner has signed.
    pub fn encrypted(mut self) -> Self {
        self.trust = Trust::VerifiedDevice;
        self
    }

    /// What the record says otherwise.
    fn wrong(&self, record: &RecordDraft) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut is = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        is(record.action == self.action, "another action".to_owned());
        is(record.category == promised_category(self.action), "another category".to_owned());
        is(record.actor == Actor::matrix(&self.actor), "another actor".to_owned());
        is(record.trust == self.trust, "another trust".to_owned());
        is(record.context.reason == self.reason, format!("the reason is not {:?}", self.reason));
        is(self.text.is_none() || record.text == self.text, format!("the text is not {:?}", self.text));
        for relation in &self.relations {
            is(record.relations.contains(relation), format!("{relation:?} is missing"));
        }
        for (path, before, after) in &self.changes {
            is(
                has_changed(record, path, before, after),
                format!("the change of {path} from {before} to {after} is missing"),
            );
        }
        let (source, plaintext) = (record.source_raw.as_deref(), record.plaintext_raw.as_deref());
        if self.trust == Trust::VerifiedDevice {
            let is_ciphertext = source.is_some_and(|source| source.contains("m.megolm.v1.aes-sha2"));
            is(is_ciphertext, "the ciphertext is not kept".to_owned());
        }
        let readable = if self.trust == Trust::Plain { source } else { plaintext };
        let kept = self.source.as_deref().unwrap_or_default();
        is(readable.is_some_and(|text| text.contains(kept)), format!("{kept} is not kept"));
        wrong
    }
}

/// Waits until the trail has all of these events, and compares what it says of each.
pub async fn compare(worker: &LocalWorker, all: &[Expected]) {
    let records = eventually("a record of each event", Duration::from_secs(90), || async {
        let found = worker.search(&ems_bots::domain::filter::SearchFilter::default()).await;
        let found: Vec<RecordDraft> = found.into_iter().filter_map(|record| record.content).collect();
        let missing: Vec<&Expected> = all.iter().filter(|one| of_event(&found, one).is_empty()).collect();
        if missing.is_empty() { Ok(found) } else { Err(format!("missing: {missing:#?}")) }
    })
    .await;
    let mut wrong = Vec::new();
    for expected in all {
        match of_event(&records, expected)[..] {
            [record] => {
                let differences = expected.wrong(record);
                if !differences.is_empty() {
                    wrong.push(format!("{}: {differences:#?}\n{record:#?}", expected.action));
                }
            }
            ref several => wrong.push(format!("{} has {} records", expected.action, several.len())),
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

/// Its records, but that of a ciphertext whose key came later.
fn of_event<'a>(records: &'a [RecordDraft], expected: &Expected) -> Vec<&'a RecordDraft> {
    let own = |record: &&RecordDraft| {
        record.event_id() == Some(expected.event.as_str()) && record.action != "message.undecryptable"
    };
    records.iter().filter(own).collect()
}
