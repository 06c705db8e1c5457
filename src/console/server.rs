//! The endpoints that the API server reports to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{SemaphorePermit, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    caller::{Caller, Proof},
    deliver::{Delivery, messages},
    estate::Estate,
    intake::{Entry, Refusal, Target, admission, audit},
    listen::serve_on,
    metrics::{Metrics, Outcome, Source},
    places::{NoPlace, Places},
    tls::Acceptor,
};
use crate::domain::{Clock, vocabulary};

/// How long a body may take.
const BODY: Duration = Duration::from_secs(5);
/// Whoever distributes the connections of a Service learns within this time that a pod ends.
const DRAIN: Duration = Duration::from_secs(8);

/// What the endpoints need.
#[derive(Clone)]
pub struct Intake {
    /// Where records go.
    pub delivery: Delivery,
    /// What belongs to ems-bots.
    pub estate: watch::Receiver<Arc<Estate>>,
    /// How the API server proves itself.
    pub proof: Arc<Proof>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Metrics,
}

/// Whether the connection's client has a certificate that counts.
#[derive(Debug, Clone, Copy)]
pub struct HasCertificate(pub bool);

#[derive(Clone)]
struct Shared {
    intake: Intake,
    places: Arc<Places>,
}

/// The endpoints.
pub fn router(intake: Intake) -> Router {
    let shared = Shared { intake, places: Arc::default() };
    Router::new()
        .route("/intake/admission", post(take_review))
        .route("/intake/audit", post(take_events))
        .with_state(shared)
}

/// Why a report is answered with an error. The answer says no more than that.
enum Failed {
    TooLarge,
    Unreadable(Refusal),
    Unauthenticated,
    Limited,
    Busy,
    Unlisted,
    NotDurable,
}

impl From<NoPlace> for Failed {
    fn from(why: NoPlace) -> Self {
        match why {
            NoPlace::Limited => Self::Limited,
            NoPlace::Busy => Self::Busy,
        }
    }
}

impl Failed {
    fn answer(self, metrics: &Metrics, source: Source) -> Response {
        let (outcome, status, text) = match self {
            Self::TooLarge => (
                Outcome::Unreadable,
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large or too slow".to_owned(),
            ),
            Self::Unreadable(refusal) => (Outcome::Unreadable, StatusCode::BAD_REQUEST, refusal.to_string()),
            Self::Unauthenticated => (
                Outcome::Unauthenticated,
                StatusCode::UNAUTHORIZED,
                "only the API server may report audit events".to_owned(),
            ),
            Self::Limited => (
                Outcome::Limited,
                StatusCode::TOO_MANY_REQUESTS,
                "the caller did not prove to be the API server: it reports too much, or a change of a bot that there is not"
                    .to_owned(),
            ),
            Self::Busy => (
                Outcome::Refused,
                StatusCode::SERVICE_UNAVAILABLE,
                "ems-bots takes too many reports at this moment".to_owned(),
            ),
            Self::Unlisted => (
                Outcome::Refused,
                StatusCode::SERVICE_UNAVAILABLE,
                "ems-bots does not know yet which bots there are".to_owned(),
            ),
            Self::NotDurable => (
                Outcome::Refused,
                StatusCode::SERVICE_UNAVAILABLE,
                "ems-bots cannot record this: no database takes records".to_owned(),
            ),
        };
        metrics.reported(source, outcome);
        (status, text + "\n").into_response()
    }
}

impl Shared {
    fn caller(&self, certificate: HasCertificate, headers: &HeaderMap) -> Caller {
        let authorization = headers.get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
        self.intake.proof.judge(certificate.0, authorization)
    }

    /// Waits for a place for the report. Returns how long it may be.
    async fn place(
        &self,
        source: Source,
        caller: Caller,
        headers: &HeaderMap,
    ) -> Result<(usize, SemaphorePermit<'_>), Failed> {
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(self.places.take(source, caller, length).await?)
    }
}

async fn read(body: Body, limit: usize) -> Result<bytes::Bytes, Failed> {
    match tokio::time::timeout(BODY, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) | Err(_) => Err(Failed::TooLarge),
    }
}

async fn take_review(
    State(shared): State<Shared>,
    Extension(certificate): Extension<HasCertificate>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let metrics = shared.intake.metrics.clone();
    match review(&shared, certificate, &headers, body).await {
        Ok(uid) => {
            metrics.reported(Source::Admission, Outcome::Taken);
            let answer = json!({
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "response": {"uid": uid, "allowed": true},
            });
            Json(answer).into_response()
        }
        Err(failed) => failed.answer(&metrics, Source::Admission),
    }
}

async fn review(
    shared: &Shared,
    certificate: HasCertificate,
    headers: &HeaderMap,
    body: Body,
) -> Result<String, Failed> {
    let caller = shared.caller(certificate, headers);
    let (longest, _place) = shared.place(Source::Admission, caller, headers).await?;
    let body = read(body, longest).await?;
    let intake = &shared.intake;
    let estate = intake.estate.borrow().clone();
    let review = admission::convert(&body, caller, &estate.place.users(), intake.clock.now())
        .map_err(Failed::Unreadable)?;
    if !caller.is_authenticated() && !review.entries.iter().all(|entry| is_possible(entry, &estate)) {
        return Err(Failed::Limited);
    }
    let messages = messages(&review.entries, &estate, caller.is_authenticated());
    intake.delivery.deliver(messages).await.map_err(|_| Failed::NotDurable)?;
    Ok(review.uid)
}

/// Only what there is can be changed or deleted: a made-up name would wait in the console's database.
fn is_possible(entry: &Entry, estate: &Estate) -> bool {
    match &entry.target {
        Target::Bot(bot) => entry.draft.action == vocabulary::CREATION.action || estate.knows(bot),
        Target::Everybody => false,
    }
}

async fn take_events(
    State(shared): State<Shared>,
    Extension(certificate): Extension<HasCertificate>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let metrics = shared.intake.metrics.clone();
    match events(&shared, certificate, &headers, body).await {
        Ok(()) => {
            metrics.reported(Source::Audit, Outcome::Taken);
            StatusCode::OK.into_response()
        }
        Err(failed) => failed.answer(&metrics, Source::Audit),
    }
}

async fn events(
    shared: &Shared,
    certificate: HasCertificate,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Failed> {
    let caller = shared.caller(certificate, headers);
    // Whoever configures an audit backend writes the credential himself: there is no reason for none.
    if !caller.is_authenticated() {
        return Err(Failed::Unauthenticated);
    }
    let (longest, _place) = shared.place(Source::Audit, caller, headers).await?;
    let body = read(body, longest).await?;
    let intake = &shared.intake;
    let estate = intake.estate.borrow().clone();
    // Whom an event is about could not be said. The API server sends it again.
    if !estate.is_complete {
        return Err(Failed::Unlisted);
    }
    let audit::Report { entries, unreadable, anonymous } =
        audit::convert(&body, caller, &estate).map_err(Failed::Unreadable)?;
    intake.metrics.anonymous(anonymous);
    if unreadable > 0 {
        tracing::warn!(unreadable, "audit events that cannot be read");
        intake.metrics.reported(Source::Audit, Outcome::Unreadable);
    }
    intake.delivery.deliver(messages(&entries, &estate, true)).await.map_err(|_| Failed::NotDurable)
}

/// Serves the endpoints until `soft` is cancelled, and then finishes what is under way.
pub async fn serve(
    address: SocketAddr,
    acceptor: Acceptor,
    intake: Intake,
    soft: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(%address, "taking reports of the API server");
    serve_on(listener, acceptor, router(intake), soft, DRAIN).await;
    Ok(())
}
