//! Watches that survive bad objects and missing rights, and come and go with namespaces.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
};

use futures::{Stream, StreamExt as _};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::ObjectMeta,
    core::{ApiResource, DeserializeGuard, DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::owned::is_applied_by;

/// All objects of a kind; one that does not fit its type is an `Err` in the guard and stops nothing.
/// Of the managed fields only those of `manager` are kept: they are most of the size of an object.
pub fn guarded<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    manager: &'static str,
) -> impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    watcher(api, config)
        .modify(move |object| {
            if let Some(fields) = &mut object.meta_mut().managed_fields {
                fields.retain(|entry| entry.manager.as_deref() == Some(manager));
            }
        })
        .default_backoff()
}

/// One object by name, as the API server has it, also what its type does not know; `None` while it does not exist.
/// Errors are logged and the watch goes on.
pub fn one<K>(
    client: Client,
    namespace: &str,
    name: &str,
) -> impl Stream<Item = Option<DynamicObject>> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &ApiResource::erase::<K>(&()));
    watcher::watch_object(api, name).default_backoff().filter_map(|event| async move {
        event.inspect_err(|error| tracing::warn!(%error, "watch of the object was interrupted")).ok()
    })
}

/// What a metadata-only watch has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// One object came, changed or went.
    Object {
        /// Its name.
        name: String,
        /// It is gone, or it lacks a field that the manager applied: somebody else has removed it or given it another
        /// value.
        touched: bool,
    },
    /// The watch has started (anew): anything may have changed.
    All,
}

/// Changes of the metadata of all objects of a kind in a namespace, and whether they concern what `manager` applied.
/// While the right to watch is missing it is tried again with a growing delay; said once, when it begins.
pub fn metadata<K>(
    client: Client,
    namespace: &str,
    labels: Option<&str>,
    manager: &'static str,
) -> impl Stream<Item = Seen> + Send + use<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client, namespace);
    let config = watcher::Config { label_selector: labels.map(Into::into), ..watcher::Config::default() };
    let namespace = namespace.to_owned();
    let mut failing = false;
    let mut held = Held { manager, fields: HashMap::new() };
    watcher(api, config.any_semantic()).default_backoff().filter_map(move |event| {
        let object = |name, touched| Some(Seen::Object { name, touched });
        let seen = match event {
            Ok(Event::Apply(changed)) => object(changed.name_any(), held.changed(&changed.metadata)),
            Ok(Event::Delete(gone)) => {
                held.forget(&gone.metadata);
                object(gone.name_any(), true)
            }
            Ok(Event::Init) => {
                held.fields.clear();
                None
            }
            Ok(Event::InitApply(found)) => {
                held.changed(&found.metadata);
                None
            }
            Ok(Event::InitDone) => {
                failing = false;
                Some(Seen::All)
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, namespace, kind = %K::kind(&()), "watch failed; trying again");
                }
                failing = true;
                None
            }
        };
        async move { seen }
    })
}

/// Which fields of objects a manager holds by apply, as hashes. The API server takes a field from a manager when somebody
/// else gives it another value or removes it; what others write beside it, a status for example, changes nothing here, and
/// neither does the manager itself when it gives its fields new values.
struct Held {
    manager: &'static str,
    fields: HashMap<String, Option<u64>>,
}

impl Held {
    /// Takes down what is held now. Whether it is something else than before, or nothing of a new object.
    fn changed(&mut self, object: &ObjectMeta) -> bool {
        let entries = object.managed_fields.iter().flatten();
        let now = entries
            .filter(|entry| is_applied_by(entry, self.manager, None))
            .map(|entry| {
                let mut hash = DefaultHasher::new();
                entry.fields_v1.as_ref().map(|fields| &fields.0).hash(&mut hash);
                hash.finish()
            })
            .next();
        let before = self.fields.insert(object.uid.clone().unwrap_or_default(), now);
        before.map_or(now.is_none(), |before| before != now)
    }

    fn forget(&mut self, object: &ObjectMeta) {
        self.fields.remove(object.uid.as_deref().unwrap_or_default());
    }
}

/// Tasks per namespace: started with the first object of a namespace, stopped after its last.
#[derive(Debug, Default)]
pub struct PerNamespace {
    running: Mutex<BTreeMap<String, CancellationToken>>,
}

impl PerNamespace {
    /// Starts the task of this namespace unless it runs; it must end when its token is cancelled.
    pub fn ensure<F>(&self, namespace: &str, parent: &CancellationToken, task: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(namespace) {
            return;
        }
        let token = parent.child_token();
        running.insert(namespace.to_owned(), token.clone());
        let task = task();
        tokio::spawn(async move {
            let _ = token.run_until_cancelled(task).await;
        });
    }

    /// Stops the tasks of all namespaces that are not in `wanted`.
    pub fn retain(&self, wanted: &BTreeSet<String>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|namespace, token| {
            let keep = wanted.contains(namespace);
            if !keep {
                token.cancel();
            }
            keep
        });
    }

    /// Namespaces with a running task.
    pub fn namespaces(&self) -> Vec<String> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(uid: &str, managed: &serde_json::Value) -> ObjectMeta {
        serde_json::from_value(serde_json::json!({"uid": uid, "managedFields": managed})).unwrap()
    }

    fn by(manager: &str, operation: &str, fields: &[&str]) -> serde_json::Value {
        let fields: serde_json::Map<_, _> =
            fields.iter().map(|field| ((*field).to_owned(), serde_json::json!({}))).collect();
        serde_json::json!({"manager": manager, "operation": operation, "fieldsV1": fields})
    }

    #[test]
    fn only_who_takes_a_field_away_is_noticed() {
        let mut held = Held { manager: "me", fields: HashMap::new() };
        let mut changed = |uid, managed: &[serde_json::Value]| held.changed(&object(uid, &managed.into()));
        let mine = by("me", "Apply", &["f:a", "f:b"]);
        assert!(!changed("1", std::slice::from_ref(&mine)), "what is new was just made");
        let others = [by("other", "Update", &["f:c"]), mine.clone(), by("me", "Update", &["f:d"])];
        assert!(!changed("1", &others), "what others hold is theirs");
        assert!(changed("1", &[by("me", "Apply", &["f:a"]), by("other", "Update", &["f:b"])]));
        assert!(changed("1", &[mine]), "and back");
        assert!(changed("1", &[]), "everything");
        assert!(changed("2", &[by("other", "Update", &["f:a"])]), "somebody else made it");
    }

    #[tokio::test]
    async fn tasks_start_once_and_stop_with_their_namespace() {
        let tasks = PerNamespace::default();
        let parent = CancellationToken::new();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<&str>();
        for _ in 0..2 {
            let sender = sender.clone();
            tasks.ensure("a", &parent, || async move {
                let _ = sender.send("started");
                std::future::pending::<()>().await;
            });
        }
        drop(sender);
        assert_eq!(receiver.recv().await, Some("started"));
        assert_eq!(tasks.namespaces(), ["a"]);
        tasks.retain(&BTreeSet::new());
        assert!(tasks.namespaces().is_empty());
        // The sender lives in the task: the end of the channel is the end of the task.
        assert_eq!(receiver.recv().await, None);
    }
}
