//! The certificate that the console makes for its intake, and when it makes another one. (no client)
//!
//! An authority of its own signs it, so that whoever has to know the console is told once in ten years whom to trust.
//! Only one of the two is renewed at a time: until everybody knows a new authority, the certificate is of the old one.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const AUTHORITY_DAYS: i32 = 3_650;
const CERTIFICATE_DAYS: i32 = 90;
/// Renewed when there is no more left than this.
const AUTHORITY_LEFT: i32 = 365;
const CERTIFICATE_LEFT: i32 = 30;
/// The clocks of a cluster differ.
const BEFORE: i32 = 1;

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The kept key cannot be read.
    #[error("the key of the authority cannot be read")]
    Key,
    /// The library refused.
    #[error("the certificate cannot be made")]
    Make(#[from] rcgen::Error),
}

/// Authority and certificate, as they are kept. All PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// The authority, and the one before it for as long as there may be certificates of it.
    pub authorities: String,
    /// Its key.
    pub authority_key: String,
    /// When it ends.
    pub authority_ends: Timestamp,
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// When it ends.
    pub ends: Timestamp,
}

impl Kept {
    /// Whether there was an authority before this one.
    pub fn has_two_authorities(&self) -> bool {
        first_certificate(&self.authorities) != self.authorities
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("authority_ends", &self.authority_ends)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// Makes both anew.
pub fn make(names: &[String], now: Timestamp) -> Result<Kept, CertificateError> {
    let (authority, key) = authority(now)?;
    let kept = Kept {
        authorities: authority,
        authority_key: pem("PRIVATE KEY", &key.serialize_der()),
        authority_ends: after(now, AUTHORITY_DAYS),
        certificate: String::new(),
        key: String::new(),
        ends: now,
    };
    certificate(kept, &key, names, now)
}

/// What to keep instead, if it is time.
pub fn renew(kept: &Kept, names: &[String], now: Timestamp) -> Result<Option<Kept>, CertificateError> {
    if after(now, AUTHORITY_LEFT) >= kept.authority_ends {
        let (new, key) = authority(now)?;
        let old = first_certificate(&kept.authorities);
        return Ok(Some(Kept {
            authorities: new + old,
            authority_key: pem("PRIVATE KEY", &key.serialize_der()),
            authority_ends: after(now, AUTHORITY_DAYS),
            ..kept.clone()
        }));
    }
    if after(now, CERTIFICATE_LEFT) < kept.ends {
        return Ok(None);
    }
    let der =
        PrivateKeyDer::from_pem_slice(kept.authority_key.as_bytes()).map_err(|_| CertificateError::Key)?;
    let key = KeyPair::try_from(&der).map_err(|_| CertificateError::Key)?;
    certificate(kept.clone(), &key, names, now).map(Some)
}

fn after(now: Timestamp, days: i32) -> Timestamp {
    now.checked_add(DAY * days).unwrap_or(Timestamp::MAX)
}

fn authority_params(now: Timestamp) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = named("ems-bots console authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, AUTHORITY_DAYS);
    Ok(params)
}

fn authority(now: Timestamp) -> Result<(String, KeyPair), CertificateError> {
    let key = KeyPair::generate()?;
    let certificate = authority_params(now)?.self_signed(&key)?;
    Ok((pem("CERTIFICATE", certificate.der()), key))
}

fn certificate(
    kept: Kept,
    authority_key: &KeyPair,
    names: &[String],
    now: Timestamp,
) -> Result<Kept, CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = named("ems-bots console");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    valid(&mut params, now, CERTIFICATE_DAYS);
    let issuer_params = authority_params(now)?;
    let issuer = Issuer::from_params(&issuer_params, authority_key);
    let signed = params.signed_by(&key, &issuer)?;
    Ok(Kept {
        certificate: pem("CERTIFICATE", signed.der()),
        key: pem("PRIVATE KEY", &key.serialize_der()),
        ends: after(now, CERTIFICATE_DAYS),
        ..kept
    })
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn valid(params: &mut CertificateParams, now: Timestamp, days: i32) {
    let date = |at: Timestamp| {
        let day = at.to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(day.year().into(), day.month().unsigned_abs(), day.day().unsigned_abs())
    };
    params.not_before = date(after(now, -BEFORE));
    // To the end of the day.
    params.not_after = date(after(now, days + 1));
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        pem.push_str(part);
    }
    pem
}

fn first_certificate(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    pem.find(END).map_or(pem, |at| &pem[..at + END.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["ems-bots-console.ems-bots-system.svc".to_owned()]
    }

    fn days(days: i32) -> Timestamp {
        after("2026-01-01T00:00:00Z".parse().unwrap(), days)
    }

    #[test]
    fn a_certificate_is_renewed_in_time_by_the_same_authority() {
        let first = make(&names(), days(0)).unwrap();
        assert_eq!(renew(&first, &names(), days(59)).unwrap(), None);
        let second = renew(&first, &names(), days(61)).unwrap().unwrap();
        assert_eq!(second.authorities, first.authorities);
        assert_ne!((&second.certificate, &second.key), (&first.certificate, &first.key));
        assert_eq!(second.ends, days(61 + CERTIFICATE_DAYS));
        assert!(!format!("{second:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_new_authority_is_known_before_it_signs() {
        let first = Kept { ends: days(9_999), ..make(&names(), days(0)).unwrap() };
        let second = renew(&first, &names(), days(AUTHORITY_DAYS - 300)).unwrap().unwrap();
        assert_eq!(second.certificate, first.certificate);
        assert!(second.authorities.ends_with(&first.authorities) && second.authorities != first.authorities);
        assert!(second.has_two_authorities() && !first.has_two_authorities());
        let third = Kept { authority_ends: days(AUTHORITY_DAYS), ..second.clone() };
        let third = renew(&third, &names(), days(AUTHORITY_DAYS - 300)).unwrap().unwrap();
        assert_eq!(third.authorities.matches("BEGIN").count(), 2, "no more than two are kept");
    }

    #[test]
    fn a_client_that_knows_the_authority_accepts_the_certificate() {
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut kept = make(&names(), days(0)).unwrap();
        kept.ends = days(1);
        for kept in [kept.clone(), renew(&kept, &names(), days(2)).unwrap().unwrap()] {
            use rustls::{
                RootCertStore,
                client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
                pki_types::{CertificateDer, ServerName, UnixTime},
            };
            let read = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(read(&kept.authorities)).unwrap();
            let verifier = WebPkiServerVerifier::builder(std::sync::Arc::new(roots)).build().unwrap();
            let at = std::time::Duration::from_secs(days(3).as_second().unsigned_abs());
            let check = |name: &str| {
                let name = ServerName::try_from(name.to_owned()).unwrap();
                verifier.verify_server_cert(
                    &read(&kept.certificate),
                    &[],
                    &name,
                    &[],
                    UnixTime::since_unix_epoch(at),
                )
            };
            check(&names()[0]).unwrap();
            check("ems-bots-console.other.svc").unwrap_err();
        }
    }
}
