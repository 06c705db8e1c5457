//! SCRAM-SHA-256 verifiers (RFC 5803): what Postgres keeps instead of a password. Computed here,
//! so that no statement, and hence no log of statements, contains a password.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// What Postgres itself uses by default.
const ROUNDS: u32 = 4096;

fn hmac(key: &[u8], data: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length, so the error cannot occur; an all-zero result would only make a
    // verifier that fits no password.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in data {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// HMAC-SHA-256 of one message.
pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    hmac(key, &[message])
}

/// The verifier of a password of printable ASCII (for which `SASLprep` changes nothing).
pub(super) fn verifier(password: &str, salt: [u8; 16]) -> String {
    let password = password.as_bytes();
    let mut block = hmac(password, &[&salt, &1_u32.to_be_bytes()]);
    let mut salted = block;
    for _ in 1..ROUNDS {
        block = hmac(password, &[&block]);
        salted.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    let stored_key = Sha256::digest(hmac(&salted, &[b"Client Key"]));
    let server_key = hmac(&salted, &[b"Server Key"]);
    format!(
        "SCRAM-SHA-256${ROUNDS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifier_is_the_one_that_postgres_computes() {
        // From an independent implementation (Python's hashlib.pbkdf2_hmac) with the salt and the
        // password of RFC 7677, section 3.
        let salt: [u8; 16] = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        assert_eq!(
            verifier("pencil", salt),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }
}
