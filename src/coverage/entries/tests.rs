//! Schedule and totals, against a count of everything.

mod urgency;

use proptest::prelude::*;

use super::*;
use crate::{
    coverage::{
        carry_out::{Standing, VisitError},
        memory::Memory,
        planner::{Exclusion, Obstacle},
    },
    domain::{UserId, room::RoomState, selection::RoomSelection},
};

fn wishes() -> WishMark {
    RoomSelection::default().mark(&UserId::parse("@auditbot:here.org").unwrap())
}

/// The rooms are listed, and it is known that these may be other than they were.
fn refresh(
    entries: &mut Entries,
    listings: Vec<RoomListing>,
    joined: &HashSet<RoomId>,
    doubted: &HashSet<RoomId>,
    now: Instant,
) {
    let doubts = Doubts { wishes: wishes(), rooms: [doubted, &HashSet::new()] };
    // After all that was seen at that moment.
    let asked_at = now + Duration::from_nanos(1);
    entries.refresh(Listed { rooms: listings, joined: joined.clone(), asked_at }, &doubts, now);
}

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
    Visit {
        state,
        memory,
        acted,
        waits: false,
        standing,
        seen_at: None,
        state_events: None,
        slowest: None,
        error,
    }
}

#[derive(Debug, Clone)]
enum Op {
    List(Vec<(u8, u64)>),
    Hint(u8),
    Joined(u8),
    AllDue,
    Take(usize),
    Visited(u8, State, u32, bool),
    Abandoned(u8),
    Wait(u64),
    Note,
    /// Whether it ends in order.
    Restart(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let state = prop_oneof![
        Just(State::Pending),
        Just(State::Covered),
        Just(State::Limited(Obstacle::NoLocalAdmin)),
        Just(State::Excluded(Exclusion::Denied)),
        Just(State::Blocked(Obstacle::Refused)),
        Just(State::Blocked(Obstacle::NobodyLocal)),
    ];
    prop_oneof![
        prop::collection::vec((0..8_u8, 0..3_u64), 0..8).prop_map(Op::List),
        (0..8_u8).prop_map(Op::Hint),
        (0..8_u8).prop_map(Op::Joined),
        Just(Op::AllDue),
        (0..4_usize).prop_map(Op::Take),
        (0..8_u8, state, 0..2_u32, any::<bool>()).prop_map(|(r, s, a, f)| Op::Visited(r, s, a, f)),
        (0..8_u8).prop_map(Op::Abandoned),
        (0..400_000_u64).prop_map(Op::Wait),
        Just(Op::Note),
        any::<bool>().prop_map(Op::Restart),
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
                    refresh(&mut entries, listings.collect(), &joined.collect(), &HashSet::new(), now);
                }
                Op::Hint(number) => drop(entries.hint(&room(number), number % 2 == 0, now)),
                Op::Joined(number) => drop(entries.joined(&room(number), now)),
                Op::AllDue => entries.all_due(now),
                Op::Take(most) => drop(entries.take_due(now, free(most))),
                Op::Visited(number, state, acted, fails) => {
                    let _ = entries.visited(&room(number), visit(state, acted, fails), now);
                }
                Op::Abandoned(number) => entries.abandoned(&room(number), now),
                Op::Wait(ms) => now += Duration::from_millis(ms),
                Op::Note => write(&mut entries, &mut book),
                Op::Restart(is_graceful) => {
                    if is_graceful {
                        entries.close(wishes(), |_| false, now);
                        while entries.has_changes() {
                            write(&mut entries, &mut book);
                        }
                    }
                    entries = Entries::new(Duration::from_mins(10));
                    entries.remember(book.values().cloned().collect(), is_graceful);
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
            prop_assert_eq!(slots.clone().map(|slot| slot.at).min(), entries.next_due(free(1)));
            let busy = Free { urgent: 1, ordinary: 0 };
            let urgent = slots.filter(|slot| slot.is_urgent);
            prop_assert_eq!(urgent.map(|slot| slot.at).min(), entries.next_due(busy));
            let is_right = |entry: &Entry| (entry.state == State::Pending) == entry.pending_since.is_some();
            prop_assert!(entries.rooms.values().all(is_right));
            let pending = entries.rooms.iter().filter_map(|(room, entry)| Some((entry.pending_since?, room.clone())));
            prop_assert_eq!(&pending.collect::<BTreeSet<_>>(), &entries.pending);
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
    refresh(&mut entries, vec![named(1, "Plans"), named(2, "Choir")], &HashSet::new(), &HashSet::new(), now);
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
    next.remember(first.notes, false);
    for entries in [&mut entries, &mut next] {
        refresh(entries, vec![named(1, "Plans"), named(2, "Choir")], &HashSet::new(), &HashSet::new(), now);
        assert!(!entries.has_changes());
        entries.visited(&room(1), visit(State::Covered, 0, false), now);
        assert!(!entries.has_changes());
        entries.visited(&room(1), visit(State::Blocked(Obstacle::Banned), 0, false), now);
        let blocked =
            (room(1), RoomState::Blocked, Some("banned".to_owned()), at(20), Some("Plans".to_owned()));
        assert_eq!(told(entries.take_changes(at(20))), [blocked]);
        // Another name does not change since when.
        refresh(entries, vec![named(1, "Secrets"), named(2, "Other")], &HashSet::new(), &HashSet::new(), now);
        let renamed =
            (room(1), RoomState::Blocked, Some("banned".to_owned()), at(20), Some("Secrets".to_owned()));
        assert_eq!(told(entries.take_changes(at(30))), [renamed]);
        refresh(entries, vec![named(2, "Other")], &HashSet::new(), &HashSet::new(), now);
        let changes = entries.take_changes(at(40));
        assert_eq!((changes.notes.len(), changes.gone), (0, vec![room(1)]));
    }
}

#[test]
fn rooms_that_are_made_meanwhile_do_not_keep_it_from_having_judged_all() {
    let (mut entries, start) = (Entries::new(Duration::from_mins(10)), Instant::now());
    assert!(!entries.are_judged());
    refresh(&mut entries, vec![listing(1, 1)], &HashSet::new(), &HashSet::new(), start);
    assert!(!entries.are_judged());
    let later = start + Duration::from_secs(1);
    entries.discover(vec![listing(2, 1)], later);
    entries.take_due(later, free(2));
    entries.visited(&room(1), in_it(visit(State::Covered, 0, false)), later);
    assert_eq!((entries.are_judged(), entries.oldest_pending()), (true, Some(later)));
    entries.visited(&room(2), in_it(visit(State::Covered, 0, false)), later);
    assert_eq!((entries.are_judged(), entries.oldest_pending()), (true, None));
}

/// So many visits, to whatever room.
fn free(visits: usize) -> Free {
    Free { urgent: visits, ordinary: visits }
}

#[test]
fn what_the_bot_has_seen_itself_is_no_news() {
    let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    let joined: HashSet<_> = [room(1)].into();
    refresh(&mut entries, vec![listing(1, 5)], &HashSet::new(), &HashSet::new(), now);
    let mut looks = |after: u64, listed: u64, seen: u64| {
        let then = now + Duration::from_secs(after);
        refresh(&mut entries, vec![listing(1, listed)], &joined, &HashSet::new(), then);
        let due = entries.take_due(then, free(1));
        if let [_] = &due[..] {
            let look = visit(State::Covered, u32::from(after == 0), false);
            entries.visited(&room(1), Visit { state_events: Some(seen), ..in_it(look) }, then);
        }
        due.len()
    };
    assert_eq!([looks(0, 5, 9), looks(5, 5, 9), looks(6, 9, 9), looks(7, 10, 10)], [1, 1, 0, 1]);
}

/// What a process notes of a room that it has looked at, if it ends in order.
fn closed(look: Visit) -> Vec<RoomNote> {
    let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    refresh(&mut entries, vec![listing(1, 5)], &[room(1)].into(), &HashSet::new(), now);
    entries.take_due(now, free(1));
    entries.visited(&room(1), look, now);
    entries.close(wishes(), |_| false, now + Duration::from_mins(1));
    entries.take_changes(at(10)).notes
}

fn in_it(look: Visit) -> Visit {
    Visit { standing: Some(Standing { is_joined: true, is_excluded: false }), ..look }
}

/// Whether the next process believes what is noted.
fn is_believed(notes: Vec<RoomNote>, events: u64, is_joined: bool, doubted: &[u8], is_closed: bool) -> bool {
    let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    entries.remember(notes, is_closed);
    let joined = [room(1)].into_iter().filter(|_| is_joined).collect();
    let doubted = doubted.iter().map(|number| room(*number)).collect();
    refresh(&mut entries, vec![listing(1, events)], &joined, &doubted, now);
    let is_pending = entries.totals().pending == 1;
    assert_eq!(entries.take_due(now, free(1)).is_empty(), !is_pending);
    let later = now + Duration::from_mins(10);
    assert_eq!(entries.take_due(later, free(1)).is_empty(), is_pending, "in its time it is looked at");
    !is_pending
}

#[test]
fn only_what_rested_and_is_as_it_was_is_believed() {
    let covered = || in_it(visit(State::Covered, 0, false));
    let notes = || closed(covered());
    assert!(is_believed(notes(), 5, true, &[2], true));
    assert!(!is_believed(notes(), 5, true, &[], false), "the process was killed");
    assert!(!is_believed(notes(), 6, true, &[], true), "something has changed");
    assert!(!is_believed(notes(), 5, false, &[], true), "the bot is out");
    assert!(!is_believed(notes(), 5, true, &[1], true), "something is known of it");
    // It could not be left, or what was tried failed, or something was open.
    let excluded = Standing { is_joined: true, is_excluded: true };
    let others = [
        Visit { standing: Some(excluded), ..covered() },
        in_it(visit(State::Covered, 0, true)),
        in_it(visit(State::Limited(Obstacle::NoLocalAdmin), 0, false)),
        in_it(visit(State::Pending, 1, false)),
        // The look that follows an act had not come yet.
        in_it(visit(State::Covered, 1, false)),
    ];
    for other in others {
        assert!(!is_believed(closed(other), 5, true, &[], true));
    }
}

#[test]
fn what_a_process_only_believed_it_does_not_hand_on() {
    let looked = || in_it(visit(State::Covered, 0, false));
    let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    entries.remember(closed(looked()), true);
    refresh(&mut entries, vec![listing(1, 5)], &[room(1)].into(), &HashSet::new(), now);
    assert_eq!(entries.totals().covered, 1);
    entries.close(wishes(), |_| false, now);
    assert_eq!(entries.take_changes(at(20)).notes[0].rests_as, None);
    entries.take_due(now + Duration::from_mins(10), free(1));
    entries.visited(&room(1), looked(), now);
    entries.close(wishes(), |_| false, now);
    assert!(entries.take_changes(at(30)).notes[0].rests_as.is_some());
}

#[test]
fn what_was_noted_of_a_room_at_rest_is_not_believed_for_ever() {
    let notes = closed(in_it(visit(State::Covered, 0, false)));
    assert!(notes[0].rests_as.is_some());
    for is_listed in [true, false] {
        let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
        entries.remember(notes.clone(), true);
        let listings = if is_listed { vec![listing(1, 5)] } else { Vec::new() };
        refresh(&mut entries, listings, &[room(1)].into(), &HashSet::new(), now);
        entries.hint(&room(1), true, now);
        entries.close(wishes(), |_| false, now);
        let written = entries.take_changes(at(20)).notes;
        assert_eq!(written.iter().map(|note| note.rests_as).collect::<Vec<_>>(), [None], "{is_listed}");
    }
}
