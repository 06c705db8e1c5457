//! Rooms of whose conversation a part is still to be read. What the trail has of them is not all there was:
//! between two of its records there may be an edit that nobody has told yet.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The parts are read from their newer ends, so that what was recorded since such a part was found is newer than
/// what is left of it.
#[derive(Clone, Default)]
pub(crate) struct Unread {
    /// Size of the trail when a room's part was found; nothing before they are known.
    rooms: Arc<Mutex<Option<BTreeMap<String, i64>>>>,
}

impl Unread {
    fn rooms(&self) -> MutexGuard<'_, Option<BTreeMap<String, i64>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These rooms, one for each part, are known to have one, and no other room has.
    pub(crate) fn begin<'a>(&self, rooms: impl Iterator<Item = &'a str>, size: Option<i64>) {
        *self.rooms() = Some(BTreeMap::new());
        for room in rooms {
            self.found(room, size);
        }
    }

    /// Sync has left out a part of a room; the trail has this size. Without one nothing that is recorded counts as newer
    /// than what is left until all is read.
    pub(crate) fn found(&self, room: &str, size: Option<i64>) {
        if let Some(rooms) = self.rooms().as_mut() {
            // What is read of the older one of two parts is recorded after the newer one was found.
            let since = if rooms.contains_key(room) { None } else { size };
            rooms.insert(room.to_owned(), since.unwrap_or(i64::MAX));
        }
    }

    /// Nothing of the room is left to be read.
    pub(crate) fn end(&self, room: &str) {
        if let Some(rooms) = self.rooms().as_mut() {
            rooms.remove(room);
        }
    }

    /// The number of a record: what newer ones say of a room is newer than all that is still to be read of it. 0
    /// if that is nothing.
    pub(crate) fn since(&self, room: &str) -> i64 {
        self.rooms().as_ref().map_or(i64::MAX, |rooms| rooms.get(room).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_whole_when_all_its_parts_are_read() {
        let unread = Unread::default();
        assert_eq!(unread.since("!a"), i64::MAX, "nobody knows yet");
        unread.begin(["!a", "!b", "!b"].into_iter(), Some(7));
        assert_eq!(["!a", "!b", "!c"].map(|room| unread.since(room)), [7, i64::MAX, 0]);
        unread.found("!c", Some(9));
        assert_eq!(unread.since("!c"), 9);
        unread.found("!c", Some(11));
        assert_eq!(unread.since("!c"), i64::MAX, "the older part is recorded after the newer one was found");
        unread.end("!c");
        assert_eq!(unread.since("!c"), 0);
        unread.found("!c", None);
        assert_eq!(unread.since("!c"), i64::MAX, "the trail is not open yet");
    }
}
