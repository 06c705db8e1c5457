//! The hash over all envelopes: each one is hashed together with the hash before it, so that the
//! last hash stands for every envelope and their order.

use super::{Digest, envelope::Envelope};

const EMPTY: &[u8] = b"ems-bots/trail/v1/empty";
const LINK: &[u8] = b"ems-bots/trail/v1/link";

/// The hash of a trail without records; its nonce makes it differ from every other trail.
pub fn empty(nonce: &[u8; 16]) -> Digest {
    Digest::of(EMPTY, &[nonce])
}

/// The hash after one more envelope.
pub fn extend(before: Digest, envelope: &Envelope) -> Digest {
    Digest::of(LINK, &[before.as_bytes(), &envelope.encode()])
}

/// Where a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A number is missing, doubled or out of order.
    #[error("record {expected} should follow, record {found} does")]
    Number {
        /// The number that should follow.
        expected: i64,
        /// The number that does.
        found: i64,
    },
    /// The time of recording goes backwards.
    #[error("record {seq} claims to be older than the one before it")]
    Time {
        /// The record.
        seq: i64,
    },
    /// The hash is not the one that was kept.
    #[error("hash after record {size} is not the one that was kept")]
    Hash {
        /// Number of records at that point.
        size: i64,
    },
}

/// Recomputes the chain, envelope by envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verifier {
    size: i64,
    hash: Digest,
    recorded_at: i64,
}

impl Verifier {
    /// Begins after `size` records, whose hash is known to be `hash`.
    pub fn starting_at(size: i64, hash: Digest) -> Self {
        Self { size, hash, recorded_at: i64::MIN }
    }

    /// Takes the next envelope.
    pub fn take(&mut self, envelope: &Envelope) -> Result<(), Broken> {
        let expected = self.size + 1;
        if envelope.seq != expected {
            return Err(Broken::Number { expected, found: envelope.seq });
        }
        if envelope.recorded_at < self.recorded_at {
            return Err(Broken::Time { seq: envelope.seq });
        }
        self.size = expected;
        self.recorded_at = envelope.recorded_at;
        self.hash = extend(self.hash, envelope);
        Ok(())
    }

    /// Compares with a point that was kept.
    pub fn expect(&self, size: i64, hash: Digest) -> Result<(), Broken> {
        if self.size == size && self.hash == hash { Ok(()) } else { Err(Broken::Hash { size }) }
    }

    /// Number of records taken so far, those before the start included.
    pub fn size(&self) -> i64 {
        self.size
    }

    /// The hash after them.
    pub fn hash(&self) -> Digest {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelopes(count: i64) -> Vec<Envelope> {
        (1..=count)
            .map(|seq| Envelope {
                seq,
                epoch: 1,
                recorded_at: seq * 10,
                category: 2,
                commitment: Digest::of(b"test", &[&seq.to_be_bytes()]),
            })
            .collect()
    }

    fn run(envelopes: &[Envelope]) -> Result<Verifier, Broken> {
        let mut verifier = Verifier::starting_at(0, empty(&[7; 16]));
        envelopes.iter().try_for_each(|envelope| verifier.take(envelope))?;
        Ok(verifier)
    }

    #[test]
    fn the_empty_hash_is_the_one_that_the_migration_computes() {
        // sha256('ems-bots/trail/v1/empty'::bytea || uuid_send('00000000-0000-0000-0000-000000000000'))
        let empty = empty(&[0; 16]).to_string();
        assert_eq!(empty, "42884e65c28ac05a053ab683ac053fc9764956ae84dd9e286e6ead00005138e9");
    }

    proptest! {
        #[test]
        fn any_change_is_found(count in 2_i64..40, at in 0_usize..40, kind in 0..5) {
            let good = envelopes(count);
            let kept = run(&good).unwrap();
            let at = at % good.len();
            let mut bad = good.clone();
            match kind {
                0 => bad[at].commitment.0[31] ^= 1,
                1 => bad[at].category ^= 1,
                2 => { bad.remove(at); }
                3 => bad[at].recorded_at += 1,
                _ => { let other = (at + 1) % bad.len(); bad.swap(at, other); }
            }
            let found = run(&bad).and_then(|verifier| verifier.expect(count, kept.hash()));
            prop_assert!(found.is_err());
            prop_assert!(run(&good).unwrap().expect(count, kept.hash()).is_ok());
        }
    }
}
