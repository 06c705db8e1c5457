//! An API server in memory, as far as the operator uses one: get, list, create, replace,
//! server-side apply with field ownership, JSON patch, delete with finalizers and owner
//! references, resource versions and their conflicts. Faults and crashes are injected.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::fake_ssa;

/// What was asked of the server.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

impl Call {
    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// A fault: requests for which `matches` is true get this answer, `times` times.
pub(crate) struct Fault {
    pub(crate) matches: Box<dyn Fn(&Call) -> bool + Send>,
    pub(crate) code: u16,
    pub(crate) times: usize,
}

/// Shared by the API server and the homeserver of a test: after so many writes the process dies.
#[derive(Clone, Default)]
pub(crate) struct Crash {
    inner: Arc<Mutex<Option<usize>>>,
    pub(crate) died: Arc<tokio::sync::Notify>,
}

impl Crash {
    /// Dies after the write with this number (0: after the first).
    pub(crate) fn after(&self, writes: usize) {
        *self.inner.lock().unwrap() = Some(writes);
    }

    pub(crate) fn never(&self) {
        *self.inner.lock().unwrap() = None;
    }

    /// Call when a write is done, before its answer is given; never returns when it was the last.
    pub(crate) async fn wrote(&self) {
        let dies = {
            let mut inner = self.inner.lock().unwrap();
            match inner.as_mut() {
                None => false,
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
            }
        };
        if dies {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    pub(crate) crash: Crash,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Stored>,
    version: u64,
    calls: Vec<Call>,
    faults: Vec<Fault>,
    terminating: bool,
}

type Key = (String, String, String); // plural, namespace, name

#[derive(Clone, Default)]
struct Stored {
    value: Value,
    /// What each manager has applied, by manager and subresource.
    applied: BTreeMap<(String, String), Value>,
}

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.serve(request).await }
        });
        Client::new(service, "default")
    }

    pub(crate) fn fault(&self, code: u16, times: usize, matches: impl Fn(&Call) -> bool + Send + 'static) {
        self.state.lock().unwrap().faults.push(Fault { matches: Box::new(matches), code, times });
    }

    pub(crate) fn clear_faults(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// Everything that was asked since the last call of this.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().unwrap().objects.get(&key).map(|stored| stored.value.clone())
    }

    pub(crate) fn names(&self, plural: &str, namespace: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.objects.keys().filter(|k| k.0 == plural && k.1 == namespace).map(|k| k.2.clone()).collect()
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, plural: &str, mut value: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        let key = (plural.to_owned(), namespace, name);
        let old = state.objects.get(&key).cloned().unwrap_or_default();
        state.stamp(&mut value, &old.value);
        if value["metadata"]["generation"].is_null() || value["spec"] != old.value["spec"] {
            let generation = old.value["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
            value["metadata"]["generation"] = generation.into();
        }
        state.objects.insert(key, Stored { value: value.clone(), applied: old.applied });
        value
    }

    /// Changes an object in place, as somebody else would.
    pub(crate) fn edit(&self, plural: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.get(plural, namespace, name).expect("object exists");
        change(&mut value);
        self.put(plural, value);
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().unwrap().delete(&key, None);
    }

    /// Every namespace is being deleted: nothing new may be made.
    pub(crate) fn terminate_namespaces(&self) {
        self.state.lock().unwrap().terminating = true;
    }

    /// Removes what the object with this UID owns, as for a deletion in the foreground.
    pub(crate) fn collect_garbage(&self, uid: &str) {
        self.state.lock().unwrap().collect(uid);
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await.map_err(std::io::Error::other)?;
        let call = Call {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        };
        let (code, answer) = {
            let mut state = self.state.lock().unwrap();
            state.calls.push(call.clone());
            match state.fault_for(&call) {
                Some(code) => (code, failure(code, "Injected", "a fault of this test")),
                None => state.answer(&call),
            }
        };
        if call.is_write() && code < 300 {
            self.crash.wrote().await;
        }
        let response = Response::builder()
            .status(StatusCode::from_u16(code).unwrap())
            .header("content-type", "application/json")
            .body(Body::from(serde_json::to_vec(&answer).unwrap()))
            .unwrap();
        Ok(response)
    }
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "code": code, "reason": reason, "message": message})
}

fn being_terminated(namespace: &str) -> (u16, Value) {
    let message =
        format!("unable to create new content in namespace {namespace} because it is being terminated");
    (403, failure(403, "Forbidden", &message))
}

struct Target {
    prefix: String,
    plural: String,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (prefix, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ((*version).to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => ((*namespace).to_owned(), rest),
        rest => (String::new(), rest),
    };
    Some(Target {
        prefix,
        plural: (*rest.first()?).to_owned(),
        namespace,
        name: rest.get(1).map(|s| (*s).to_owned()),
        subresource: rest.get(2).map(|s| (*s).to_owned()),
    })
}

impl State {
    fn fault_for(&mut self, call: &Call) -> Option<u16> {
        let index = self.faults.iter().position(|fault| fault.times > 0 && (fault.matches)(call))?;
        self.faults[index].times -= 1;
        Some(self.faults[index].code)
    }

    fn stamp(&mut self, value: &mut Value, old: &Value) {
        self.version += 1;
        let metadata = &mut value["metadata"];
        metadata["resourceVersion"] = self.version.to_string().into();
        if metadata["uid"].is_null() {
            metadata["uid"] = match &old["metadata"]["uid"] {
                Value::Null => format!("{:08x}-0000-4000-8000-000000000000", self.version).into(),
                uid => uid.clone(),
            };
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
    }

    fn answer(&mut self, call: &Call) -> (u16, Value) {
        let Some(target) = target(&call.path) else { return (404, failure(404, "NotFound", "no such path")) };
        let key = |name: &str| (target.plural.clone(), target.namespace.clone(), name.to_owned());
        match (call.method.as_str(), target.name.as_deref()) {
            ("GET", None) => (200, self.list(&target, &call.query)),
            ("GET", Some(name)) => match self.objects.get(&key(name)) {
                Some(stored) => (200, stored.value.clone()),
                None => (404, failure(404, "NotFound", &format!("{} {name:?} not found", target.plural))),
            },
            ("POST", _) if self.terminating => being_terminated(&target.namespace),
            ("POST", _) if parameter(&call.query, "dryRun").is_some() => (201, call.body.clone()),
            ("POST", _) => {
                let name = call.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                self.create(key(&name), call.body.clone())
            }
            ("PUT", Some(name)) => self.replace(&key(name), call.body.clone()),
            ("PATCH", Some(name)) if call.query.contains("fieldManager=") => {
                let manager = parameter(&call.query, "fieldManager").unwrap_or_default();
                self.apply(key(name), &target, &manager, call.body.clone())
            }
            ("PATCH", Some(name)) => self.json_patch(&key(name), &call.body),
            ("DELETE", Some(name)) => {
                let uid = call.body["preconditions"]["uid"].as_str().map(ToOwned::to_owned);
                self.delete(&key(name), uid)
            }
            _ => (405, failure(405, "MethodNotAllowed", "not in this fake")),
        }
    }

    fn list(&self, target: &Target, query: &str) -> Value {
        let selector = parameter(query, "labelSelector").unwrap_or_default();
        let wanted: Vec<(&str, &str)> = selector.split(',').filter_map(|s| s.split_once('=')).collect();
        let items: Vec<Value> = self
            .objects
            .iter()
            .filter(|(key, _)| {
                key.0 == target.plural && (target.namespace.is_empty() || key.1 == target.namespace)
            })
            .map(|(_, stored)| stored.value.clone())
            .filter(|value| wanted.iter().all(|(k, v)| value["metadata"]["labels"][*k] == **v))
            .collect();
        json!({"kind": "List", "apiVersion": target.prefix, "items": items,
               "metadata": {"resourceVersion": self.version.to_string()}})
    }

    fn create(&mut self, key: Key, mut value: Value) -> (u16, Value) {
        if self.objects.contains_key(&key) {
            return (409, failure(409, "AlreadyExists", &format!("{} already exists", key.2)));
        }
        self.stamp(&mut value, &Value::Null);
        value["metadata"]["generation"] = 1.into();
        self.objects.insert(key, Stored { value: value.clone(), applied: BTreeMap::new() });
        (201, value)
    }

    fn replace(&mut self, key: &Key, mut value: Value) -> (u16, Value) {
        let Some(stored) = self.objects.get(key).cloned() else {
            return (404, failure(404, "NotFound", "not found"));
        };
        let version = &value["metadata"]["resourceVersion"];
        if !version.is_null() && *version != stored.value["metadata"]["resourceVersion"] {
            return (409, failure(409, "Conflict", "the object has been modified"));
        }
        self.stamp(&mut value, &stored.value);
        self.objects.insert(key.clone(), Stored { value: value.clone(), ..stored });
        (200, value)
    }

    fn apply(&mut self, key: Key, target: &Target, manager: &str, mut wanted: Value) -> (u16, Value) {
        let old = self.objects.get(&key).cloned();
        let uid = wanted["metadata"]["uid"].clone();
        match &old {
            None if target.subresource.is_some() => return (404, failure(404, "NotFound", "not found")),
            None if !uid.is_null() => return (409, failure(409, "Conflict", "uid precondition failed")),
            None if self.terminating => return being_terminated(&key.1),
            Some(old) if !uid.is_null() && uid != old.value["metadata"]["uid"] => {
                return (409, failure(409, "Conflict", "uid mismatch"));
            }
            Some(old) if old.value["immutable"] == true => {
                return (422, failure(422, "Invalid", "field is immutable when `immutable` is set"));
            }
            _ => {}
        }
        let is_new = old.is_none();
        let mut stored = old.unwrap_or_default();
        let subresource = target.subresource.clone().unwrap_or_default();
        if subresource == "status" {
            wanted = json!({"status": wanted["status"].clone()});
        } else if let Some(map) = wanted.as_object_mut() {
            map.remove("status");
        }
        let slot = (manager.to_owned(), subresource.clone());
        let before = stored.value.clone();
        let previous = stored.applied.insert(slot.clone(), wanted.clone()).unwrap_or_default();
        let others: Vec<&Value> =
            stored.applied.iter().filter(|(s, _)| **s != slot).map(|(_, v)| v).collect();
        fake_ssa::remove_dropped(&mut stored.value, &previous, &wanted, &others);
        fake_ssa::merge(&mut stored.value, &wanted, "");
        // A forced apply takes away what others hold with another value.
        for (other, applied) in &mut stored.applied {
            if *other != slot {
                fake_ssa::drop_conflicts(applied, &wanted);
            }
        }
        stored.value["metadata"]["managedFields"] = stored
            .applied
            .iter()
            .map(|((manager, subresource), applied)| fake_ssa::entry(manager, subresource, applied))
            .collect();
        let conditions = stored.value.pointer("/status/conditions").and_then(Value::as_array);
        if conditions.into_iter().flatten().any(|condition| condition["status"].is_null()) {
            return (422, failure(422, "Invalid", "status.conditions[].status: Required value"));
        }
        if stored.value == before {
            self.objects.insert(key, stored.clone());
            return (200, stored.value);
        }
        let mut value = stored.value.clone();
        if !is_new {
            value["metadata"]["uid"] = before["metadata"]["uid"].clone();
        }
        if is_new || (subresource.is_empty() && value["spec"] != before["spec"]) {
            value["metadata"]["generation"] =
                (before["metadata"]["generation"].as_i64().unwrap_or_default() + 1).into();
        }
        self.stamp(&mut value, &before);
        stored.value = value.clone();
        self.objects.insert(key, stored);
        (if is_new { 201 } else { 200 }, value)
    }

    fn json_patch(&mut self, key: &Key, steps: &Value) -> (u16, Value) {
        let Some(mut stored) = self.objects.get(key).cloned() else {
            return (404, failure(404, "NotFound", "not found"));
        };
        for step in steps.as_array().into_iter().flatten() {
            let path = step["path"].as_str().unwrap_or_default();
            match step["op"].as_str() {
                Some("test") if stored.value.pointer(path) != Some(&step["value"]) => {
                    return (422, failure(422, "Invalid", "test failed"));
                }
                Some("remove") => {
                    let (parent, index) = path.rsplit_once('/').unwrap();
                    let list = stored.value.pointer_mut(parent).and_then(Value::as_array_mut).unwrap();
                    list.remove(index.parse().unwrap());
                }
                _ => {}
            }
        }
        let before = stored.value.clone();
        self.stamp(&mut stored.value, &before);
        let value = stored.value.clone();
        let metadata = &value["metadata"];
        let is_free = metadata["finalizers"].as_array().is_none_or(Vec::is_empty);
        if is_free && !metadata["deletionTimestamp"].is_null() {
            self.objects.remove(key);
            self.collect(metadata["uid"].as_str().unwrap_or_default());
        } else {
            self.objects.insert(key.clone(), stored);
        }
        (200, value)
    }

    fn delete(&mut self, key: &Key, uid: Option<String>) -> (u16, Value) {
        let Some(stored) = self.objects.get_mut(key) else {
            return (404, failure(404, "NotFound", "not found"));
        };
        if uid.is_some_and(|uid| stored.value["metadata"]["uid"] != uid) {
            return (409, failure(409, "Conflict", "uid precondition failed"));
        }
        let held = stored.value["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if held {
            if stored.value["metadata"]["deletionTimestamp"].is_null() {
                stored.value["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
                let generation = stored.value["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
                stored.value["metadata"]["generation"] = generation.into();
            }
            return (200, stored.value.clone());
        }
        let value = stored.value.clone();
        self.objects.remove(key);
        self.collect(value["metadata"]["uid"].as_str().unwrap_or_default());
        (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
    }

    /// Garbage collection of what the object with this UID owned.
    fn collect(&mut self, uid: &str) {
        let orphans: Vec<Key> = self
            .objects
            .iter()
            .filter(|(_, stored)| {
                stored.value["metadata"]["ownerReferences"]
                    .as_array()
                    .is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in orphans {
            self.delete(&key, None);
        }
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(k, _)| k == name).map(|(_, v)| v.into_owned())
}
