//! The certificate of the console's own, from the first one to that of another authority: what its Secret says, whom the API
//! server trusts, and what the intake shows, at every moment.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use base64::Engine as _;
use ems_bots::{
    cli::console::certificate::{Done, Own},
    console::{
        listen::serve_on,
        metrics::Metrics,
        tls::{Acceptor, Certificate},
    },
    domain::{Clock as _, SystemClock},
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::fake_api::{Call, FakeApi};
use crate::worker_stage::HeldClock;

const NAMESPACE: &str = "ems-bots-system";
const NAME: &str = "ems-bots-console.ems-bots-system.svc";
const SECRET: &str = "ems-bots-console-tls";
const WEBHOOKS: &str = "validatingwebhookconfigurations";
const WEBHOOK: &str = "ems-bots-console";
const DAY: i64 = 24;

/// One of several consoles, and where it serves.
struct Replica {
    own: Own,
    certificate: Certificate,
    done: Done,
    address: SocketAddr,
}

impl Replica {
    async fn start(api: &FakeApi, clock: &Arc<HeldClock>, soft: &CancellationToken) -> Self {
        let own = Own {
            client: api.client(),
            clock: clock.clone(),
            namespace: NAMESPACE.to_owned(),
            service: "ems-bots-console".to_owned(),
            webhook: WEBHOOK.to_owned(),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
        };
        let certificate = Certificate::default();
        let acceptor = Acceptor::new(certificate.clone(), None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "served"));
        tokio::spawn(serve_on(listener, acceptor, router, soft.clone(), Duration::ZERO));
        Self { own, certificate, done: Done::default(), address }
    }

    async fn look(&mut self) -> bool {
        self.own.look(&self.certificate, &mut self.done, &|| ()).await.is_ok()
    }

    /// Whether somebody who trusts these authorities only is served, by a connection of his own.
    async fn serves(&self, authorities: &str) -> bool {
        let authorities = reqwest::Certificate::from_pem_bundle(authorities.as_bytes()).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only(authorities);
        let http = http.resolve(NAME, self.address).build().unwrap();
        let answer = http.get(format!("https://{NAME}:{}/", self.address.port())).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

fn decode(text: &serde_json::Value) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// What the chart makes.
fn installed() -> FakeApi {
    let api = FakeApi::default();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": SECRET, "namespace": NAMESPACE}});
    api.put("secrets", secret);
    let service = json!({"name": "ems-bots-console", "namespace": NAMESPACE, "path": "/intake/admission"});
    let webhook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": WEBHOOK},
        "webhooks": [{"name": "bots.ems.element.io", "clientConfig": {"service": service},
            "sideEffects": "None", "admissionReviewVersions": ["v1"]}]});
    api.put(WEBHOOKS, webhook);
    api
}

/// Whom the API server trusts.
fn bundle(api: &FakeApi) -> String {
    let webhook = api.get(WEBHOOKS, "", WEBHOOK).unwrap();
    assert_eq!(
        webhook["webhooks"][0]["clientConfig"]["service"]["namespace"], NAMESPACE,
        "as the chart says"
    );
    decode(&webhook["webhooks"][0]["clientConfig"]["caBundle"])
}

/// What is kept under this key.
fn kept(api: &FakeApi, key: &str) -> String {
    decode(&api.get("secrets", NAMESPACE, SECRET).unwrap()["data"][key])
}

fn tells(call: &Call) -> bool {
    call.is_write() && call.path.contains(WEBHOOKS)
}

/// Methods of the writes since the last call.
fn writes(api: &FakeApi) -> Vec<String> {
    let writes = api.take_calls().into_iter().filter(Call::is_write);
    writes.map(|call| call.method.to_string()).collect()
}

#[tokio::test]
async fn a_certificate_and_its_authority_are_renewed_and_known_at_every_moment() {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (api, soft) = (installed(), CancellationToken::new());
    let _ends = soft.clone().drop_guard();
    // Who checks a certificate has no other clock than the system's: the last of them are valid now.
    let clock = Arc::new(HeldClock::at(SystemClock.now().as_second()));
    clock.pass(-3300 * DAY);
    let mut one = Replica::start(&api, &clock, &soft).await;
    let mut other = Replica::start(&api, &clock, &soft).await;

    println!("-- the first one");
    assert!(one.look().await && other.look().await);
    assert_eq!(writes(&api), ["PUT", "PATCH"], "kept before anybody is told, and made once");
    let authority = bundle(&api);
    assert_eq!(kept(&api, "ca.crt"), authority);

    println!("-- near its end: the certificate only");
    clock.pass(59 * DAY);
    assert!(one.look().await && writes(&api).is_empty(), "it is not time yet");
    clock.pass((3300 - 59 - 62) * DAY);
    let before = kept(&api, "tls.crt");
    assert!(one.look().await && other.look().await);
    assert_eq!(writes(&api), ["PUT"], "whom to trust is the same");
    assert_ne!(kept(&api, "tls.crt"), before);
    assert_eq!(bundle(&api), authority);
    assert!(one.serves(&authority).await && other.serves(&authority).await);

    println!("-- near the end of both, and nobody can be told");
    clock.pass(61 * DAY);
    let before = kept(&api, "tls.crt");
    api.fault(500, usize::MAX, tells);
    for _ in 0..3 {
        assert!(!one.look().await && !other.look().await);
        assert_eq!(bundle(&api), authority);
        assert_eq!(kept(&api, "tls.crt"), before, "no certificate of an authority that nobody knows");
        assert!(one.serves(&authority).await && other.serves(&authority).await);
    }
    api.clear_faults();
    api.take_calls();

    println!("-- the API server is told of the new authority, and trusts the old one too");
    assert!(one.look().await);
    assert_eq!(writes(&api), ["PATCH"]);
    let both = bundle(&api);
    assert!(both.ends_with(&authority) && both != authority);
    assert_eq!(kept(&api, "ca.crt"), both);
    assert!(one.serves(&authority).await, "the certificate is the one before");

    println!("-- then the new one signs");
    assert!(one.look().await);
    assert_eq!(writes(&api), ["PUT"]);
    assert_ne!(kept(&api, "tls.crt"), before);
    assert!(one.serves(&both).await && !one.serves(&authority).await, "without a restart");
    assert!(other.serves(&both).await && other.serves(&authority).await, "it has not looked yet");
    assert!(other.look().await);
    assert!(other.serves(&both).await && !other.serves(&authority).await);
    assert!(one.look().await && other.look().await);
    assert!(writes(&api).is_empty(), "and nothing is left to do");
}

#[tokio::test]
async fn where_there_is_no_webhook_the_certificate_is_renewed_all_the_same() {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (api, soft) = (installed(), CancellationToken::new());
    let _ends = soft.clone().drop_guard();
    api.delete(WEBHOOKS, "", WEBHOOK);
    let clock = Arc::new(HeldClock::at(SystemClock.now().as_second()));
    let mut one = Replica::start(&api, &clock, &soft).await;
    assert!(!one.look().await, "it says that nobody can be told");
    let mut before = kept(&api, "tls.crt");
    // Past the time at which another authority takes over: two looks renew both.
    for days in [61, 61, 3200] {
        clock.pass(days * DAY);
        one.look().await;
        one.look().await;
        let now = kept(&api, "tls.crt");
        assert_ne!(now, before, "after {days} days");
        before = now;
    }
    assert_eq!(kept(&api, "ca.crt").matches("BEGIN").count(), 2);
}
