//! How a long-running process ends: a soft request to finish what is under way, a deadline, and
//! then a hard one.

use std::{future::Future, process::ExitCode, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

/// Time between the soft and the hard request. Kubernetes kills after 30 s by default.
const GRACE: Duration = Duration::from_secs(25);

/// The shutdown of one process: tasks are spawned here and watch `soft`.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    soft: CancellationToken,
    failed: CancellationToken,
    tasks: TaskTracker,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A process that goes on until a signal comes or a task fails.
    pub fn new() -> Self {
        Self { soft: CancellationToken::new(), failed: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// Cancelled when the process is asked to end: finish the current unit of work and return.
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Spawns a task that must run until the end. If it returns an error, or returns before the
    /// process was asked to end, the process ends with a failure. It logs in the caller's span.
    pub fn spawn<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let lifecycle = self.clone();
        let watched = async move {
            match task.await {
                Err(error) => {
                    tracing::error!(task = name, error = %format_args!("{error:#}"), "task failed, process ends");
                    lifecycle.fail();
                }
                Ok(()) if !lifecycle.soft.is_cancelled() => {
                    tracing::error!(task = name, "task ended unexpectedly, process ends");
                    lifecycle.fail();
                }
                Ok(()) => tracing::debug!(task = name, "task ended"),
            }
        };
        self.tasks.spawn(watched.in_current_span());
    }

    /// Ends the process with a failure.
    pub fn fail(&self) {
        self.failed.cancel();
        self.soft.cancel();
    }

    /// Asks the process to end.
    pub fn shut_down(&self) {
        self.soft.cancel();
    }

    /// Waits for SIGTERM, SIGINT or a failure, then gives the tasks the grace time to finish.
    pub async fn run_until_shutdown(self) -> std::io::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "asked to end"),
            _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "asked to end"),
            () = self.soft.cancelled() => {}
        }
        self.soft.cancel();
        self.tasks.close();
        let finished = tokio::select! {
            () = self.tasks.wait() => true,
            () = tokio::time::sleep(GRACE) => false,
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
        };
        if !finished {
            tracing::warn!("ending before every task has finished");
        }
        Ok(if self.failed.is_cancelled() || !finished { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_task_ends_the_process_with_failure() {
        let lifecycle = Lifecycle::new();
        let soft = lifecycle.soft();
        lifecycle.spawn("sibling", async move {
            soft.cancelled().await;
            Ok::<_, String>(())
        });
        lifecycle.spawn("broken", async { Err("no") });
        assert_eq!(lifecycle.run_until_shutdown().await.unwrap(), ExitCode::FAILURE);
    }

    #[tokio::test]
    async fn a_task_that_returns_early_is_a_failure() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("gone", async { Ok::<_, String>(()) });
        assert_eq!(lifecycle.run_until_shutdown().await.unwrap(), ExitCode::FAILURE);
    }

    #[tokio::test]
    async fn an_asked_for_end_is_a_success() {
        let lifecycle = Lifecycle::new();
        let soft = lifecycle.soft();
        lifecycle.spawn("task", async move {
            soft.cancelled().await;
            Ok::<_, String>(())
        });
        lifecycle.shut_down();
        assert_eq!(lifecycle.run_until_shutdown().await.unwrap(), ExitCode::SUCCESS);
    }
}
