//! What was refused. It changed nothing, and anybody can ask for as much of it as he likes: with other names, from
//! other addresses, thousands of times. So it is one record an hour of each user, what he asked for, and the answer.
//! Nothing else is in that record, so that it is the same message however often it is made.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    Event, ObjectRef, Target,
    topic::{PROCESSES, Topic},
};
use crate::{
    console::estate::Estate,
    domain::{
        record::{Occurred, RecordDraft},
        vocabulary::AUDIT_SOURCES,
    },
    trail::content,
};

const HOUR: i64 = 3_600;
/// Who did not say who he is.
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Whether nobody knows who asked: that is counted, and no record.
pub(super) fn is_anonymous(event: &Event) -> bool {
    let mut groups = event.user.groups.iter().flatten();
    event.user.name() == ANONYMOUS || groups.any(|group| group == UNAUTHENTICATED)
}

/// Whether a refusal is about something that is there. The name of a bot that is none would wait for ever.
pub(super) fn is_about_something(topic: &Topic, estate: &Estate) -> bool {
    match &topic.target {
        Target::Bot(bot) => estate.knows(bot),
        Target::Everybody => true,
    }
}

/// The object, with its name if that is one of a few.
pub(super) fn coarse(object: &ObjectRef, estate: &Estate) -> ObjectRef {
    let name = object.name.clone().filter(|name| is_one_of_a_few(object, name, estate));
    ObjectRef { name, uid: None, ..object.clone() }
}

fn is_one_of_a_few(object: &ObjectRef, name: &str, estate: &Estate) -> bool {
    let place = &estate.place;
    let is_beside_us = object.namespace() == place.namespace;
    if PROCESSES.contains(&name) {
        return true;
    }
    match object.resource() {
        // Those of the worker's admin accounts end in a part of a UID.
        "secrets" if name.rsplit_once("-admin-").is_some_and(|(_, rest)| rest.len() == 8) => false,
        "secrets" if is_beside_us => place.secrets.contains(name),
        "secrets" => !estate.owners_of_secret(object.namespace(), name).is_empty(),
        "serviceaccounts" if is_beside_us => place.operator == name || place.console == name,
        "adminbots" | "auditbots" => estate.of(object.namespace()).any(|bot| bot.name.name == name),
        _ => !estate.owners_of_child(object.namespace(), name).is_empty(),
    }
}

/// The record of the hour in which the API server got the request.
pub(super) fn of_the_hour(draft: RecordDraft, received: Timestamp) -> RecordDraft {
    let start = received.as_second().div_euclid(HOUR) * HOUR * 1_000;
    let occurred = Occurred::Between(start, start + HOUR * 1_000);
    let mut draft = RecordDraft { occurred, source_id: String::new(), ..draft };
    // It is known by all that it says.
    let mark = hex::encode(Sha256::digest(content::encode(&draft)));
    draft.source_id = format!("{}{mark}", AUDIT_SOURCES[1]);
    draft
}
