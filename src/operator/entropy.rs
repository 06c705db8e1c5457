//! Random secrets, from a source that tests replace.

use rand::TryRng as _;
use secrecy::SecretString;

use super::error::Error;

/// Source of randomness that is fit for secrets.
pub trait Entropy: Send + Sync {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), Error>;
}

/// The operating system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), Error> {
        rand::rngs::SysRng.try_fill_bytes(buffer).map_err(|_| Error::Entropy)
    }
}

/// Letters and digits that nobody mistakes for one another when copying them by hand.
const ALPHABET: &[u8] = b"23456789abcdefghjkmnpqrstuvwxyz";

/// A random text of `length` characters; each carries nearly five bits.
pub fn text(entropy: &dyn Entropy, length: usize) -> Result<String, Error> {
    let mut text = String::with_capacity(length);
    let mut buffer = [0_u8; 64];
    while text.len() < length {
        entropy.fill(&mut buffer)?;
        // Bytes beyond the largest multiple of the alphabet's size would make some letters likelier.
        let fair = 256 - 256 % ALPHABET.len();
        let letters = buffer.iter().map(|b| usize::from(*b)).filter(|b| *b < fair);
        text.extend(letters.map(|b| char::from(ALPHABET[b % ALPHABET.len()])).take(length - text.len()));
    }
    Ok(text)
}

/// A password that only programs type.
pub fn password(entropy: &dyn Entropy) -> Result<SecretString, Error> {
    text(entropy, 40).map(SecretString::from)
}

/// A Secure Backup Phrase: seven groups of four, 138 bits, for people to type.
pub fn phrase(entropy: &dyn Entropy) -> Result<SecretString, Error> {
    let letters = text(entropy, 28)?;
    let groups: Vec<&str> = (0..7).map(|i| &letters[i * 4..i * 4 + 4]).collect();
    Ok(SecretString::from(groups.join("-")))
}

/// A number from 0 to 1 for delays. Not secret.
pub fn jitter(entropy: &dyn Entropy) -> f64 {
    let mut byte = [0_u8; 1];
    entropy.fill(&mut byte).map_or(0.5, |()| f64::from(byte[0]) / 255.0)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn phrases_are_long_distinct_and_typable() {
        let (one, other) = (phrase(&SystemEntropy).unwrap(), phrase(&SystemEntropy).unwrap());
        assert_eq!(one.expose_secret().len(), 34);
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert!(one.expose_secret().bytes().all(|b| b == b'-' || ALPHABET.contains(&b)));
    }

    #[test]
    fn no_letter_is_likelier_than_another() {
        struct Counting;
        impl Entropy for Counting {
            fn fill(&self, buffer: &mut [u8]) -> Result<(), Error> {
                for (i, byte) in buffer.iter_mut().enumerate() {
                    *byte = u8::try_from(i + 192).unwrap_or(255);
                }
                Ok(())
            }
        }
        // 248 to 255 would be the first eight letters once more.
        let letters = text(&Counting, 56).unwrap();
        let once: Vec<char> = letters.chars().collect();
        assert_eq!(once.iter().filter(|c| **c == char::from(ALPHABET[0])).count(), 1);
    }
}
