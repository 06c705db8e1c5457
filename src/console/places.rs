//! How much is taken at the same time, and from whom: a report is held in memory several times over, and whoever proves
//! nothing must not take the place of the API server, nor one of its two sources that of the other.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::{caller::Caller, metrics::Source};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// How long a report waits for a place: people wait for the API server meanwhile.
const WAIT: Duration = Duration::from_secs(1);
/// A small report counts as if it were this long.
const LEAST: usize = 64 * KIB;

/// Places for reports.
pub(super) struct Places {
    /// An object has at most 1.5 MiB in etcd, and a request to change one holds it twice.
    admission: Room,
    /// The API server sends up to 400 events at once.
    audit: Room,
    /// Bots are small; who sends more than this proves first who he is.
    unproven: Room,
    bucket: Bucket,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            admission: Room::new(4 * MIB, 16 * MIB),
            audit: Room::new(16 * MIB, 32 * MIB),
            unproven: Room::new(256 * KIB, 512 * KIB),
            // Room for an installation with hundreds of bots whose API server cannot prove itself.
            bucket: Bucket::new(300, 60),
        }
    }
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Too many reports of those who prove nothing.
    Limited,
    /// Too many reports at this moment.
    Busy,
}

impl Places {
    /// Waits for a place for a report of this length. Returns how long it may be, and the place.
    pub(super) async fn take(
        &self,
        source: Source,
        caller: Caller,
        length: Option<usize>,
    ) -> Result<(usize, SemaphorePermit<'_>), NoPlace> {
        let room = match (caller.is_authenticated(), source) {
            (true, Source::Admission) => &self.admission,
            (true, Source::Audit) => &self.audit,
            (false, _) => &self.unproven,
        };
        if !caller.is_authenticated() && !self.bucket.take() {
            return Err(NoPlace::Limited);
        }
        room.take(length).await.map(|permit| (room.longest, permit)).ok_or(NoPlace::Busy)
    }
}

/// Room for reports of some length together.
struct Room {
    longest: usize,
    left: Semaphore,
}

impl Room {
    fn new(longest: usize, all: usize) -> Self {
        Self { longest, left: Semaphore::new(all / KIB) }
    }

    /// What does not say how long it is may be as long as it can; no more than that is read in any case.
    async fn take(&self, length: Option<usize>) -> Option<SemaphorePermit<'_>> {
        let bytes = length.unwrap_or(self.longest).clamp(LEAST, self.longest);
        let room = u32::try_from(bytes.div_ceil(KIB)).ok()?;
        timeout(WAIT, self.left.acquire_many(room)).await.ok()?.ok()
    }
}

/// Lets so many through a minute, and after some silence so many at once.
struct Bucket {
    most: f64,
    per_minute: f64,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(most: u32, per_minute: u32) -> Self {
        let most = f64::from(most);
        Self { most, per_minute: f64::from(per_minute), state: Mutex::new((most, Instant::now())) }
    }

    fn take(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *state;
        let now = Instant::now();
        let minutes = now.duration_since(since).as_secs_f64() / 60.0;
        let left = (left + minutes * self.per_minute).min(self.most);
        let is_free = left >= 1.0;
        *state = (if is_free { left - 1.0 } else { left }, now);
        is_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_pass_at_once_and_then_so_many_a_minute() {
        let bucket = Bucket::new(3, 60);
        let passed = || std::iter::repeat_with(|| bucket.take()).take_while(|passed| *passed).count();
        assert_eq!(passed(), 3);
        tokio::time::advance(Duration::from_millis(2_500)).await;
        assert_eq!(passed(), 2);
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(passed(), 3, "silence is not saved up for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn who_proves_nothing_and_who_tells_of_the_past_take_no_place_of_a_request() {
        let places = Places::default();
        let take = async |source, caller, length| places.take(source, caller, length).await;
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(take(Source::Admission, Caller::Unknown, Some(256 * KIB)).await.unwrap());
            held.push(take(Source::Audit, Caller::ApiServer, None).await.unwrap());
        }
        let busy = take(Source::Admission, Caller::Unknown, Some(1)).await.map(drop);
        assert_eq!(busy, Err(NoPlace::Busy));
        let busy = take(Source::Audit, Caller::ApiServer, Some(1)).await.map(drop);
        assert_eq!(busy, Err(NoPlace::Busy));
        for _ in 0..4 {
            held.push(take(Source::Admission, Caller::ApiServer, None).await.unwrap());
        }
        held.clear();
        assert!(take(Source::Admission, Caller::Unknown, None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_proves_nothing_is_heard_in_short() {
        let places = Places::default();
        for (caller, longest) in [(Caller::ApiServer, 4 * MIB), (Caller::Unknown, 256 * KIB)] {
            for length in [None, Some(1), Some(usize::MAX)] {
                let (may_be, _place) = places.take(Source::Admission, caller, length).await.unwrap();
                assert_eq!(may_be, longest, "{length:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_of_those_who_prove_nothing_are_turned_away() {
        let places = Places::default();
        let mut passed = 0;
        while places.take(Source::Admission, Caller::Unknown, Some(1)).await.is_ok() {
            passed += 1;
        }
        assert_eq!(passed, 300);
        let refused = places.take(Source::Admission, Caller::Unknown, Some(1)).await.map(drop);
        assert_eq!(refused, Err(NoPlace::Limited));
        assert!(places.take(Source::Admission, Caller::ApiServer, Some(1)).await.is_ok());
    }
}
