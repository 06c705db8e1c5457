//! Opens, measures and hashes a content (pure).

use std::{
    collections::VecDeque,
    io::{Error, Read},
};

use bytes::Bytes;
use matrix_sdk::ruma::events::room::EncryptedFile;
use matrix_sdk_crypto::AttachmentDecryptor;
use sha2::{Digest as _, Sha256};

use super::{
    fetch::Content,
    outcome::{Failed, Measured, Miss},
};

const STEP: usize = 64 << 10;

/// A content that was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) measured: Measured,
    /// The bytes themselves, if they are to be kept.
    pub(super) bytes: Vec<u8>,
}

/// Gives every part back to the memory once it is read, so that a content is not there twice.
struct Parts(VecDeque<Bytes>);

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        while self.0.front().is_some_and(Bytes::is_empty) {
            self.0.pop_front();
        }
        let Some(part) = self.0.front_mut() else { return Ok(0) };
        let taken = part.split_to(part.len().min(buffer.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// Decrypts it, if `file` says how, and hashes what comes out. With `keep`, hands that out, too.
pub(super) fn open(content: Content, file: Option<&str>, keep: bool) -> Result<Opened, Failed> {
    let Content { parts, size } = content;
    let mut parts = Parts(parts);
    match file {
        None => measure(&mut parts, size, keep),
        Some(file) => {
            let file: EncryptedFile =
                serde_json::from_str(file).map_err(|_| Failed::Never(Miss::Unreadable))?;
            let mut opened = AttachmentDecryptor::new(&mut parts, file.into())
                .map_err(|_| Failed::Never(Miss::Unreadable))?;
            // What it reads at the end fails if the hash of the ciphertext is not the one in the message.
            measure(&mut opened, size, keep)
        }
    }
}

fn measure(content: &mut impl Read, size: usize, keep: bool) -> Result<Opened, Failed> {
    let mut bytes = Vec::with_capacity(if keep { size } else { 0 });
    let (mut hash, mut length, mut step) = (Sha256::new(), 0_u64, vec![0; STEP]);
    loop {
        let read = content.read(&mut step).map_err(|_| Failed::Perhaps(Miss::Corrupt))?;
        if read == 0 {
            break;
        }
        hash.update(&step[..read]);
        length += read as u64;
        if keep {
            bytes.extend_from_slice(&step[..read]);
        }
    }
    Ok(Opened { measured: Measured { sha256: hash.finalize().into(), size: length }, bytes })
}

#[cfg(test)]
mod tests {
    use matrix_sdk_crypto::AttachmentEncryptor;
    use serde_json::Value;

    use super::*;

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    fn content(bytes: &[u8]) -> Content {
        let parts: VecDeque<Bytes> = bytes.chunks(1000).map(Bytes::copy_from_slice).collect();
        Content { size: bytes.len(), parts }
    }

    fn encrypted(plain: &[u8]) -> (Vec<u8>, Value) {
        let mut reader = plain;
        let mut encryptor = AttachmentEncryptor::new(&mut reader);
        let mut cipher = Vec::new();
        encryptor.read_to_end(&mut cipher).unwrap();
        let mut file = serde_json::to_value(encryptor.finish()).unwrap();
        file["url"] = "mxc://x/y".into();
        (cipher, file)
    }

    #[test]
    fn what_is_encrypted_is_hashed_as_the_sender_had_it() {
        let plain: Vec<u8> = (0..200_001_u32).map(|number| number.to_le_bytes()[0]).collect();
        let (cipher, file) = encrypted(&plain);
        let opened = open(content(&cipher), Some(&file.to_string()), true).unwrap();
        assert_eq!(opened.bytes, plain);
        assert_eq!(opened.measured, Measured { sha256: sha256(&plain), size: 200_001 });
        let only_measured = open(content(&cipher), Some(&file.to_string()), false).unwrap();
        assert_eq!((only_measured.bytes.len(), only_measured.measured), (0, opened.measured));
        let as_it_came = open(content(&plain), None, true).unwrap();
        assert_eq!(as_it_came, opened);
    }

    #[test]
    fn what_was_tampered_with_is_corrupt_and_what_nothing_opens_is_unreadable() {
        let (mut cipher, file) = encrypted(b"the plan");
        cipher[3] ^= 1;
        assert_eq!(
            open(content(&cipher), Some(&file.to_string()), true),
            Err(Failed::Perhaps(Miss::Corrupt))
        );
        cipher.truncate(2);
        assert_eq!(
            open(content(&cipher), Some(&file.to_string()), false),
            Err(Failed::Perhaps(Miss::Corrupt))
        );
        let mut without_hash = file.clone();
        without_hash["hashes"] = serde_json::json!({});
        let mut other_version = file.clone();
        other_version["v"] = "v9".into();
        for broken in [without_hash.to_string(), other_version.to_string(), "{}".into(), "no JSON".into()] {
            assert_eq!(
                open(content(&cipher), Some(&broken), true),
                Err(Failed::Never(Miss::Unreadable)),
                "{broken}"
            );
        }
    }

    #[test]
    fn nothing_is_a_content_too() {
        let opened = open(content(b""), None, true).unwrap();
        assert_eq!(opened.measured, Measured { sha256: sha256(b""), size: 0 });
    }
}
