//! A whole trail, record by record, and whether its chain of hashes holds.

use std::collections::BTreeMap;

use ems_bots::{
    domain::{
        filter::{PageRequest, SearchFilter},
        record::RecordDraft,
    },
    store::{AuditReader as _, pg::PgReader},
    trail::{Digest, chain::Verifier, envelope::Envelope},
};
use serde_json::Value;

use super::{LocalWorker, sql};

const EVENT: &str = "matrix:event:";
const PLAINTEXT: &str = "matrix:plaintext:";

/// What of a record the comparison needs.
#[derive(Debug, Clone)]
pub struct Entry {
    pub seq: i64,
    pub action: String,
    pub text: Option<String>,
    /// Before and after of the body.
    pub body: Option<(Option<Value>, Option<Value>)>,
}

/// Everything that was recorded of events, by their identifiers.
#[derive(Debug, Default)]
pub struct WholeTrail {
    pub events: BTreeMap<String, Vec<Entry>>,
    pub plaintexts: BTreeMap<String, Vec<Entry>>,
    /// All records, those of the worker itself included.
    pub size: i64,
}

fn entry(seq: i64, draft: &RecordDraft) -> Entry {
    let body = draft.changes.iter().find(|change| change.path == "/content/body");
    Entry {
        seq,
        action: draft.action.clone(),
        text: draft.text.clone(),
        body: body.map(|change| (change.before.clone(), change.after.clone())),
    }
}

impl WholeTrail {
    /// Adds what was recorded since it was read last.
    pub async fn read_on(&mut self, worker: &LocalWorker) {
        let reader = PgReader::connect(worker.owner()).await.expect("the trail can be read");
        let (known, mut before) = (self.size, None);
        loop {
            // Most of the newest page is known when it is asked for again and again.
            let page = PageRequest { before_seq: before, limit: 200 };
            let page = reader.search(&SearchFilter::default(), page).await.expect("it can be searched");
            for record in page.items.iter().filter(|record| record.seq > known) {
                self.size = self.size.max(record.seq);
                let draft = record.content.as_ref().expect("nothing is erased");
                if let Some(id) = draft.source_id.strip_prefix(EVENT) {
                    self.events.entry(id.to_owned()).or_default().push(entry(record.seq, draft));
                } else if let Some(id) = draft.source_id.strip_prefix(PLAINTEXT) {
                    self.plaintexts.entry(id.to_owned()).or_default().push(entry(record.seq, draft));
                }
            }
            before = page.next_before_seq.filter(|before| *before > known + 1);
            if before.is_none() {
                return;
            }
        }
    }

    pub fn of_event(&self, event: &str) -> &[Entry] {
        self.events.get(event).map_or(&[], Vec::as_slice)
    }

    pub fn of_plaintext(&self, event: &str) -> &[Entry] {
        self.plaintexts.get(event).map_or(&[], Vec::as_slice)
    }
}

fn columns<const N: usize>(row: &str) -> [String; N] {
    let columns: Vec<String> = row.split('|').map(str::to_owned).collect();
    columns.try_into().unwrap_or_else(|_| panic!("{row} has not {N} columns"))
}

fn digest(hex: &str) -> Digest {
    Digest::from_hex(hex).unwrap_or_else(|| panic!("{hex} is no hash"))
}

/// Recomputes the chain from the first record to the head, by way of every point that was kept, and the
/// commitment to every content; the result is what is wrong.
pub fn verify(worker: &LocalWorker) -> Vec<String> {
    let rows = |query: &str| -> Vec<String> {
        let text = sql::sql(&worker.database, &format!("SET search_path = {}; {query}", worker.kind));
        text.lines().map(str::to_owned).collect()
    };
    let [start, hash] = columns(&rows("SELECT start_size, encode(start_hash, 'hex') FROM epochs")[0]);
    let mut verifier = Verifier::starting_at(start.parse().unwrap(), digest(&hash));
    let kept: BTreeMap<i64, Digest> = rows("SELECT size, encode(hash, 'hex') FROM checkpoint")
        .iter()
        .map(|row| columns(row))
        .map(|[size, hash]| (size.parse().unwrap(), digest(&hash)))
        .collect();
    let mut wrong = Vec::new();
    let mut met = usize::from(kept.contains_key(&0));
    let envelopes = rows(
        "SELECT seq, epoch, (extract(epoch FROM recorded_at) * 1000000)::bigint, category, \
         encode(commitment, 'hex') FROM envelope ORDER BY seq",
    );
    for row in &envelopes {
        let [seq, epoch, recorded_at, category, commitment] = columns(row);
        let envelope = Envelope {
            seq: seq.parse().unwrap(),
            epoch: epoch.parse().unwrap(),
            recorded_at: recorded_at.parse().unwrap(),
            category: category.parse().unwrap(),
            commitment: digest(&commitment),
        };
        if let Err(broken) = verifier.take(&envelope) {
            return vec![format!("the chain is broken: {broken}")];
        }
        if let Some(hash) = kept.get(&verifier.size()) {
            met += 1;
            wrong.extend(verifier.expect(verifier.size(), *hash).err().map(|broken| broken.to_string()));
        }
    }
    let [size, hash] = columns(&rows("SELECT size, encode(hash, 'hex') FROM head")[0]);
    let head = verifier.expect(size.parse().unwrap(), digest(&hash));
    wrong.extend(head.err().map(|broken| format!("the head: {broken}")));
    if met != kept.len() {
        wrong.push(format!("{} points were kept, {met} of them are on the chain", kept.len()));
    }
    for (what, query) in [
        (
            "contents that are not those committed to",
            "SELECT count(*) FROM envelope e LEFT JOIN content c USING (seq, category) WHERE e.commitment \
             IS DISTINCT FROM sha256('ems-bots/trail/v1/content'::bytea || c.salt || c.content)",
        ),
        ("contents too many", "SELECT count(*) - count(DISTINCT seq) FROM content"),
        (
            "contents without an envelope",
            "SELECT count(*) FROM content WHERE seq NOT IN (SELECT seq FROM envelope)",
        ),
        ("sources too many or few", "SELECT (SELECT count(*) FROM source) - (SELECT count(*) FROM envelope)"),
        ("events that miss their key", "SELECT count(*) FROM pending"),
        (
            "spans of history that are not read",
            "SELECT count(*) FROM cursor WHERE name LIKE 'matrix:history:%' AND value <> '[]'::bytea",
        ),
    ] {
        let found = &rows(query)[0];
        if found != "0" {
            wrong.push(format!("{found} {what}"));
        }
    }
    wrong
}
