//! Whether a report comes from the API server.

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// Who reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Whoever has what only the API server was given: a client certificate or a token.
    ApiServer,
    /// Anybody. What he says is recorded as just that.
    Unknown,
}

impl Caller {
    /// Whether it proved to be the API server.
    pub fn is_authenticated(self) -> bool {
        self == Self::ApiServer
    }

    /// The part that the request takes in its record.
    pub(super) fn role(self) -> &'static str {
        if self.is_authenticated() { "self" } else { "unauthenticated" }
    }
}

/// What the API server was given to prove itself with.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// A token that it sends along.
    pub token: Option<SecretString>,
}

impl Proof {
    /// Judges a connection with or without a client certificate that was verified, and the header of a request.
    pub fn judge(&self, has_certificate: bool, authorization: Option<&[u8]>) -> Caller {
        let sent = authorization.and_then(|header| header.strip_prefix(b"Bearer "));
        let is_known = match (&self.token, sent) {
            // Hashes are compared: how long that takes says nothing of the token.
            (Some(token), Some(sent)) => Sha256::digest(token.expose_secret()) == Sha256::digest(sent),
            _ => false,
        };
        if has_certificate || is_known { Caller::ApiServer } else { Caller::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_given_token_or_a_verified_certificate_counts() {
        let proof = Proof { token: Some(SecretString::from("given")) };
        assert_eq!(proof.judge(false, Some(b"Bearer given")), Caller::ApiServer);
        assert_eq!(proof.judge(true, None), Caller::ApiServer);
        for header in
            [None, Some(&b"Bearer other"[..]), Some(b"given"), Some(b"Bearer "), Some(b"Bearer given ")]
        {
            assert_eq!(proof.judge(false, header), Caller::Unknown, "{header:?}");
        }
        assert_eq!(Proof::default().judge(false, Some(b"Bearer ")), Caller::Unknown);
    }
}
