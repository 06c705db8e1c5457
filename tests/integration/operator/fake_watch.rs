//! Watches of the API server in memory: what changed since a resource version, and what changes from now on, as far as it
//! fits the selector.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures::stream::unfold;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::fake_state::{Key, State, Stored};

/// Every change of an object, in order.
#[derive(Default)]
pub(super) struct Log {
    entries: Vec<Entry>,
    /// The objects as they were when the last entry was made.
    known: BTreeMap<Key, Value>,
    /// Number of entries.
    news: watch::Sender<usize>,
}

struct Entry {
    version: u64,
    key: Key,
    before: Option<Value>,
    after: Option<Value>,
}

impl Log {
    /// Takes down what is different now.
    pub(super) fn compare(&mut self, objects: &BTreeMap<Key, Stored>, version: &mut u64) {
        let keys: BTreeSet<Key> = objects.keys().chain(self.known.keys()).cloned().collect();
        for key in keys {
            let (before, after) = (self.known.get(&key).cloned(), objects.get(&key).map(|s| s.value.clone()));
            if before == after {
                continue;
            }
            let uid = |value: &Option<Value>| value.as_ref().map(|value| value["metadata"]["uid"].clone());
            let is_another = before.is_some() && uid(&before) != uid(&after);
            if is_another {
                *version += 1;
                self.entries.push(Entry {
                    version: *version,
                    key: key.clone(),
                    before: before.clone(),
                    after: None,
                });
            }
            if let Some(after) = after {
                let version = after["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                let before = before.filter(|_| !is_another);
                self.known.insert(key.clone(), after.clone());
                self.entries.push(Entry { version, key, before, after: Some(after) });
            } else {
                self.known.remove(&key);
            }
        }
        self.news.send_replace(self.entries.len());
    }
}

/// A watch that somebody has begun.
struct Watch {
    state: Arc<Mutex<State>>,
    news: watch::Receiver<usize>,
    plural: String,
    namespace: String,
    selector: String,
    since: u64,
    /// Entries that were looked at.
    read: usize,
    end: Instant,
}

/// The answer to a watch: it goes on until its time is over.
pub(super) fn follow(
    state: &Arc<Mutex<State>>,
    (plural, namespace): (String, String),
    parameter: impl Fn(&str) -> Option<String>,
) -> Body {
    let seconds = parameter("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(290);
    let watch = Watch {
        state: Arc::clone(state),
        news: state.lock().unwrap().log.news.subscribe(),
        plural,
        namespace,
        selector: parameter("labelSelector").unwrap_or_default(),
        since: parameter("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or_default(),
        read: 0,
        end: Instant::now() + Duration::from_secs(seconds),
    };
    Body::from_stream(unfold(watch, |mut watch| async move {
        loop {
            if let Some(event) = watch.next() {
                let mut line = serde_json::to_vec(&event).unwrap();
                line.push(b'\n');
                return Some((Ok::<_, Infallible>(Bytes::from(line)), watch));
            }
            tokio::time::timeout_at(watch.end, watch.news.changed()).await.ok()?.ok()?;
        }
    }))
}

impl Watch {
    fn next(&mut self) -> Option<Value> {
        let state = self.state.lock().unwrap();
        self.news.mark_unchanged();
        let wanted: Vec<(&str, &str)> = self.selector.split(',').filter_map(|s| s.split_once('=')).collect();
        let fits = |value: &&Value| wanted.iter().all(|(k, v)| value["metadata"]["labels"][*k] == **v);
        while let Some(entry) = state.log.entries.get(self.read) {
            self.read += 1;
            let is_ours = entry.key.0 == self.plural
                && (self.namespace.is_empty() || entry.key.1 == self.namespace)
                && entry.version > self.since;
            if !is_ours {
                continue;
            }
            match (entry.before.as_ref().filter(fits), entry.after.as_ref().filter(fits)) {
                (None, None) => {}
                (None, Some(after)) => return Some(json!({"type": "ADDED", "object": after})),
                (Some(_), Some(after)) => return Some(json!({"type": "MODIFIED", "object": after})),
                (Some(before), None) => {
                    let mut gone = before.clone();
                    gone["metadata"]["resourceVersion"] = entry.version.to_string().into();
                    return Some(json!({"type": "DELETED", "object": gone}));
                }
            }
        }
        None
    }
}
