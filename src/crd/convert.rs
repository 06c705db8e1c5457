//! From the custom resource to the instructions of its worker. The schema has refused nearly
//! everything that can fail here; what is left is what a schema cannot see, and objects that were
//! stored under an older schema.

use std::time::Duration;

use super::{
    annotations,
    audit_options::{BucketSpec, MediaMode, MediaSpec},
    bot::Bot,
    common::{DeletionPolicy, RoomsSpec, SuspendCapture},
};
use crate::domain::{
    IdError, Localpart, RoomId, ServerName, UserId,
    selection::{Leave, RoomSelection},
    trail::TrailPoint,
    worker,
};

/// Compiled size of a pattern, at most: a pattern of 256 characters can ask for gigabytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// An attachment is held in memory as a whole; the schema refuses more.
const MAX_ATTACHMENT: u64 = 128 << 20;

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
    /// A size that is none.
    #[error("{field} must be a quantity above zero, for example 50Mi")]
    Size {
        /// Path of the field.
        field: &'static str,
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
        // The type leaves out what it does not know: whoever has the object as a whole sets it.
        mark: String::new(),
        server_name: ServerName::parse(&*common.homeserver.server_name)
            .map_err(|source| ConvertError::Id { field: "spec.homeserver.serverName", source })?,
        username: Localpart::parse(common.username)
            .map_err(|source| ConvertError::Id { field: "spec.username", source })?,
        display_name: common.display_name.to_owned(),
        rooms: selection(common.rooms)?,
        suspend: common.suspend,
        suspend_capture: common.suspend_capture.into(),
        media: bot.media().map(media).transpose()?,
        coverage_paused: bot.is_annotated(annotations::COVERAGE_PAUSED),
        repair_encryption: bot
            .annotation(annotations::REPAIR_ENCRYPTION)
            .filter(|value| !value.is_empty())
            .map(|value| value.chars().take(MAX_REPAIR_VALUE).collect()),
        log_filter: bot.annotation(annotations::LOG_FILTER).unwrap_or_default().to_owned(),
        deleting: bot.meta().deletion_timestamp.is_some(),
        leaves_rooms: common.deletion_policy != DeletionPolicy::Retain,
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
        leave: if rooms.leave_excluded { Leave::Excluded } else { Leave::Nothing },
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

fn media(spec: &MediaSpec) -> Result<worker::MediaPolicy, ConvertError> {
    let size = bytes(&spec.maximum_size).filter(|size| *size > 0);
    Ok(worker::MediaPolicy {
        mode: match spec.mode {
            MediaMode::Metadata => worker::MediaMode::Metadata,
            MediaMode::Content => worker::MediaMode::Content,
        },
        maximum_bytes: size
            .ok_or(ConvertError::Size { field: "spec.media.maximumSize" })?
            .min(MAX_ATTACHMENT),
        place: spec.bucket.as_ref().map(BucketSpec::place),
    })
}

/// A quantity in bytes, rounded up; `None` if it is none or absurdly big. The schema lets no other pass.
pub fn bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let thousandths: u64 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 || whole.len() > 9 {
        return None;
    }
    let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let unit = 1_000 * 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    u64::try_from((digits * u128::from(thousandths)).div_ceil(unit)).ok()
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
