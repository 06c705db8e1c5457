//! Times as people write them.

use jiff::{Span, Timestamp, civil::DateTime, tz::TimeZone};

/// A time as it was written; a span counts back from the moment in which the command runs.
#[derive(Debug, Clone)]
pub(super) enum Time {
    At(Timestamp),
    Ago(String, Span),
}

impl Time {
    /// `2h`, `3 days`, `2026-11-20`, `2026-11-20T08:00` (both UTC), or RFC 3339.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        if let Ok(civil) = text.parse::<DateTime>()
            && let Ok(zoned) = civil.to_zoned(TimeZone::UTC)
        {
            return Ok(Self::At(zoned.timestamp()));
        }
        match text.parse::<Span>() {
            Ok(span) if span.is_positive() => Ok(Self::Ago(text.to_owned(), span)),
            _ => Err("write for example 2h, 3d, 2026-11-20 or 2026-11-20T08:00:00+01:00".to_owned()),
        }
    }

    pub(super) fn resolve(&self, now: Timestamp) -> anyhow::Result<Timestamp> {
        match self {
            Self::At(at) => Ok(*at),
            Self::Ago(text, span) => now
                .to_zoned(TimeZone::UTC)
                .checked_sub(*span)
                .map(|zoned| zoned.timestamp())
                .map_err(|_| anyhow::anyhow!("{text} ago is before the calendar begins")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_as_people_write_them() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2h", "2026-11-21T10:00:00Z"),
            ("90m", "2026-11-21T10:30:00Z"),
            ("3d", "2026-11-18T12:00:00Z"),
            ("1 week", "2026-11-14T12:00:00Z"),
            ("2026-11-20", "2026-11-20T00:00:00Z"),
            ("2026-11-20T08:30", "2026-11-20T08:30:00Z"),
            ("2026-11-20T08:30:00+01:00", "2026-11-20T07:30:00Z"),
        ] {
            let time = Time::parse(text).unwrap().resolve(now).unwrap();
            assert_eq!(time.to_string(), expected, "{text}");
        }
        for text in ["", "soon", "-2h", "2026-13-01", "11/20/2026"] {
            assert!(Time::parse(text).is_err(), "{text}");
        }
        assert!(Time::parse("19000 years").unwrap().resolve(now).is_err());
    }
}
