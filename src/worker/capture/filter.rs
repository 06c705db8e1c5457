//! What the worker asks /sync for.

use std::time::Duration;

use matrix_sdk::ruma::{
    api::client::filter::{Filter, FilterDefinition, RoomEventFilter},
    uint,
};

pub(super) const LONG_POLL: Duration = Duration::from_secs(30);

/// What the bot wants of /sync. Synapse sends at most 100 events of a room whatever is asked for.
pub(crate) fn filter() -> FilterDefinition {
    let mut filter = FilterDefinition::with_lazy_loading();
    filter.presence = Filter::ignore_all();
    filter.room.ephemeral = RoomEventFilter::ignore_all();
    filter.room.account_data = RoomEventFilter::ignore_all();
    filter.room.timeline.limit = Some(uint!(100));
    filter.room.timeline.lazy_load_options = filter.room.state.lazy_load_options;
    filter
}
