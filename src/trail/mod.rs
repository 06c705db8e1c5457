//! The log itself, pure: how a record becomes bytes, what of it is proven, and how a sequence of
//! proven envelopes is checked. Usable without a database.
//!
//! - [`content`]: a record as bytes, lossless and with exactly one encoding;
//! - [`envelope`]: what is proven of a record without showing any of it;
//! - [`chain`]: the hash over all envelopes, and its verification.

pub mod chain;
mod codec;
pub mod content;
pub mod envelope;
pub mod json;

pub use codec::DecodeError;

use sha2::{Digest as _, Sha256};

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The hash of a domain tag and these parts, one after the other. Callers give parts of fixed
    /// length, or a last one of any length, so that no two inputs run into each other.
    pub fn of(tag: &[u8], parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new_with_prefix(tag);
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// From exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
