//! `/livez`, `/readyz` and `/metrics`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the process is still waiting for, and whether one of its parts is stuck for good.
///
/// Liveness never depends on another service: restarting this process would not mend that one.
#[derive(Debug, Clone, Default)]
pub struct Health {
    inner: Arc<Mutex<Parts>>,
}

#[derive(Debug, Default)]
struct Parts {
    waiting: BTreeMap<&'static str, String>,
    dead: Option<String>,
}

impl Health {
    /// Says that the process is not ready because of `part`, and why.
    pub fn waiting(&self, part: &'static str, why: impl Into<String>) {
        self.with(|state| state.waiting.insert(part, why.into()));
    }

    /// Says that `part` is ready.
    pub fn ready(&self, part: &'static str) {
        self.with(|state| state.waiting.remove(part));
    }

    /// Says that the process cannot go on and wants to be restarted.
    pub fn dead(&self, why: impl Into<String>) {
        self.with(|state| state.dead = Some(why.into()));
    }

    /// Whether nothing is waited for.
    pub fn is_ready(&self) -> bool {
        self.with(|state| state.waiting.is_empty() && state.dead.is_none())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Parts) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn readiness(&self) -> (StatusCode, String) {
        self.with(|state| {
            if state.waiting.is_empty() {
                return (StatusCode::OK, "ok\n".to_owned());
            }
            let lines: Vec<String> =
                state.waiting.iter().map(|(part, why)| format!("{part}: {why}")).collect();
            (StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n")
        })
    }

    fn liveness(&self) -> (StatusCode, String) {
        self.with(|state| match &state.dead {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(why) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
        })
    }
}

/// Serves the three endpoints until `soft` is cancelled.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    health: Health,
    soft: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(%address, "serving /livez, /readyz and /metrics");
    axum::serve(listener, router(registry, health)).with_graceful_shutdown(soft.cancelled_owned()).await
}

fn router(registry: Registry, health: Health) -> Router {
    Router::new()
        .route(
            "/livez",
            get(|State((_, health)): State<(Registry, Health)>| async move { health.liveness() }),
        )
        .route(
            "/readyz",
            get(|State((_, health)): State<(Registry, Health)>| async move { health.readiness() }),
        )
        .route("/metrics", get(metrics))
        .with_state((registry, health))
}

async fn metrics(State((registry, _)): State<(Registry, Health)>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    async fn get(registry: &Registry, health: &Health, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(registry.clone(), health.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 65536).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_waited_for() {
        let (registry, health) = (Registry::new(), Health::default());
        health.waiting("database", "not reachable");
        let (status, body) = get(&registry, &health, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "database: not reachable\n");
        assert_eq!(get(&registry, &health, "/livez").await.0, StatusCode::OK);
        health.ready("database");
        assert_eq!(get(&registry, &health, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_dead_process_asks_to_be_restarted() {
        let (registry, health) = (Registry::new(), Health::default());
        health.dead("stuck");
        assert_eq!(get(&registry, &health, "/livez").await.0, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!health.is_ready());
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        let registry = Registry::new();
        let counter = prometheus::IntCounter::new("ems_bots_test_total", "A test.").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.inc();
        let (status, body) = get(&registry, &Health::default(), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("ems_bots_test_total 1"), "{body}");
    }
}
