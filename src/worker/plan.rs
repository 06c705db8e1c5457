//! What the instructions ask for at this moment, and which of their changes are worth a record.

use serde_json::{Value, json};

use crate::domain::worker::Instructions;

/// The state that the worker should be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Sync, capture, coverage.
    Running,
    /// The Matrix side stands still.
    Suspended,
    /// Drain the inbox, record the deletion, say that the trail is closed.
    Closing,
}

pub(crate) fn mode(instructions: &Instructions) -> Mode {
    if instructions.deleting {
        Mode::Closing
    } else if instructions.suspend {
        Mode::Suspended
    } else {
        Mode::Running
    }
}

/// The part of the instructions that a change record shows.
pub(crate) fn summary(instructions: &Instructions) -> Value {
    json!({
        "displayName": instructions.display_name,
        "suspend": instructions.suspend,
        "suspendCapture": instructions.suspend_capture.as_str(),
        "media": instructions.media.as_ref().map(|media| json!({
            "mode": media.mode.as_str(),
            "maximumBytes": media.maximum_bytes,
            "bucket": media.place,
        })),
        "coveragePaused": instructions.coverage_paused,
        "rooms": instructions.rooms.to_json(),
    })
}
