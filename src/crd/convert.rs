//! From the custom resource to the instructions of its worker. The schema has refused nearly
//! everything that can fail here; what is left is what a schema cannot see, and objects that were
//! stored under an older schema.

use std::time::Duration;

use super::{
    annotations,
    bot::Bot,
    common::{RoomsSpec, SuspendCapture},
};
use crate::domain::{
    IdError, Localpart, RoomId, ServerName, UserId, selection::RoomSelection, trail::TrailPoint, worker,
};

/// Compiled size of a pattern, at most: a pattern of 256 characters can ask for gigabytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Characters of an annotation that are told apart: it goes into a record and is remembered.
const MAX_REPAIR_VALUE: usize = 100;

/// Why a field cannot be acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// An identifier that is none.
    #[error("{field} is not usable")]
    Id {
        /// Path of the field.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: IdError,
    },
    /// A pattern that cannot be compiled, or only into something huge.
    #[error("{field} is not a regular expression that can be used: {problem}")]
    Pattern {
        /// Path of the field.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A span of time that is none.
    #[error("{field} must be a whole number followed by s, m, h or d, for example 90d")]
    Duration {
        /// Path of the field.
        field: &'static str,
    },
}

/// The wishes of a bot's custom resource as its worker carries them out. `kept` is the point in
/// the ConfigMap that outlives the custom resource; the further of it and the status is promised.
///
/// # Errors
/// Names the first field that cannot be acted on.
pub fn instructions<B: Bot>(bot: &B, kept: Option<TrailPoint>) -> Result<worker::Instructions, ConvertError> {
    let common = bot.common();
    let reported = bot.status().and_then(|status| status.trail.as_ref()).map(super::TrailStatus::point);
    Ok(worker::Instructions {
        uid: bot.meta().uid.clone().unwrap_or_default(),
        generation: bot.meta().generation.unwrap_or_default(),
        server_name: ServerName::parse(&*common.homeserver.server_name)
            .map_err(|source| ConvertError::Id { field: "spec.homeserver.serverName", source })?,
        username: Localpart::parse(common.username)
            .map_err(|source| ConvertError::Id { field: "spec.username", source })?,
        display_name: common.display_name.to_owned(),
        rooms: selection(common.rooms)?,
        suspend: common.suspend,
        suspend_capture: common.suspend_capture.into(),
        coverage_paused: bot.is_annotated(annotations::COVERAGE_PAUSED),
        repair_encryption: bot
            .annotation(annotations::REPAIR_ENCRYPTION)
            .filter(|value| !value.is_empty())
            .map(|value| value.chars().take(MAX_REPAIR_VALUE).collect()),
        log_filter: bot.annotation(annotations::LOG_FILTER).unwrap_or_default().to_owned(),
        deleting: bot.meta().deletion_timestamp.is_some(),
        promised: further(reported, kept),
    })
}

/// The room selection, parsed.
///
/// # Errors
/// Names the first field that cannot be acted on.
pub fn selection(rooms: &RoomsSpec) -> Result<RoomSelection, ConvertError> {
    Ok(RoomSelection {
        direct_messages: rooms.direct_messages,
        local_only: rooms.local_only,
        deny: parse_all(&rooms.deny, "spec.rooms.deny", RoomId::parse)?,
        only: parse_all(&rooms.only, "spec.rooms.only", RoomId::parse)?,
        exclude_users: parse_all(&rooms.exclude_users, "spec.rooms.excludeUsers", UserId::parse)?,
        exclude_spaces: parse_all(&rooms.exclude_spaces, "spec.rooms.excludeSpaces", RoomId::parse)?,
        creator_pattern: rooms
            .creator_pattern
            .as_deref()
            .map(|text| pattern("spec.rooms.creatorPattern", text))
            .transpose()?,
        minimum_last_active: rooms
            .minimum_last_active
            .as_deref()
            .map(|text| {
                duration(text).ok_or(ConvertError::Duration { field: "spec.rooms.minimumLastActive" })
            })
            .transpose()?,
        notice: rooms.notice.clone(),
    })
}

/// A whole number followed by `s`, `m`, `h` or `d`.
pub fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    (number > 0).then_some(())?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

fn parse_all<T>(
    texts: &[String],
    field: &'static str,
    parse: impl Fn(String) -> Result<T, IdError>,
) -> Result<Vec<T>, ConvertError> {
    texts
        .iter()
        .map(|text| parse(text.clone()).map_err(|source| ConvertError::Id { field, source }))
        .collect()
}

fn pattern(field: &'static str, text: &str) -> Result<regex::Regex, ConvertError> {
    regex::RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build().map_err(|error| {
        let problem = match error {
            regex::Error::CompiledTooBig(_) => "it is too large when compiled".to_owned(),
            // The parser draws the pattern over several lines; the last one says what is wrong.
            other => other.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        };
        ConvertError::Pattern { field, problem }
    })
}

fn further(one: Option<TrailPoint>, other: Option<TrailPoint>) -> Option<TrailPoint> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(if (other.epoch, other.size) > (one.epoch, one.size) { other } else { one })
        }
        (one, other) => one.or(other),
    }
}

impl From<SuspendCapture> for worker::SuspendCapture {
    fn from(value: SuspendCapture) -> Self {
        match value {
            SuspendCapture::Skip => Self::Skip,
            SuspendCapture::CatchUp => Self::CatchUp,
        }
    }
}
