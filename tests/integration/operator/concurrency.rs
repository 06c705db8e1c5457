//! No more bots are reconciled at the same time than the operator is told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use ems_bots::{
    crd::AuditBot,
    operator::controller::{Bots, control},
};
use http::{Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::world::World;

const LIMIT: u16 = 3;
const BOTS: usize = 10;

/// An API server with a bot in each of its namespaces. It answers lists at once, and nothing else
/// without a permit.
struct Gate {
    permits: Semaphore,
    /// Namespaces whose requests wait.
    waiting: Mutex<BTreeSet<String>>,
    /// So many at the same time at most.
    most: Mutex<usize>,
    /// Namespaces that asked for anything.
    seen: Mutex<BTreeSet<String>>,
}

impl Gate {
    async fn answer(&self, path: &str, query: &str) -> (u16, Value) {
        if path.ends_with("/auditbots") {
            if query.contains("watch=true") {
                std::future::pending::<()>().await;
            }
            let items: Vec<Value> = (0..BOTS).map(bot).collect();
            let list = json!({"kind": "AuditBotList", "apiVersion": "ems.element.io/v1alpha1",
                "metadata": {"resourceVersion": "1"}, "items": items});
            return (200, list);
        }
        let namespace = path.split('/').skip_while(|part| *part != "namespaces").nth(1);
        let namespace = namespace.unwrap_or_else(|| panic!("of no namespace: {path}")).to_owned();
        self.seen.lock().unwrap().insert(namespace.clone());
        {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.insert(namespace.clone());
            let mut most = self.most.lock().unwrap();
            *most = waiting.len().max(*most);
        }
        self.permits.acquire().await.unwrap().forget();
        self.waiting.lock().unwrap().remove(&namespace);
        let failure = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": 404, "reason": "NotFound", "message": "nothing here"});
        (404, failure)
    }
}

fn bot(number: usize) -> Value {
    json!({"kind": "AuditBot", "apiVersion": "ems.element.io/v1alpha1",
        "metadata": {"name": "auditbot", "namespace": format!("tenant-{number}"),
            "uid": format!("{number:08x}-0000-4000-8000-000000000000"), "resourceVersion": "1", "generation": 1},
        "spec": {"homeserver": {"serverName": "example.org", "url": "http://synapse:8008", "plan": "Gold"}}})
}

fn client(gate: &Arc<Gate>) -> Client {
    let gate = Arc::clone(gate);
    let service = tower::service_fn(move |request: Request<Body>| {
        let gate = Arc::clone(&gate);
        async move {
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            let (code, answer) = gate.answer(path, query).await;
            Response::builder()
                .status(code)
                .header("content-type", "application/json")
                .body(Body::from(serde_json::to_vec(&answer).unwrap()))
        }
    });
    Client::new(service, "default")
}

/// The clock stands still while anything can go on: it is later only when everything waits.
async fn until_everything_waits() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_bots_are_reconciled_at_once_than_is_allowed() {
    let gate = Arc::new(Gate {
        permits: Semaphore::new(0),
        waiting: Mutex::default(),
        most: Mutex::default(),
        seen: Mutex::default(),
    });
    let mut ctx = World::new().start();
    Arc::get_mut(&mut ctx).unwrap().client = client(&gate);
    let (bots, ends) = Bots::<AuditBot>::new();
    let end = CancellationToken::new();
    let running = tokio::spawn(control(ctx, &bots, ends, LIMIT, end.clone()));

    until_everything_waits().await;
    assert_eq!(gate.waiting.lock().unwrap().len(), usize::from(LIMIT), "{:?}", gate.waiting);
    assert_eq!(bots.queue_depth(), BOTS - usize::from(LIMIT), "the others wait in the queue");
    gate.permits.add_permits(100_000);
    until_everything_waits().await;
    assert_eq!(gate.seen.lock().unwrap().len(), BOTS, "every bot had its turn");
    assert_eq!(*gate.most.lock().unwrap(), usize::from(LIMIT), "at once");
    end.cancel();
    tokio::time::timeout(Duration::from_mins(1), running).await.expect("it ends").unwrap();
}
