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
    Api, Client, Resource,
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
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// It is gone, or it lacks a field that the manager applied: somebody else has removed it or given it another
        /// value.
        touched: bool,
    },
    /// The watch has started (anew): anything may have changed. What was touched since the first time is told one by one
    /// besides.
    All {
        /// Nothing was known before.
        first: bool,
    },
}

/// Changes of the metadata of all objects of a kind in a namespace, or in all of them, and whether they concern what `manager` applied.
/// While the right to watch is missing it is tried again with a growing delay; said once, when it begins.
pub fn metadata<K>(
    client: Client,
    namespace: Option<&str>,
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
    let api: Api<PartialObjectMeta<K>> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let config = watcher::Config { label_selector: labels.map(Into::into), ..watcher::Config::default() };
    // What the API server has in memory it gives in one piece: fit for a namespace, too much for all of them.
    let config = if namespace.is_some() { config.any_semantic() } else { config };
    let namespace = namespace.unwrap_or("(all)").to_owned();
    let mut failing = false;
    let mut held = Held::new(manager);
    watcher(api, config).default_backoff().flat_map(move |event| {
        let seen = match event {
            Ok(Event::Apply(changed)) => vec![held.changed(&changed.metadata)],
            Ok(Event::Delete(gone)) => vec![held.gone(&gone.metadata)],
            Ok(Event::Init) => {
                held.begin();
                Vec::new()
            }
            Ok(Event::InitApply(found)) => {
                held.found(&found.metadata);
                Vec::new()
            }
            Ok(Event::InitDone) => {
                failing = false;
                held.all()
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, namespace, kind = %K::kind(&()), "watch failed; trying again");
                }
                failing = true;
                Vec::new()
            }
        };
        futures::stream::iter(seen)
    })
}

/// Which fields of objects a manager holds by apply, as hashes. The API server takes a field from a manager when somebody
/// else gives it another value or removes it; what others write beside it, a status for example, changes nothing here, and
/// neither does the manager itself when it gives its fields new values.
struct Held {
    manager: &'static str,
    known: HashMap<String, Known>,
    /// What was known before everything was listed once more.
    before: HashMap<String, Known>,
    /// What the list shows to be touched.
    listed: Vec<Seen>,
    is_first: bool,
}

struct Known {
    namespace: String,
    name: String,
    fields: Option<u64>,
}

impl Known {
    fn seen(self, touched: bool) -> Seen {
        Seen::Object { namespace: self.namespace, name: self.name, touched }
    }
}

impl Held {
    fn new(manager: &'static str) -> Self {
        Self { manager, known: HashMap::new(), before: HashMap::new(), listed: Vec::new(), is_first: true }
    }

    /// Takes down what is held now. Touched, if it is something else than before, or nothing of a new object.
    fn changed(&mut self, object: &ObjectMeta) -> Seen {
        let uid = object.uid.clone().unwrap_or_default();
        let fields = self.fields(object);
        let before = self.known.remove(&uid).or_else(|| self.before.remove(&uid));
        let touched = before.map_or(fields.is_none(), |before| before.fields != fields);
        self.known.insert(uid, Known { fields, ..known(object) });
        known(object).seen(touched)
    }

    fn gone(&mut self, object: &ObjectMeta) -> Seen {
        self.known.remove(object.uid.as_deref().unwrap_or_default());
        known(object).seen(true)
    }

    /// Everything is about to be listed; a list that broke off before its end is no news of what it did not come to.
    fn begin(&mut self) {
        self.before.extend(self.known.drain());
    }

    fn found(&mut self, object: &ObjectMeta) {
        let seen = self.changed(object);
        if matches!(seen, Seen::Object { touched: true, .. }) {
            self.listed.push(seen);
        }
    }

    /// Everything is listed.
    fn all(&mut self) -> Vec<Seen> {
        let first = std::mem::replace(&mut self.is_first, false);
        let gone = self.before.drain().map(|(_, gone)| gone.seen(true));
        let touched: Vec<Seen> = self.listed.drain(..).chain(gone).collect();
        std::iter::once(Seen::All { first }).chain(touched.into_iter().filter(|_| !first)).collect()
    }

    fn fields(&self, object: &ObjectMeta) -> Option<u64> {
        let mut entries = object.managed_fields.iter().flatten();
        entries.find(|entry| is_applied_by(entry, self.manager, None)).map(|entry| {
            let mut hash = DefaultHasher::new();
            entry.fields_v1.as_ref().map(|fields| &fields.0).hash(&mut hash);
            hash.finish()
        })
    }
}

fn known(object: &ObjectMeta) -> Known {
    let [namespace, name] = [&object.namespace, &object.name].map(|part| part.clone().unwrap_or_default());
    Known { namespace, name, fields: None }
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
        let name = format!("child-{uid}");
        serde_json::from_value(serde_json::json!({
            "namespace": "tenant", "name": name, "uid": uid, "managedFields": managed}))
        .unwrap()
    }

    fn by(manager: &str, operation: &str, fields: &[&str]) -> serde_json::Value {
        let fields: serde_json::Map<_, _> =
            fields.iter().map(|field| ((*field).to_owned(), serde_json::json!({}))).collect();
        serde_json::json!({"manager": manager, "operation": operation, "fieldsV1": fields})
    }

    #[test]
    fn only_who_takes_a_field_away_is_noticed() {
        let mut held = Held::new("me");
        let mut changed = |uid, managed: &[serde_json::Value]| {
            matches!(held.changed(&object(uid, &managed.into())), Seen::Object { touched: true, .. })
        };
        let mine = by("me", "Apply", &["f:a", "f:b"]);
        assert!(!changed("1", std::slice::from_ref(&mine)), "what is new was just made");
        let others = [by("other", "Update", &["f:c"]), mine.clone(), by("me", "Update", &["f:d"])];
        assert!(!changed("1", &others), "what others hold is theirs");
        assert!(changed("1", &[by("me", "Apply", &["f:a"]), by("other", "Update", &["f:b"])]));
        assert!(changed("1", &[mine]), "and back");
        assert!(changed("1", &[]), "everything");
        assert!(changed("2", &[by("other", "Update", &["f:a"])]), "somebody else made it");
    }

    #[test]
    fn what_was_touched_while_nobody_watched_is_noticed() {
        let mut held = Held::new("me");
        let (mine, less) = (by("me", "Apply", &["f:a", "f:b"]), by("me", "Apply", &["f:a"]));
        let mut list = |managed: &[(&str, &serde_json::Value)]| {
            held.begin();
            for (uid, managed) in managed {
                held.found(&object(uid, &serde_json::json!([managed])));
            }
            // A list that breaks off is begun once more.
            held.begin();
            for (uid, managed) in managed {
                held.found(&object(uid, &serde_json::json!([managed])));
            }
            held.all()
        };
        let all = |first, touched: &[&str]| {
            let touched = touched.iter().map(|uid| {
                let (namespace, name) = ("tenant".to_owned(), format!("child-{uid}"));
                Seen::Object { namespace, name, touched: true }
            });
            std::iter::once(Seen::All { first }).chain(touched).collect::<Vec<_>>()
        };
        assert_eq!(list(&[("1", &mine), ("2", &mine), ("3", &mine)]), all(true, &[]));
        assert_eq!(list(&[("1", &mine), ("2", &mine), ("3", &mine)]), all(false, &[]));
        assert_eq!(list(&[("1", &mine), ("2", &less)]), all(false, &["2", "3"]));
        assert_eq!(list(&[("1", &mine), ("2", &less)]), all(false, &[]));
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
