//! Rooms of the server, and how fast they are settled.

use prometheus::{IntGauge, IntGaugeVec, Registry};

use super::{gauges, level};
use crate::domain::worker::{Pace, RoomTotals};

#[derive(Debug)]
pub(super) struct Rooms {
    by_state: IntGaugeVec,
    per_minute: IntGauge,
    remaining: IntGauge,
}

impl Rooms {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            by_state: gauges(registry, "ems_bots_worker_rooms", "Rooms of the server by state.", "state")?,
            per_minute: level(
                registry,
                "ems_bots_worker_rooms_settled_per_minute",
                "Rooms that were settled in the last minute while others are pending.",
            )?,
            remaining: level(
                registry,
                "ems_bots_worker_rooms_remaining_seconds",
                "Time until no room is pending at this pace.",
            )?,
        })
    }

    pub(super) fn set(&self, rooms: &RoomTotals) {
        let of = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (state, count) in [
            ("covered", rooms.covered),
            ("limited", rooms.limited.values().sum()),
            ("pending", rooms.pending),
            ("excluded", rooms.excluded.values().sum()),
            ("blocked", rooms.blocked.values().sum()),
        ] {
            self.by_state.with_label_values(&[state]).set(of(count));
        }
        let pace = rooms.pace.unwrap_or(Pace { per_minute: 0, remaining_seconds: 0 });
        self.per_minute.set(of(pace.per_minute));
        self.remaining.set(of(pace.remaining_seconds));
    }
}
