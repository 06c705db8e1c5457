//! What goes on while consoles come and go: billing changes a bot, and a person reads a Secret, again and again.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use kube::{Api, api::DynamicObject};
use tokio::task::JoinHandle;

use super::*;

/// Between two of each.
const PACE: Duration = Duration::from_millis(100);
const SECRET: &str = "auditbot-account";

/// Goes on until it is asked to end.
pub(super) struct Traffic {
    ends: Arc<AtomicBool>,
    refused: Arc<Mutex<Vec<String>>>,
    changes: JoinHandle<(BTreeSet<String>, usize)>,
    reads: JoinHandle<usize>,
    secret: String,
}

/// What the API server has done.
pub(super) struct Done {
    reasons: BTreeSet<String>,
    tries: usize,
    reads: usize,
    secret: String,
}

impl Traffic {
    pub(super) fn begin(scene: &Scene, billing: &Tenant) -> Self {
        let (ends, refused) = (Arc::<AtomicBool>::default(), Arc::<Mutex<_>>::default());
        let changes = tokio::spawn(changes(billing.bots("AuditBot"), ends.clone(), refused.clone()));
        let reads = tokio::spawn(reads(scene.tenant.api(), ends.clone()));
        Self { ends, refused, changes, reads, secret: format!("{}/{SECRET}", scene.tenant.namespace) }
    }

    /// How changes were refused since this was asked last.
    pub(super) fn refused(&self) -> Vec<String> {
        std::mem::take(&mut *self.refused.lock().unwrap())
    }

    pub(super) async fn end(self) -> Done {
        self.ends.store(true, Ordering::Relaxed);
        let ((reasons, tries), reads) = (self.changes.await.unwrap(), self.reads.await.unwrap());
        println!("   {} changes at {tries} tries, {reads} reads", reasons.len());
        Done { reasons, tries, reads, secret: self.secret }
    }
}

/// What is refused is asked for again. Returns the reasons of what was done, and how often it was tried.
async fn changes(
    bots: Api<DynamicObject>,
    ends: Arc<AtomicBool>,
    refused: Arc<Mutex<Vec<String>>>,
) -> (BTreeSet<String>, usize) {
    let (mut pace, mut reasons, mut tries) = (tokio::time::interval(PACE), BTreeSet::new(), 0);
    while !ends.load(Ordering::Relaxed) {
        pace.tick().await;
        tries += 1;
        let reason = format!("reason {}", reasons.len());
        let patch = Patch::Merge(json!({"metadata": {"annotations": {REASON: reason}}}));
        match bots.patch("auditbot", &PatchParams::default(), &patch).await {
            Ok(_) => {
                reasons.insert(reason);
            }
            Err(kube::Error::Api(status)) if status.message.contains("bots.ems.element.io") => {
                refused.lock().unwrap().push(status.message);
            }
            Err(error) => panic!("{reason}: {error}"),
        }
    }
    (reasons, tries)
}

async fn reads(secrets: Api<Secret>, ends: Arc<AtomicBool>) -> usize {
    let (mut pace, mut reads) = (tokio::time::interval(PACE), 0);
    while !ends.load(Ordering::Relaxed) {
        pace.tick().await;
        secrets.get(SECRET).await.unwrap();
        reads += 1;
    }
    reads
}

/// The requests that these records are of, as the API server named them.
fn requests<'a>(records: impl Iterator<Item = &'a Value>) -> BTreeSet<&'a str> {
    let relations = records.flat_map(|record| record["relations"].as_array().unwrap());
    relations.filter(|one| one["kind"] == "request").map(|one| one["id"].as_str().unwrap()).collect()
}

impl Done {
    /// Waits until all of it is in the trail; it must not be there more often than it happened.
    pub(super) async fn is_there_once(&self, trail: &Trail) {
        assert!(self.reasons.len() > 20 && self.reads > 20, "{:?} {}", self.reasons, self.reads);
        let of = |action: &str| trail.search(&["--action", action, "--limit", "10000"]);
        let changes = eventually("a record of each change", Duration::from_mins(3), || async {
            let mut records = of("bot.change.requested");
            records.retain(|record| actor(record) == USER);
            let reason = |record: &Value| Some(record["context"]["reason"].as_str()?.to_owned());
            let recorded: BTreeSet<String> = records.iter().filter_map(reason).collect();
            let missing: Vec<_> = self.reasons.difference(&recorded).collect();
            if missing.is_empty() { Ok(records) } else { Err(format!("{missing:?} are missing")) }
        })
        .await;
        // One that was refused may have been recorded before: it is a request of its own.
        assert_eq!(requests(changes.iter()).len(), changes.len(), "no request is there twice");
        assert!(changes.len() <= self.tries, "{} records", changes.len());
        let reads = eventually("a record of each read", Duration::from_mins(3), || async {
            let mut records = of("secret.read");
            records.retain(|record| {
                actor(record) == PERSON && relates(record, "secret", &self.secret, "target")
            });
            let recorded = records.len();
            if recorded >= self.reads { Ok(records) } else { Err(format!("{recorded} of {}", self.reads)) }
        })
        .await;
        assert_eq!((requests(reads.iter()).len(), reads.len()), (self.reads, self.reads), "each once");
    }
}
