//! What the end-to-end tests stand on: the development tools of `dev/run`, homeservers, clients,
//! tenants with a namespace of their own.

pub mod actions;
pub mod client;
pub mod comparison;
pub mod console;
pub mod coverage_bot;
pub mod crowd;
pub mod expected;
pub mod gate;
pub mod leaks;
pub mod ledger;
pub mod link;
pub mod local_worker;
pub mod metrics;
pub mod proxy;
pub mod rooms;
pub mod scene;
pub mod services;
pub mod sql;
pub mod storm;
pub mod talkers;
pub mod tenant;
pub mod trail;
pub mod whole_trail;
pub mod writes;

use std::{
    future::Future,
    time::{Duration, Instant},
};

pub use client::Client;
pub use expected::Expected;
pub use gate::{Act, Gate, Rule};
pub use link::Link;
pub use local_worker::LocalWorker;
pub use scene::Scene;
pub use services::{Database, Synapse};
pub use tenant::Tenant;
pub use trail::Trail;

/// Installs the TLS implementation that every test needs; harmless to repeat.
pub fn init() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A name that no other run has: the process id and a counter make it unique on this machine.
pub fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// A number of the environment.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// What a test's choices depend on: `EMS_TEST_SEED`, or another one each time.
pub fn seed() -> u64 {
    from_environment("EMS_TEST_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()))
}

/// Asks until the answer is `Some`, or fails with what was last said.
///
/// `look` returns `Err(what it saw instead)` as long as it is not there yet.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= deadline => {
                panic!("{what}: not within {within:?}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
