//! Kubernetes Events, each told once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Event as CoreEvent, ObjectReference};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::time::Instant;

use super::error::{Error, describe_name};

/// The same Event of the same object is not published again within this time.
const QUIET: Duration = Duration::from_hours(1);
/// Events that are remembered; the oldest are forgotten first.
const CAPACITY: usize = 4096;
/// The API server refuses longer notes.
const MAX_NOTE: usize = 1000;

/// One recorder per process.
pub struct Events {
    recorder: Recorder,
    seen: Mutex<HashMap<Key, Instant>>,
}

type Key = (String, String, String);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// An Event: `reason` is `CamelCase` from a closed set, `note` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Something is wrong.
    pub warning: bool,
    /// Why.
    pub reason: &'static str,
    /// What was being done.
    pub action: &'static str,
    /// What happened, to which object, and what to do.
    pub note: String,
}

impl Events {
    /// `controller` is the reporting component, `instance` the pod.
    pub fn new(client: Client, controller: &str, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance };
        Self { recorder: Recorder::new(client, reporter), seen: Mutex::new(HashMap::new()) }
    }

    /// Publishes, unless the same was published lately. A failure is logged and no more: an Event
    /// is never worth failing a reconciliation.
    pub async fn publish(&self, notice: &Notice, about: &ObjectReference) {
        if !self.is_news(notice, about) {
            return;
        }
        let mut note = notice.note.clone();
        if note.len() > MAX_NOTE {
            let end = (0..=MAX_NOTE).rev().find(|i| note.is_char_boundary(*i)).unwrap_or_default();
            note.truncate(end);
        }
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.to_owned(),
            note: Some(note),
            action: notice.action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::warn!(%error, reason = notice.reason, "cannot publish an event");
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.remove(&key(notice, about));
        }
    }

    fn is_news(&self, notice: &Notice, about: &ObjectReference) -> bool {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, at| now.duration_since(*at) < QUIET);
        if seen.contains_key(&key(notice, about)) {
            return false;
        }
        if seen.len() >= CAPACITY {
            let oldest = seen.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                seen.remove(&oldest);
            }
        }
        seen.insert(key(notice, about), now);
        true
    }
}

/// Whether a namespace is being deleted, by the answer to an Event that is not stored: Events are
/// what may be made everywhere, and whoever lost the rights to a namespace cannot ask otherwise.
pub async fn is_namespace_terminating(client: &Client, namespace: &str) -> bool {
    const NAME: &str = "is-this-namespace-terminating";
    let about = ObjectReference { namespace: Some(namespace.to_owned()), ..ObjectReference::default() };
    let event = CoreEvent {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: about,
        ..CoreEvent::default()
    };
    let api: Api<CoreEvent> = Api::namespaced(client.clone(), namespace);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let refused = api.create(&params, &event).await.err();
    refused.is_some_and(|e| {
        Error::new("create", describe_name::<CoreEvent>(Some(namespace), NAME), e).is_terminating()
    })
}

fn key(notice: &Notice, about: &ObjectReference) -> Key {
    (about.uid.clone().unwrap_or_default(), notice.reason.to_owned(), notice.note.clone())
}
