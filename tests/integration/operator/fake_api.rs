//! An API server in memory, as far as the operator uses one: get, list, create, replace,
//! server-side apply with field ownership, JSON patch, delete with finalizers and owner
//! references, resource versions and their conflicts, watches. Faults and crashes are injected.

use std::sync::{Arc, Mutex};

use axum::body::Body as Answer;
use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::Value;

use super::{
    fake_ssa,
    fake_state::{State, Stored, failure, parameter, target},
    fake_watch::follow,
};

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

    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
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
    pub(crate) fn put(&self, plural: &str, value: Value) -> Value {
        self.put_and(plural, value, |_| ())
    }

    fn put_and(&self, plural: &str, mut value: Value, then: impl FnOnce(&mut Stored)) -> Value {
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
        let mut stored = Stored { value, applied: old.applied };
        then(&mut stored);
        let value = stored.value.clone();
        state.objects.insert(key, stored);
        state.tell();
        value
    }

    /// Changes an object in place, as somebody else would.
    pub(crate) fn edit(&self, plural: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.get(plural, namespace, name).expect("object exists");
        change(&mut value);
        self.put(plural, value);
    }

    /// The same, and who had applied what is different now does not hold it any more.
    pub(crate) fn take_over(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        let mut value = self.get(plural, namespace, name).expect("object exists");
        change(&mut value);
        self.put_and(plural, value, |stored| {
            for applied in stored.applied.values_mut() {
                fake_ssa::drop_changed(applied, &stored.value);
            }
            stored.note_managers();
        });
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut state = self.state.lock().unwrap();
        state.delete(&key, None);
        state.tell();
    }

    /// Every namespace is being deleted: nothing new may be made.
    pub(crate) fn terminate_namespaces(&self) {
        self.state.lock().unwrap().terminating = true;
    }

    /// Removes what the object with this UID owns, as for a deletion in the foreground.
    pub(crate) fn collect_garbage(&self, uid: &str) {
        let mut state = self.state.lock().unwrap();
        state.collect(uid);
        state.tell();
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Answer>, std::io::Error> {
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
                None => {
                    let answer = state.answer(&call);
                    state.tell();
                    answer
                }
            }
        };
        if code < 300 && call.is_watch() {
            let target = target(&call.path).unwrap();
            let objects = (target.plural, target.namespace);
            return Ok(Response::new(follow(&self.state, objects, |name| parameter(&call.query, name))));
        }
        if call.is_write() && code < 300 {
            self.crash.wrote().await;
        }
        let response = Response::builder()
            .status(StatusCode::from_u16(code).unwrap())
            .header("content-type", "application/json")
            .body(Answer::from(serde_json::to_vec(&answer).unwrap()))
            .unwrap();
        Ok(response)
    }
}
