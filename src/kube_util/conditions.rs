//! Standard conditions (pure).

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Three-valued status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`.
    Unknown,
}

impl State {
    /// As it stands in the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for State {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// The API server refuses longer messages.
const MAX_MESSAGE: usize = 32_768;

/// A condition without a time: [`merge`] gives it one.
pub fn condition(
    type_: &str,
    state: State,
    reason: &str,
    message: &str,
    generation: Option<i64>,
) -> Condition {
    let mut message = message.to_owned();
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|i| message.is_char_boundary(*i)).unwrap_or_default();
        message.truncate(end);
    }
    Condition {
        type_: type_.to_owned(),
        status: state.as_str().to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

/// Finds a condition by its type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition is there and `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// The new conditions, sorted by type; one whose status has not changed keeps the time of its last
/// transition, the others get `now` (in whole seconds, as the API server stores it).
pub fn merge(old: &[Condition], new: Vec<Condition>, now: Timestamp) -> Vec<Condition> {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut merged: Vec<Condition> = new
        .into_iter()
        .map(|mut condition| {
            condition.last_transition_time = find(old, &condition.type_)
                .filter(|old| old.status == condition.status)
                .map_or(Time(now), |old| old.last_transition_time.clone());
            condition
        })
        .collect();
    merged.sort_by(|a, b| a.type_.cmp(&b.type_));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let first = merge(&[], vec![condition("A", State::False, "Waiting", "for x", Some(1))], at(10));
        assert_eq!(first[0].last_transition_time.0, at(10));
        let second = merge(&first, vec![condition("A", State::False, "Broken", "y", Some(2))], at(20));
        assert_eq!(second[0].last_transition_time.0, at(10));
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("Broken", Some(2)));
        let third = merge(&second, vec![condition("A", State::True, "Fine", "", Some(2))], at(30));
        assert_eq!(third[0].last_transition_time.0, at(30));
    }

    #[test]
    fn what_is_not_stated_goes_and_the_order_is_fixed() {
        let old = merge(&[], vec![condition("C", State::True, "R", "", None)], at(1));
        let new =
            vec![condition("B", State::True, "R", "", None), condition("A", State::True, "R", "", None)];
        let types: Vec<_> = merge(&old, new, at(2)).into_iter().map(|c| c.type_).collect();
        assert_eq!(types, ["A", "B"]);
    }

    #[test]
    fn fractions_of_seconds_are_not_kept() {
        let now = Timestamp::from_millisecond(1_234).unwrap();
        assert_eq!(
            merge(&[], vec![condition("A", State::True, "R", "", None)], now)[0].last_transition_time.0,
            at(1)
        );
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let long = "ä".repeat(20_000);
        assert_eq!(condition("A", State::True, "R", &long, None).message.len(), MAX_MESSAGE);
    }
}
