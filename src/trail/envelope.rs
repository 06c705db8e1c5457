//! What is proven of a record: number, epoch, time of recording, category, and a commitment to
//! its content that tells nothing about it.

use jiff::Timestamp;

use super::{Digest, codec::Writer};
use crate::domain::record::Category;

/// Random bytes that make a commitment unguessable; erased together with the content.
pub type Salt = [u8; 32];

const VERSION: u8 = 1;
const COMMITMENT: &[u8] = b"ems-bots/trail/v1/content";

/// Commits to a content. Without the salt not even a guess can be confirmed.
pub fn commitment(salt: &Salt, content: &[u8]) -> Digest {
    Digest::of(COMMITMENT, &[salt, content])
}

/// The number by which a category stands in envelopes and tables.
pub fn category_number(category: Category) -> u8 {
    match category {
        Category::ResourceChange => 1,
        Category::UserActivity => 2,
        Category::SystemChange => 3,
        Category::AccessEvent => 4,
        Category::AdminOperation => 5,
    }
}

/// The inverse of [`category_number`].
pub fn category_from_number(number: i64) -> Option<Category> {
    Category::ALL.into_iter().find(|category| i64::from(category_number(*category)) == number)
}

/// Time as the database keeps it: whole microseconds.
pub fn whole_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// What is proven of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Number of the record, dense, from 1.
    pub seq: i64,
    /// Epoch in which it was recorded.
    pub epoch: i64,
    /// When, in microseconds since 1970.
    pub recorded_at: i64,
    /// Category, by its number.
    pub category: u8,
    /// See [`commitment`].
    pub commitment: Digest,
}

impl Envelope {
    /// The bytes that are hashed; always the same number of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_version(VERSION);
        writer.i64(self.seq);
        writer.i64(self.epoch);
        writer.i64(self.recorded_at);
        writer.byte(self.category);
        let mut bytes = writer.finish();
        bytes.extend_from_slice(self.commitment.as_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn category_numbers_are_fixed_for_ever() {
        for (index, category) in Category::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(category_number(category)), index + 1);
            assert_eq!(category_from_number(i64::try_from(index).unwrap() + 1), Some(category));
        }
        assert_eq!(category_from_number(0), None);
    }

    #[test]
    fn the_same_content_with_another_salt_has_another_commitment() {
        assert_ne!(commitment(&[1; 32], b"yes"), commitment(&[2; 32], b"yes"));
        assert_ne!(commitment(&[1; 32], b"yes"), commitment(&[1; 32], b"no"));
    }

    #[test]
    fn every_field_reaches_the_encoding() {
        let envelope =
            Envelope { seq: 1, epoch: 1, recorded_at: 1, category: 1, commitment: Digest([0; 32]) };
        let others = [
            Envelope { seq: 2, ..envelope },
            Envelope { epoch: 2, ..envelope },
            Envelope { recorded_at: 2, ..envelope },
            Envelope { category: 2, ..envelope },
            Envelope { commitment: Digest([1; 32]), ..envelope },
        ];
        for other in others {
            assert_ne!(other.encode(), envelope.encode());
        }
    }
}
