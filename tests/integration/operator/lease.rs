//! Leader election with two candidates and a clock that the test turns.

use std::{sync::Arc, time::Duration};

use ems_bots::{
    homeserver::Connect,
    kube_util::{
        lease::{Attempt, Elector, LeaseConfig, Loss},
        readiness::Readiness,
    },
    operator::{
        metrics::Metrics,
        run::{LEASE, Operator, RunError},
    },
};
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, advance, timeout};
use tokio_util::sync::CancellationToken;

use super::{fake_api::FakeApi, world::World};

fn candidate(api: &FakeApi, holder: &str) -> Elector {
    Elector::new(api.client(), LeaseConfig::new("system", "operator", holder), || Timestamp::UNIX_EPOCH)
}

fn holder(api: &FakeApi) -> Option<String> {
    let lease = api.get("leases", "system", "operator")?;
    lease["spec"]["holderIdentity"].as_str().map(ToOwned::to_owned)
}

#[tokio::test(start_paused = true)]
async fn only_one_of_two_holds_the_lease() {
    let api = FakeApi::default();
    let (mut a, mut b) = (candidate(&api, "a"), candidate(&api, "b"));
    assert_eq!(a.attempt().await.unwrap(), Attempt::Held);
    assert_eq!(b.attempt().await.unwrap(), Attempt::HeldBy("a".into()));
    advance(Duration::from_secs(14)).await;
    assert_eq!(a.attempt().await.unwrap(), Attempt::Held);
    advance(Duration::from_secs(14)).await;
    assert_eq!(b.attempt().await.unwrap(), Attempt::HeldBy("a".into()), "a has renewed meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_is_taken_after_its_duration() {
    let api = FakeApi::default();
    let (mut a, mut b) = (candidate(&api, "a"), candidate(&api, "b"));
    assert_eq!(a.attempt().await.unwrap(), Attempt::Held);
    let start = Instant::now();
    b.acquire(|| ()).await;
    assert!(start.elapsed() >= Duration::from_secs(15), "not before the lease has run out");
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(holder(&api).as_deref(), Some("b"));
    assert_eq!(a.attempt().await.unwrap(), Attempt::HeldBy("b".into()));
    assert_eq!(api.get("leases", "system", "operator").unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_try_at_the_same_moment_one_wins() {
    let api = FakeApi::default();
    let (mut a, mut b) = (candidate(&api, "a"), candidate(&api, "b"));
    a.attempt().await.unwrap();
    a.release().await.unwrap();
    // b reads the free lease; before it writes, a is back: the version in b's write is stale.
    let (first, second) = tokio::join!(a.attempt(), b.attempt());
    let outcomes = [first.unwrap(), second.unwrap()];
    assert_eq!(outcomes.iter().filter(|o| **o == Attempt::Held).count(), 1, "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stale_write_does_not_win() {
    let api = FakeApi::default();
    let (mut a, mut b) = (candidate(&api, "a"), candidate(&api, "b"));
    a.attempt().await.unwrap();
    a.release().await.unwrap();
    let free = api.get("leases", "system", "operator").unwrap();
    b.attempt().await.unwrap();
    let other = api.clone();
    // What a reads is the old, free lease: the answer of a cache that lags.
    api.fault(409, 1, move |call| {
        let _ = &other;
        call.method == http::Method::PUT
            && call.body["metadata"]["resourceVersion"] == free["metadata"]["resourceVersion"]
    });
    assert_eq!(a.attempt().await.unwrap(), Attempt::HeldBy("b".into()));
    assert_eq!(holder(&api).as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn renewals_carry_the_resource_version() {
    let api = FakeApi::default();
    let mut a = candidate(&api, "a");
    a.attempt().await.unwrap();
    api.take_calls();
    a.attempt().await.unwrap();
    let calls = api.take_calls();
    let put = calls.iter().find(|call| call.method == http::Method::PUT).expect("a renewal");
    assert!(put.body["metadata"]["resourceVersion"].is_string());
}

#[tokio::test(start_paused = true)]
async fn the_holder_goes_when_it_cannot_renew_in_time() {
    let api = FakeApi::default();
    let mut a = candidate(&api, "a");
    a.acquire(|| ()).await;
    let start = Instant::now();
    api.fault(500, usize::MAX, |_| true);
    assert_eq!(a.hold().await, Loss::NotRenewed(Duration::from_secs(10)));
    assert!(start.elapsed() <= Duration::from_secs(10), "before another may take it");
}

#[tokio::test(start_paused = true)]
async fn the_holder_survives_a_short_outage() {
    let api = FakeApi::default();
    let mut a = candidate(&api, "a");
    a.acquire(|| ()).await;
    api.fault(500, 3, |_| true);
    assert!(timeout(Duration::from_mins(1), a.hold()).await.is_err(), "still holds it");
    assert_eq!(holder(&api).as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn the_holder_goes_when_another_has_taken_the_lease() {
    let api = FakeApi::default();
    let mut a = candidate(&api, "a");
    a.acquire(|| ()).await;
    api.edit("leases", "system", "operator", |lease| lease["spec"]["holderIdentity"] = "b".into());
    assert_eq!(a.hold().await, Loss::Taken("b".into()));
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_free_at_once() {
    let api = FakeApi::default();
    let (mut a, mut b) = (candidate(&api, "a"), candidate(&api, "b"));
    a.attempt().await.unwrap();
    a.release().await.unwrap();
    assert_eq!(b.attempt().await.unwrap(), Attempt::Held);
    a.release().await.unwrap();
    assert_eq!(holder(&api).as_deref(), Some("b"), "nobody releases what another holds");
}

#[tokio::test(start_paused = true)]
async fn the_operator_ends_when_it_has_lost_the_lease() {
    let world = World::new();
    let readiness = Readiness::waiting_for([LEASE]);
    let homeserver = world.homeserver.clone();
    let configuration = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "configuration", "namespace": "system"}, "data": {"configuration": "{}"},
    }));
    let configuration = configuration.unwrap();
    let operator = Operator {
        client: world.api.client(),
        connect: Arc::new(move |_| Ok(Arc::new(homeserver.clone()) as Arc<dyn Connect>)),
        settings: world.settings.clone(),
        metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
        lease: LeaseConfig::new("system", "operator", "a"),
        concurrency: 1,
        readiness: readiness.clone(),
        configuration: Some(configuration),
    };
    let another_comes = async {
        readiness.wait_for(LEASE).await;
        assert_eq!(holder(&world.api).as_deref(), Some("a"));
        world.api.edit("leases", "system", "operator", |lease| lease["spec"]["holderIdentity"] = "b".into());
    };
    let runs = timeout(Duration::from_mins(1), operator.run(CancellationToken::new()));
    let (outcome, ()) = tokio::join!(runs, another_comes);
    let lost = outcome.expect("it ends by itself").unwrap_err();
    assert!(matches!(&lost, RunError::Lost(Loss::Taken(by)) if by == "b"), "{lost:?}");
    assert_eq!(holder(&world.api).as_deref(), Some("b"), "what another holds is not released");
    assert!(
        world.api.get("configmaps", "system", "configuration").is_some(),
        "who leads says with what it runs"
    );
}
