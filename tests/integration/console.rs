//! The console between an API server and two databases, over real connections.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ems_bots::{
    console::{
        certificate::make,
        estate::Estate,
        listen::serve_on,
        server::router,
        tls::{Acceptor, Certificate},
    },
    domain::{Clock as _, SystemClock},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::console_stage::{TOKEN, World, place};

/// The API server's side.
struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    async fn post(&self, path: &str, token: Option<&str>, body: impl Into<reqwest::Body>) -> (u16, String) {
        let mut request = self.http.post(format!("{}{path}", self.url)).body(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

async fn serve(world: &World, soft: &CancellationToken) -> Client {
    serve_for(world, soft, Duration::ZERO).await.0
}

async fn serve_for(world: &World, soft: &CancellationToken, drain: Duration) -> (Client, JoinHandle<()>) {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kept = make(&["console.test".to_owned()], SystemClock.now()).unwrap();
    let certificate = Certificate::default();
    let acceptor = Acceptor::new(certificate.clone(), None).unwrap();
    certificate.set(kept.certificate.as_bytes(), kept.key.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve_on(listener, acceptor, router(world.intake()), soft.clone(), drain));
    let authority = reqwest::Certificate::from_pem(kept.authorities.as_bytes()).unwrap();
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([authority])
        .resolve("console.test", address)
        // Each report comes by a connection of its own.
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    (Client { http, url: format!("https://console.test:{}", address.port()) }, serving)
}

fn review(operation: &str) -> Value {
    review_of(operation, "auditbot")
}

fn review_of(operation: &str, name: &str) -> Value {
    let object = json!({"metadata": {"name": name, "namespace": "tenant", "uid": "life", "generation": 1},
        "spec": {"homeserver": {"plan": "Gold"}}});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": format!("uid-{operation}"), "operation": operation, "name": name, "namespace": "tenant",
        "resource": {"group": "ems.element.io", "version": "v1alpha1", "resource": "auditbots"},
        "userInfo": {"username": "billing", "groups": ["shop"]},
        "object": if operation == "DELETE" { Value::Null } else { object.clone() }, "oldObject": object,
    }})
}

fn read_of_a_secret() -> Value {
    json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [{
        "auditID": "a", "stage": "ResponseComplete", "verb": "get", "user": {"username": "alice"},
        "objectRef": {"resource": "secrets", "namespace": "tenant", "name": "auditbot-account"},
        "requestReceivedTimestamp": "2026-09-21T14:13:20.000000Z",
    }]})
}

#[tokio::test]
async fn requests_and_events_of_the_api_server_become_records() {
    let world = World::new().await;
    world.tenants.open("auditbot", &world.tenant);
    let soft = CancellationToken::new();
    let client = serve(&world, &soft).await;
    let (status, answer) = client.post("/intake/admission", Some(TOKEN), review("DELETE").to_string()).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"], json!({"uid": "uid-DELETE", "allowed": true}));
    let (status, _) = client.post("/intake/audit", Some(TOKEN), read_of_a_secret().to_string()).await;
    assert_eq!(status, 200);
    let actions: Vec<_> =
        world.drain().await.into_iter().map(|draft| (draft.action, draft.actor.id().to_owned())).collect();
    let pair = |action: &str, who: &str| (action.to_owned(), who.to_owned());
    assert_eq!(actions, [pair("billing.removal.requested", "billing"), pair("secret.read", "alice")]);
    soft.cancel();
}

#[tokio::test]
async fn who_proves_nothing_is_marked_or_refused() {
    let world = World::new().await;
    world.tenants.open("auditbot", &world.tenant);
    let soft = CancellationToken::new();
    let client = serve(&world, &soft).await;
    for token in [None, Some("guessed")] {
        let (status, _) = client.post("/intake/audit", token, read_of_a_secret().to_string()).await;
        assert_eq!(status, 401, "{token:?}");
    }
    let (status, _) = client.post("/intake/admission", None, review("CREATE").to_string()).await;
    assert_eq!(status, 200);
    let drafts = world.drain().await;
    assert_eq!(drafts.len(), 1);
    let request = drafts[0].relations.iter().find(|relation| relation.kind == "request").unwrap();
    assert_eq!(request.role, "unauthenticated");
    assert_eq!(world.count("ems_bots_console_reports_total", "unauthenticated"), "2");
    soft.cancel();
}

#[tokio::test]
async fn who_proves_nothing_cannot_fill_the_database() {
    let world = World::new().await;
    let soft = CancellationToken::new();
    let client = serve(&world, &soft).await;
    for (operation, name, proven, unproven) in
        [("DELETE", "invented", 200, 429), ("DELETE", "second", 200, 200), ("CREATE", "invented", 200, 200)]
    {
        let body = review_of(operation, name).to_string();
        let (status, _) = client.post("/intake/admission", None, body.clone()).await;
        assert_eq!(status, unproven, "{operation} {name}");
        let (status, _) = client.post("/intake/admission", Some(TOKEN), body).await;
        assert_eq!(status, proven, "{operation} {name}");
    }
    assert_eq!(world.count("ems_bots_console_reports_total", "limited"), "1");
    let mut long = review("CREATE");
    long["request"]["object"]["spec"]["long"] = "x".repeat(256 << 10).into();
    assert_eq!(client.post("/intake/admission", None, long.to_string()).await.0, 413);
    assert_eq!(client.post("/intake/admission", Some(TOKEN), long.to_string()).await.0, 200);
    let mut superuser = world.own.superuser().await;
    let fill = "INSERT INTO waiting (trail, mark, counter, body, is_proven)
                SELECT (SELECT min(id) FROM trail), sha256(number::text::bytea), number,
                       convert_to(repeat('x', 4194304), 'UTF8'), false
                FROM generate_series(1, 65) AS number";
    sqlx::query(fill).execute(&mut superuser).await.unwrap();
    let more = review_of("CREATE", "more").to_string();
    let (status, _) = client.post("/intake/admission", None, more.clone()).await;
    assert_eq!(status, 503, "there is enough of that");
    let (status, _) = client.post("/intake/admission", Some(TOKEN), more).await;
    assert_eq!(status, 200);
    soft.cancel();
}

#[tokio::test]
async fn who_comes_while_the_process_ends_is_heard_until_nobody_is_sent_to_it_any_more() {
    let world = World::new().await;
    let soft = CancellationToken::new();
    let (client, serving) = serve_for(&world, &soft, Duration::from_secs(1)).await;
    soft.cancel();
    let late = review("CREATE").to_string();
    assert_eq!(client.post("/intake/admission", Some(TOKEN), late.clone()).await.0, 200);
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("it ends").unwrap();
    let too_late = client.http.post(format!("{}/intake/admission", client.url)).body(late).send().await;
    assert!(too_late.unwrap_err().is_connect(), "the listener is gone");
}

#[tokio::test]
async fn who_is_answered_while_the_process_ends_uses_the_connection_no_more() {
    let world = World::new().await;
    let soft = CancellationToken::new();
    let (client, serving) = serve_for(&world, &soft, Duration::from_secs(1)).await;
    let connection = async || {
        let ask = client.http.post(format!("{}/intake/admission", client.url)).bearer_auth(TOKEN);
        let answer = ask.body(review("CREATE").to_string()).send().await.unwrap();
        answer.headers().get("connection").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(connection().await, None);
    soft.cancel();
    assert_eq!(connection().await.as_deref(), Some("close"));
    serving.await.unwrap();
}

#[tokio::test]
async fn events_come_again_until_it_is_known_which_bots_there_are() {
    let world = World::new().await;
    world.tenants.open("auditbot", &world.tenant);
    let soft = CancellationToken::new();
    let client = serve(&world, &soft).await;
    let known = world.estate.borrow().clone();
    for (estate, expected) in [(Arc::new(Estate::new(place(), [])), 503), (known, 200)] {
        world.estate.send_replace(estate);
        let (status, answer) =
            client.post("/intake/audit", Some(TOKEN), read_of_a_secret().to_string()).await;
        assert_eq!(status, expected, "{answer}");
        assert_eq!(client.post("/intake/admission", Some(TOKEN), review("DELETE").to_string()).await.0, 200);
    }
    assert_eq!(world.drain().await.iter().filter(|draft| draft.action == "secret.read").count(), 1);
    soft.cancel();
}

#[tokio::test]
async fn nonsense_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let soft = CancellationToken::new();
    let client = serve(&world, &soft).await;
    for (path, body, expected) in [
        ("/intake/admission", "{".to_owned(), 400),
        ("/intake/admission", "{}".to_owned(), 400),
        ("/intake/admission", "x".repeat((4 << 20) + 1), 413),
        ("/intake/audit", "[]".to_owned(), 400),
        ("/intake/other", String::new(), 404),
    ] {
        let (status, _) = client.post(path, Some(TOKEN), body).await;
        assert_eq!(status, expected, "{path}");
    }
    let get = client.http.get(format!("{}/intake/admission", client.url)).send().await.unwrap();
    assert_eq!(get.status().as_u16(), 405);
    assert_eq!(world.waiting().await, 0);
    soft.cancel();
}

#[tokio::test]
async fn without_any_database_the_api_server_is_told() {
    let world = World::new().await;
    let soft = CancellationToken::new();
    let client = serve(&world, &soft).await;
    let mut superuser = world.own.superuser().await;
    sqlx::Executor::execute(&mut superuser, "DROP SCHEMA auditbot CASCADE").await.unwrap();
    let (status, answer) = client.post("/intake/admission", Some(TOKEN), review("CREATE").to_string()).await;
    assert_eq!((status, answer.contains("no database takes records")), (503, true), "{answer}");
    assert_eq!(world.count("ems_bots_console_reports_total", "refused"), "1");
    // A dry run is not recorded, so nothing hinders it.
    let mut dry = review("CREATE");
    dry["request"]["dryRun"] = true.into();
    assert_eq!(client.post("/intake/admission", Some(TOKEN), dry.to_string()).await.0, 200);
    soft.cancel();
}
