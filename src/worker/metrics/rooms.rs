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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn they_show_states_pace_and_the_time_that_is_left() {
        let registry = Registry::new();
        let rooms = Rooms::new(&registry).unwrap();
        let shown = |name: &str| {
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        let mut totals = RoomTotals {
            covered: 5,
            pending: 40,
            limited: BTreeMap::from([("no_local_admin", 1), ("not_enough_power", 2)]),
            pace: Some(Pace { per_minute: 120, remaining_seconds: 20 }),
            ..RoomTotals::default()
        };
        rooms.set(&totals);
        for (state, count) in [("covered", "5"), ("pending", "40"), ("limited", "3"), ("blocked", "0")] {
            assert_eq!(shown(&format!("ems_bots_worker_rooms{{state=\"{state}\"}}")), count);
        }
        assert_eq!(shown("ems_bots_worker_rooms_settled_per_minute"), "120");
        assert_eq!(shown("ems_bots_worker_rooms_remaining_seconds"), "20");
        totals.pace = None;
        rooms.set(&totals);
        assert_eq!(shown("ems_bots_worker_rooms_settled_per_minute"), "0");
        assert_eq!(shown("ems_bots_worker_rooms_remaining_seconds"), "0");
    }
}
