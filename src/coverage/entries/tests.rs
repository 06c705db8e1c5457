//! Schedule and totals, against a count of everything.

use proptest::prelude::*;

use super::*;
use crate::coverage::planner::{Exclusion, Obstacle};

fn room(number: u8) -> RoomId {
    RoomId::parse(format!("!r{number}:here.org")).unwrap()
}

fn listing(number: u8, state_events: u64) -> RoomListing {
    RoomListing {
        room_id: room(number),
        creator: None,
        joined_local_members: 1,
        joined_members: 1,
        version: None,
        join_rules: None,
        room_type: None,
        encryption: None,
        state_events,
    }
}

fn visit(state: State, acted: u32, fails: bool) -> Visit {
    let error = fails.then_some(VisitError::Log);
    Visit { state, memory: Memory::default(), acted, slowest: Duration::ZERO, error }
}

#[derive(Debug, Clone)]
enum Op {
    List(Vec<(u8, u64)>),
    Hint(u8),
    AllDue,
    Take(usize),
    Visited(u8, State, u32, bool),
    Abandoned(u8),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let state = prop_oneof![
        Just(State::Pending),
        Just(State::Covered),
        Just(State::Limited(Obstacle::NoLocalAdmin)),
        Just(State::Excluded(Exclusion::Denied)),
        Just(State::Blocked(Obstacle::Refused)),
    ];
    prop_oneof![
        prop::collection::vec((0..8_u8, 0..3_u64), 0..8).prop_map(Op::List),
        (0..8_u8).prop_map(Op::Hint),
        Just(Op::AllDue),
        (0..4_usize).prop_map(Op::Take),
        (0..8_u8, state, 0..2_u32, any::<bool>()).prop_map(|(r, s, a, f)| Op::Visited(r, s, a, f)),
        (0..8_u8).prop_map(Op::Abandoned),
        (0..400_000_u64).prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, schedule and totals say what a count of all rooms says.
    #[test]
    fn what_is_kept_up_to_date_is_true(ops in prop::collection::vec(op(), 1..60)) {
        let mut entries = Entries::new(Duration::from_mins(10));
        let mut now = Instant::now();
        for op in ops {
            match op {
                Op::List(rooms) => {
                    let listings = rooms.iter().map(|(number, events)| listing(*number, *events));
                    let joined = rooms.iter().map(|(number, _)| room(*number)).filter(|_| rooms.len() % 2 == 0);
                    entries.refresh(listings.collect(), &joined.collect(), now);
                }
                Op::Hint(number) => drop(entries.hint(&room(number), now)),
                Op::AllDue => entries.all_due(now),
                Op::Take(most) => drop(entries.take_due(now, most)),
                Op::Visited(number, state, acted, fails) => {
                    let _ = entries.visited(&room(number), visit(state, acted, fails), now);
                }
                Op::Abandoned(number) => entries.abandoned(&room(number), now),
                Op::Wait(ms) => now += Duration::from_millis(ms),
            }
            let mut totals = RoomTotals::default();
            for entry in entries.rooms.values() {
                count(&mut totals, entry.state, 1);
            }
            prop_assert_eq!(&totals, entries.totals());
            let ignored = entries.rooms.iter().filter(|(_, entry)| entry.is_ignored());
            let ignored: BTreeSet<RoomId> = ignored.map(|(room, _)| room.clone()).collect();
            prop_assert_eq!(&ignored, &**entries.ignored());
            let slots = entries.rooms.values().filter_map(Entry::slot);
            prop_assert_eq!(slots.clone().count(), entries.schedule.len());
            prop_assert_eq!(slots.map(|slot| slot.at).min(), entries.next_due());
        }
    }
}

#[test]
fn a_new_room_does_not_wait_for_those_that_were_there() {
    let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    entries.refresh((0..5).map(|number| listing(number, 1)).collect(), &HashSet::new(), now);
    entries.refresh((0..6).map(|number| listing(number, 1)).collect(), &HashSet::new(), now);
    assert_eq!(entries.take_due(now, 1), [room(5)]);
}
