//! Schedule and totals, against a count of everything.

use proptest::prelude::*;

use super::*;
use crate::{
    coverage::{
        carry_out::{Standing, VisitError},
        memory::Memory,
        planner::{Exclusion, Obstacle},
    },
    domain::room::RoomState,
};

fn room(number: u8) -> RoomId {
    RoomId::parse(format!("!r{number}:here.org")).unwrap()
}

fn listing(number: u8, state_events: u64) -> RoomListing {
    RoomListing {
        room_id: room(number),
        name: number.is_multiple_of(2).then(|| format!("name {state_events}")),
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
    let memory = Memory { is_greeted: acted > 0, was_functional_member: fails, ..Memory::default() };
    let is_excluded = matches!(state, State::Excluded(_));
    let standing = (!fails).then_some(Standing { is_joined: acted > 0, is_excluded });
    Visit { state, memory, acted, standing, slowest: Duration::ZERO, error }
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
    Note,
    Restart,
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
        Just(Op::Note),
        Just(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, schedule and totals say what a count of all rooms says.
    #[test]
    fn what_is_kept_up_to_date_is_true(ops in prop::collection::vec(op(), 1..60)) {
        let mut entries = Entries::new(Duration::from_mins(10));
        let mut now = Instant::now();
        let mut book = BTreeMap::new();
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
                Op::Note => write(&mut entries, &mut book),
                Op::Restart => {
                    entries = Entries::new(Duration::from_mins(10));
                    entries.remember(book.values().cloned().collect());
                }
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
        // What is written in the end says where every room stands, and of no other room anything.
        write(&mut entries, &mut book);
        let listed: BTreeSet<&RoomId> = entries.rooms.keys().chain(entries.remembered.keys()).collect();
        prop_assert_eq!(book.keys().collect::<BTreeSet<_>>(), listed);
        for (room, entry) in &entries.rooms {
            let note = &book[room];
            let (state, reason) = entry.state.told();
            if state != RoomState::Pending {
                prop_assert_eq!((note.state, note.reason.as_deref()), (state, reason));
            }
            prop_assert_eq!(note.is_greeted, entry.memory.is_greeted);
        }
        prop_assert!(!entries.has_changes());
    }
}

fn write(entries: &mut Entries, book: &mut BTreeMap<RoomId, RoomNote>) {
    let changes = entries.take_changes(Timestamp::UNIX_EPOCH);
    book.retain(|room, _| !changes.gone.contains(room));
    book.extend(changes.notes.into_iter().map(|note| (note.room_id.clone(), note)));
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn named(number: u8, name: &str) -> RoomListing {
    RoomListing { name: Some(name.to_owned()), ..listing(number, 1) }
}

#[test]
fn a_note_is_written_when_something_changes_and_not_before() {
    let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    entries.refresh(vec![named(1, "Plans"), named(2, "Choir")], &HashSet::new(), now);
    for (number, state) in [(1, State::Covered), (2, State::Excluded(Exclusion::Denied))] {
        entries.visited(&room(number), visit(state, 0, false), now);
    }
    let told = |changes: Changes| -> Vec<_> {
        let note = |note: RoomNote| (note.room_id, note.state, note.reason, note.since, note.name);
        changes.notes.into_iter().map(note).collect()
    };
    let covered = (room(1), RoomState::Covered, None, at(10), Some("Plans".to_owned()));
    let denied = (room(2), RoomState::Excluded, Some("denied".to_owned()), at(10), None);
    let first = entries.take_changes(at(10));
    assert_eq!(told(first.clone()), [covered.clone(), denied]);
    assert!(!entries.has_changes());

    // It is looked at again, with the same result; by the next process, too.
    let mut next = Entries::new(Duration::from_mins(10));
    next.remember(first.notes);
    for entries in [&mut entries, &mut next] {
        entries.refresh(vec![named(1, "Plans"), named(2, "Choir")], &HashSet::new(), now);
        assert!(!entries.has_changes());
        entries.visited(&room(1), visit(State::Covered, 0, false), now);
        assert!(!entries.has_changes());
        entries.visited(&room(1), visit(State::Blocked(Obstacle::Banned), 0, false), now);
        let blocked =
            (room(1), RoomState::Blocked, Some("banned".to_owned()), at(20), Some("Plans".to_owned()));
        assert_eq!(told(entries.take_changes(at(20))), [blocked]);
        // Another name does not change since when.
        entries.refresh(vec![named(1, "Secrets"), named(2, "Other")], &HashSet::new(), now);
        let renamed =
            (room(1), RoomState::Blocked, Some("banned".to_owned()), at(20), Some("Secrets".to_owned()));
        assert_eq!(told(entries.take_changes(at(30))), [renamed]);
        entries.refresh(vec![named(2, "Other")], &HashSet::new(), now);
        let changes = entries.take_changes(at(40));
        assert_eq!((changes.notes.len(), changes.gone), (0, vec![room(1)]));
    }
}

#[test]
fn a_new_room_does_not_wait_for_those_that_were_there() {
    let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    entries.refresh((0..5).map(|number| listing(number, 1)).collect(), &HashSet::new(), now);
    entries.refresh((0..6).map(|number| listing(number, 1)).collect(), &HashSet::new(), now);
    assert_eq!(entries.take_due(now, 1), [room(5)]);
}
