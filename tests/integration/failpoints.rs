//! Places to end a worker at: the polls of one of its tasks. An await that waits ends a poll.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Subscriber, span, subscriber::DefaultGuard};
use tracing_subscriber::{
    Layer, Registry, filter::filter_fn, layer::Context, layer::SubscriberExt as _, registry::LookupSpan,
};

/// Every task of a worker under test runs in a span of this name.
const SPAN: &str = "worker under test";

/// Counts polls of the worker's tasks.
struct Polls<F> {
    /// Whether one of this task counts now.
    counts: F,
    left: AtomicUsize,
    reached: CancellationToken,
}

impl<F, S> Layer<S> for Polls<F>
where
    F: Fn(Option<tokio::task::Id>) -> bool + Send + Sync + 'static,
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        let of_worker = context.metadata(id).is_some_and(|metadata| metadata.name() == SPAN);
        if of_worker && (self.counts)(tokio::task::try_id()) {
            // The runtime looks at this before it polls anything else.
            if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.reached.cancel();
            }
        }
    }
}

/// While the guard lives: cancels the token after so many polls that count.
pub(crate) fn count(
    counts: impl Fn(Option<tokio::task::Id>) -> bool + Send + Sync + 'static,
    polls: usize,
    reached: &CancellationToken,
) -> DefaultGuard {
    let polls = Polls { counts, left: AtomicUsize::new(polls), reached: reached.clone() };
    let only_ours = filter_fn(|metadata| metadata.name() == SPAN);
    tracing::subscriber::set_default(Registry::default().with(only_ours).with(polls))
}

/// The worker, so that its polls are counted.
pub(crate) fn under_test<T>(worker: impl Future<Output = T>) -> impl Future<Output = T> {
    Box::pin(worker.instrument(tracing::info_span!(SPAN)))
}

/// Runs one life of a worker. In the end every task, timer and connection of it is gone.
pub(crate) async fn in_own_runtime<T: Send + 'static, F: Future<Output = T>>(
    life: impl FnOnce() -> F + Send + 'static,
) -> T {
    let life = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1).build();
        runtime.unwrap().block_on(life())
    });
    tokio::time::timeout(Duration::from_secs(60), life).await.expect("it hangs").unwrap()
}

/// The first place to end at, and how far the others are apart.
pub(crate) fn places(step: usize) -> (usize, usize) {
    if std::env::var_os("EMS_TEST_EVERY_FAILPOINT").is_some() {
        return (1, 1);
    }
    let seed =
        std::env::var("EMS_TEST_SEED").ok().map(|text| text.parse().expect("EMS_TEST_SEED is a number"));
    let seed: usize = seed.unwrap_or_else(|| rand::random_range(0..1000));
    println!("to repeat it: EMS_TEST_SEED={seed}");
    (1 + seed % step, step)
}
