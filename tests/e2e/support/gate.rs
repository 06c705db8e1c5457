//! A gate in front of a homeserver: what comes through it is counted, and can be refused, held up,
//! or done and then not answered. Without a homeserver behind it, it is a listener that shows
//! what is sent to a stranger.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, Response, StatusCode, header},
};
use tokio::sync::watch;

/// Where pods and this process reach what this process listens on: the cluster's bridge.
const BRIDGE: &str = "10.244.0.1";

/// What the gate does with a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answers this status with this body instead of the homeserver.
    Answer(u16, &'static str),
    /// Holds the request up before the homeserver sees it.
    HoldRequest,
    /// Lets the homeserver act, and holds its answer up.
    HoldAnswer,
}

/// The first rule that fits counts; a request that fits none goes through.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Or any.
    pub method: Option<Method>,
    /// Part of the path.
    pub path: String,
    pub act: Act,
}

impl Rule {
    pub fn new(method: Option<Method>, path: &str, act: Act) -> Self {
        Self { method, path: path.to_owned(), act }
    }

    /// Every request.
    pub fn all(act: Act) -> Self {
        Self::new(None, "/", act)
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub authorization: Option<String>,
    pub body: String,
}

#[derive(Debug, Clone)]
struct Inner {
    upstream: Option<String>,
    rules: watch::Sender<Vec<Rule>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    http: reqwest::Client,
}

/// See the module. Stops listening with the test's runtime.
#[derive(Debug, Clone)]
pub struct Gate {
    /// As pods and this process reach it.
    pub url: String,
    inner: Inner,
}

impl Gate {
    /// In front of a homeserver (its URL as this process reaches it), or of nothing.
    pub async fn open(upstream: Option<&str>) -> Self {
        super::init();
        let listener =
            tokio::net::TcpListener::bind((BRIDGE, 0)).await.expect("the cluster's bridge is there");
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Inner {
            upstream: upstream.map(str::to_owned),
            rules: watch::Sender::new(Vec::new()),
            seen: Arc::default(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        let router = Router::new().fallback(pass).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, inner }
    }

    /// Replaces the rules. Requests that an earlier rule holds up and no new one does go on.
    pub fn rules(&self, rules: Vec<Rule>) {
        self.inner.rules.send_replace(rules);
    }

    /// Everything that came so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.inner.seen.lock().unwrap().clear();
    }

    /// Waits until a request came that fits.
    pub async fn wait_for(&self, what: &str, fits: impl Fn(&Seen) -> bool) {
        super::eventually(what, std::time::Duration::from_mins(1), || async {
            let seen = self.seen();
            if seen.iter().any(&fits) { Ok(()) } else { Err(format!("{} requests, none such", seen.len())) }
        })
        .await;
    }
}

async fn pass(State(inner): State<Inner>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap_or_default();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    inner.seen.lock().unwrap().push(Seen {
        method: parts.method.clone(),
        path: path.clone(),
        authorization: authorization.map(str::to_owned),
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    loop {
        match rule(&inner, &parts.method, &path) {
            Some(Act::Answer(status, text)) => return answer(status, Bytes::from_static(text.as_bytes())),
            Some(Act::HoldRequest) => changed(&inner).await,
            Some(Act::HoldAnswer) => {
                let done = forward(&inner, parts.method.clone(), &path, &parts.headers, body).await;
                while matches!(rule(&inner, &parts.method, &path), Some(Act::HoldAnswer)) {
                    changed(&inner).await;
                }
                return done;
            }
            None => return forward(&inner, parts.method, &path, &parts.headers, body).await,
        }
    }
}

fn rule(inner: &Inner, method: &Method, path: &str) -> Option<Act> {
    let rules = inner.rules.borrow();
    let fits = |rule: &&Rule| rule.method.as_ref().is_none_or(|m| m == method) && path.contains(&rule.path);
    rules.iter().find(fits).map(|rule| rule.act.clone())
}

async fn changed(inner: &Inner) {
    let _ = inner.rules.subscribe().changed().await;
}

async fn forward(
    inner: &Inner,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let Some(upstream) = &inner.upstream else {
        return answer(
            404,
            Bytes::from_static(b"{\"errcode\":\"M_UNRECOGNIZED\",\"error\":\"nothing here\"}"),
        );
    };
    let mut request = inner.http.request(method, format!("{upstream}{path}")).body(body);
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE, header::USER_AGENT] {
        if let Some(value) = headers.get(&name) {
            request = request.header(name, value);
        }
    }
    match request.send().await {
        Ok(done) => {
            let status = done.status().as_u16();
            answer(status, done.bytes().await.unwrap_or_default())
        }
        Err(_) => answer(502, Bytes::from_static(b"{}")),
    }
}

fn answer(status: u16, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
