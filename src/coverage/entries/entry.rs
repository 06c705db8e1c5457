//! What the runner remembers of one room.

mod noted;

use tokio::time::{Duration, Instant};

pub(super) use self::noted::Belief;
use self::noted::{End, Noted};
use crate::{
    coverage::{
        carry_out::{Standing, State, Visit, VisitError},
        memory::Memory,
        planner::Obstacle,
        schedule::Slot,
    },
    homeserver::{HomeserverError, RoomListing},
};

const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_mins(10);
/// Making a room takes a busy homeserver a few seconds: a new one that looks unfinished is looked at again so many times, before
/// others, until it counts as blocked and the delay grows.
const QUICK_LOOKS: u32 = 12;
/// So often in a row a room may refuse a step until it counts as blocked: of two bots that ask for power at the same moment,
/// Synapse refuses one, since what it would write takes the other's power away.
const REFUSALS: u32 = 3;
/// A visit that fails more often than this in a row is nothing that somebody waits for.
const URGENT_FAILURES: u32 = 5;
/// After acting, a room is looked at again: two bots that act at the same moment can undo each
/// other's power or mark, and neither is told.
const SETTLING: Duration = Duration::from_secs(5);
/// So many repairs of a room within [`LONGEST_DELAY`] are made at once; further ones wait.
const FREE_REPAIRS: u32 = 5;

/// Whether a room wants a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Want {
    /// Only as all rooms do now and then.
    #[default]
    Nothing,
    /// Something about it has changed, or a visit has to be repeated.
    Visit,
    /// Somebody is waiting for it: it was made just now, or something happened in it.
    VisitFirst,
}

/// A visit that has not ended yet.
#[derive(Debug, Default)]
struct UnderWay {
    /// What it is wanted for.
    wanted: Want,
    /// Somebody joined as the bot since it began: the visit, or a person.
    has_joined: bool,
}

/// One room.
#[derive(Debug)]
pub(in crate::coverage) struct Entry {
    pub listing: RoomListing,
    /// Where the bot is, as it was last listed or seen.
    pub standing: Standing,
    /// When a look began that showed where the bot is.
    seen_at: Option<Instant>,
    /// How many state events it had when it was last looked at: when the list says so, too, that is nothing new.
    seen_state_events: Option<u64>,
    pub memory: Memory,
    pub state: State,
    /// How often it may still be found unfinished before that is more than its being made. None, unless it is new.
    quick_looks: u32,
    /// Since when it is [`State::Pending`], if it is.
    pub pending_since: Option<Instant>,
    under_way: Option<UnderWay>,
    want: Want,
    not_before: Instant,
    recheck_at: Instant,
    failures: u32,
    repairs: u32,
    repaired_at: Instant,
    noted: Option<Noted>,
    /// What an earlier process noted is believed; nobody has looked since.
    is_believed: bool,
    end: End,
    /// The book has another name for it.
    is_renamed: bool,
}

fn delay(failures: u32) -> Duration {
    FIRST_DELAY.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_DELAY)
}

impl Entry {
    /// `is_new`: it was not there when the rooms were listed before.
    pub(super) fn new(listing: RoomListing, is_joined: bool, is_new: bool, now: Instant) -> Self {
        Self {
            listing,
            standing: Standing { is_joined, is_excluded: false },
            seen_at: None,
            seen_state_events: None,
            memory: Memory::default(),
            state: State::Pending,
            quick_looks: if is_new { QUICK_LOOKS } else { 0 },
            pending_since: Some(now),
            under_way: None,
            want: if is_new { Want::VisitFirst } else { Want::Visit },
            not_before: now,
            recheck_at: now,
            failures: 0,
            repairs: 0,
            repaired_at: now,
            noted: None,
            is_believed: false,
            end: End::Open,
            is_renamed: false,
        }
    }

    /// How often it was looked at since it was made, if that was a moment ago.
    pub(in crate::coverage) fn new_for(&self) -> Option<u32> {
        (self.quick_looks > 0).then(|| QUICK_LOOKS.saturating_sub(self.quick_looks))
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.under_way.is_some()
    }

    /// Something happened in it; whether somebody waits for it.
    pub(super) fn hinted(&mut self, is_urgent: bool, now: Instant) {
        self.want = self.want.max(if is_urgent { Want::VisitFirst } else { Want::Visit });
        self.memory.start_afresh();
        self.not_before = self.not_before.min(now + delay(self.repairs.saturating_sub(FREE_REPAIRS)));
    }

    /// The bot is in it: news, unless that is known or what the visit under way brings about.
    pub(super) fn joined(&mut self, now: Instant) {
        match &mut self.under_way {
            Some(visit) => visit.has_joined = true,
            None if self.standing.is_joined => {}
            None => self.hinted(true, now),
        }
    }

    /// What is wished of it may have changed.
    pub(super) fn wished(&mut self, now: Instant) {
        self.want = self.want.max(Want::Visit);
        self.failures = 0;
        self.memory.start_afresh();
        self.not_before = now;
    }

    /// A visit begins.
    pub(super) fn taken(&mut self) {
        if self.want == Want::Nothing {
            // A look without an occasion starts afresh.
            self.memory.repeated = None;
        }
        let wanted = std::mem::replace(&mut self.want, Want::Nothing);
        self.under_way = Some(UnderWay { wanted, has_joined: false });
    }

    /// A visit ended without a result.
    pub(super) fn abandoned(&mut self, now: Instant) {
        let UnderWay { wanted, has_joined } = self.under_way.take().unwrap_or_default();
        self.want = self.want.max(self.want_again(wanted));
        self.failures += 1;
        self.not_before = now + delay(self.failures);
        if has_joined {
            self.hinted(true, now);
        }
    }

    pub(super) fn is_ignored(&self) -> bool {
        self.standing.is_joined && self.standing.is_excluded
    }

    /// When it is next, unless it is being visited.
    pub(super) fn slot(&self) -> Option<Slot> {
        let rests = self.want == Want::Nothing;
        let at = if rests { self.recheck_at.max(self.not_before) } else { self.not_before };
        (!self.is_in_flight()).then_some(Slot { at, is_urgent: self.want == Want::VisitFirst })
    }

    pub(super) fn was_seen_since(&self, at: Instant) -> bool {
        self.seen_at.is_some_and(|seen| seen >= at)
    }

    pub(super) fn renew(&mut self, listing: RoomListing, is_joined: bool, now: Instant) {
        let has_news = listing.state_events != self.listing.state_events
            && Some(listing.state_events) != self.seen_state_events;
        let changed = has_news
            || listing.join_rules != self.listing.join_rules
            || is_joined != self.standing.is_joined
            || (self.state != State::Covered
                && listing.joined_local_members != self.listing.joined_local_members);
        let is_new = self.listing.is_empty() && !listing.is_empty() && self.state != State::Covered;
        let had_name = self.name().is_some();
        let has_other = listing.name != self.listing.name;
        self.listing = listing;
        self.is_renamed |= has_other && (had_name || self.name().is_some());
        self.standing.is_joined = is_joined;
        if self.state == State::Covered && !is_joined {
            (self.state, self.pending_since) = (State::Pending, Some(now));
        }
        if is_new {
            // It was being made when it was listed before.
            (self.quick_looks, self.want) = (QUICK_LOOKS, Want::VisitFirst);
        }
        if changed {
            self.want = self.want.max(Want::Visit);
            // What failed before may go now; what is being fought over still waits.
            if self.repairs <= FREE_REPAIRS && !matches!(self.state, State::Pending) {
                self.not_before = self.not_before.min(now);
            }
        }
    }

    pub(super) fn visited(&mut self, visit: Visit, now: Instant, recheck: Duration) {
        let UnderWay { wanted, has_joined } = self.under_way.take().unwrap_or_default();
        self.is_believed = false;
        self.memory = visit.memory;
        let is_being_made = self.new_for().is_some() && (visit.waits || is_unfinished(visit.state));
        let is_contested = visit.state == State::Blocked(Obstacle::Refused) && self.failures < REFUSALS;
        // A visit that could look and then failed has seen that something is to be done.
        let is_judged = visit.error.is_none() || matches!(visit.state, State::Blocked(_));
        if is_being_made {
            self.state = State::Pending;
            self.quick_looks -= 1;
        } else if is_contested {
            self.state = State::Pending;
        } else if is_judged {
            self.state = visit.state;
            self.quick_looks = 0;
        } else if visit.standing.is_some() {
            self.state = State::Pending;
        }
        let is_pending = self.state == State::Pending;
        self.pending_since = is_pending.then(|| self.pending_since.unwrap_or(now));
        self.seen_state_events = visit.state_events.or(self.seen_state_events);
        if let Some(standing) = visit.standing {
            self.standing = standing;
        }
        self.seen_at = visit.seen_at.or(self.seen_at);
        if visit.acted > 0 && visit.error.is_none() {
            let recent = now.duration_since(self.repaired_at) < LONGEST_DELAY;
            self.repairs = if recent { self.repairs + 1 } else { 1 };
            self.repaired_at = now;
        }
        self.not_before = now + delay(self.repairs).saturating_sub(delay(FREE_REPAIRS));
        let settled_at = self.repaired_at + SETTLING;
        let is_unsettled = self.repairs > 0 && settled_at > now;
        self.recheck_at = (now + recheck).min(if is_unsettled { settled_at } else { now + recheck });
        let again = match (&visit.error, self.state) {
            (Some(error), _) => Some((self.want_again(wanted), wait(error, self.failures))),
            // Soon it will be finished, and somebody waits for the bot.
            (None, _) if is_being_made => Some((Want::VisitFirst, FIRST_DELAY)),
            (None, State::Blocked(Obstacle::PowerLevelsMissing)) => Some((Want::Visit, delay(self.failures))),
            (None, State::Pending) if visit.acted > 0 => Some((Want::Visit, delay(self.failures))),
            (None, _) => None,
        };
        self.failures = if again.is_none() || is_being_made { 0 } else { self.failures + 1 };
        if let Some((want, wait)) = again {
            self.want = self.want.max(want);
            self.not_before = self.not_before.max(now + wait);
        }
        if has_joined && !self.standing.is_joined {
            self.hinted(true, now);
        }
    }

    /// What a visit that failed is wanted for again: nobody waits for what fails again and again.
    fn want_again(&self, wanted: Want) -> Want {
        let is_hopeless = self.failures >= URGENT_FAILURES || matches!(self.state, State::Blocked(_));
        if is_hopeless { Want::Visit } else { wanted.max(Want::Visit) }
    }
}

/// Whether a room looks so while it is being made: nobody has joined it yet, or it has no power levels yet.
fn is_unfinished(state: State) -> bool {
    matches!(state, State::Blocked(Obstacle::PowerLevelsMissing | Obstacle::NobodyLocal))
}

/// `failures`: before this one.
fn wait(error: &VisitError, failures: u32) -> Duration {
    match error {
        VisitError::Homeserver(HomeserverError::RateLimited { retry_after: Some(after), .. }) => {
            (*after).min(LONGEST_DELAY)
        }
        _ => delay(failures),
    }
}
