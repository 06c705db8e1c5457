//! Which parts of a process have yet to start.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

/// Parts that must have started before the process is ready. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    pending: Arc<watch::Sender<BTreeSet<&'static str>>>,
}

impl Readiness {
    /// All of these are pending.
    pub fn waiting_for(parts: impl IntoIterator<Item = &'static str>) -> Self {
        Self { pending: Arc::new(watch::Sender::new(parts.into_iter().collect())) }
    }

    /// This part has started.
    pub fn done(&self, part: &'static str) {
        self.pending.send_if_modified(|pending| pending.remove(part));
    }

    /// What is still pending; empty means ready.
    pub fn pending(&self) -> Vec<&'static str> {
        self.pending.borrow().iter().copied().collect()
    }

    /// Returns when this part has started.
    pub async fn wait_for(&self, part: &'static str) {
        // The sender lives as long as `self`, so there is always an answer.
        let _ = self.pending.subscribe().wait_for(|pending| !pending.contains(part)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_every_part_is_done() {
        let readiness = Readiness::waiting_for(["b", "a"]);
        assert_eq!(readiness.pending(), ["a", "b"]);
        readiness.clone().done("a");
        readiness.wait_for("a").await;
        readiness.done("b");
        assert!(readiness.pending().is_empty());
    }
}
