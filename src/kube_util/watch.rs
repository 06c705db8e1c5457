//! Watches that survive bad objects and missing rights, and come and go with namespaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    future::Future,
    sync::{Mutex, PoisonError},
};

use futures::{Stream, StreamExt as _};
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DeserializeGuard, DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

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
#[derive(Debug, Clone)]
pub enum Seen<K> {
    /// One object came, changed or went.
    Object(Box<PartialObjectMeta<K>>),
    /// The watch has started (anew): anything may have changed.
    All,
}

/// Changes of the metadata of all objects of a kind in a namespace. While the right to watch is
/// missing it is tried again with a growing delay; said once, when it begins.
pub fn metadata<K>(
    client: Client,
    namespace: &str,
    labels: Option<&str>,
) -> impl Stream<Item = Seen<K>> + Send
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
    watcher(api, config.any_semantic()).default_backoff().filter_map(move |event| {
        let seen = match event {
            Ok(Event::Apply(object) | Event::Delete(object)) => Some(Seen::Object(Box::new(object))),
            Ok(Event::InitDone) => {
                failing = false;
                Some(Seen::All)
            }
            Ok(Event::Init | Event::InitApply(_)) => None,
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
