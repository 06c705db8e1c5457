//! Planned failures and the log of calls.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use crate::homeserver::HomeserverError;

/// What happens to a call.
#[derive(Clone)]
pub enum Outcome {
    /// It does what it should.
    Succeed,
    /// It fails without effect.
    Fail(Arc<dyn Fn() -> HomeserverError + Send + Sync>),
    /// It has its effect, and the caller sees a broken connection.
    LoseAnswer,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeed => "Succeed",
            Self::Fail(_) => "Fail",
            Self::LoseAnswer => "LoseAnswer",
        })
    }
}

/// One call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Name of the trait's method.
    pub call: &'static str,
    /// The user or room that it is about.
    pub subject: String,
    /// Who called.
    pub caller: String,
}

#[derive(Debug)]
struct Planned {
    call: &'static str,
    /// Calls still to come until it happens; `None` for every call.
    countdown: Option<u32>,
    outcome: Outcome,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub log: Vec<Recorded>,
    pub latency: Duration,
    /// How long the answer to a call is on its way.
    pub delays: HashMap<&'static str, Duration>,
    planned: Vec<Planned>,
}

impl Faults {
    pub(super) fn plan(&mut self, call: &'static str, nth: Option<u32>, outcome: Outcome) {
        self.planned.push(Planned { call, countdown: nth, outcome });
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    /// Logs a call and says what happens to it.
    pub(super) fn enter(&mut self, call: &'static str, subject: &str, caller: &str) -> Outcome {
        self.log.push(Recorded { call, subject: subject.to_owned(), caller: caller.to_owned() });
        let mut outcome = Outcome::Succeed;
        for planned in self.planned.iter_mut().filter(|planned| planned.call == call) {
            match &mut planned.countdown {
                None => outcome = planned.outcome.clone(),
                Some(left) => {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        outcome = planned.outcome.clone();
                    }
                }
            }
        }
        self.planned.retain(|planned| planned.countdown != Some(0));
        outcome
    }
}
