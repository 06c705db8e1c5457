//! What was found: one line each, with what it means and how to mend it.

use std::io::{self, Write};

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Works, or could not be looked at.
    Warning,
    /// Does not work.
    Failed,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// `cluster`, `homeserver` or `database`.
    pub area: &'static str,
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was seen and what it means.
    pub message: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Everything that was looked at, in order.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn ok(&mut self, area: &'static str, check: &'static str, message: impl Into<String>) {
        self.add(area, check, Level::Ok, message.into(), None);
    }

    pub(super) fn warn(
        &mut self,
        area: &'static str,
        check: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(area, check, Level::Warning, message.into(), Some(fix.into()));
    }

    pub(super) fn fail(
        &mut self,
        area: &'static str,
        check: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(area, check, Level::Failed, message.into(), Some(fix.into()));
    }

    fn add(
        &mut self,
        area: &'static str,
        check: &'static str,
        level: Level,
        message: String,
        fix: Option<String>,
    ) {
        self.findings.push(Finding { area, check, level, message, fix });
    }

    /// Whether something does not work.
    pub(super) fn has_failures(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Failed)
    }

    /// For people.
    pub(super) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        for Finding { area, check, level, message, fix } in &self.findings {
            writeln!(out, "{:<8} {area}: {check}: {}", level.as_str(), printable(message))?;
            if let Some(fix) = fix {
                writeln!(out, "{:<8} -> {}", "", printable(fix))?;
            }
        }
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let (ok, warnings, failed) = (count(Level::Ok), count(Level::Warning), count(Level::Failed));
        writeln!(out, "{ok} ok, {warnings} warnings, {failed} failed")
    }

    /// For programs.
    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }
}

/// Text of other parties without what a terminal would act on.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_say_the_same() {
        let mut report = Report::default();
        report.ok("database", "login", "logged in");
        assert!(!report.has_failures());
        report.fail("homeserver", "versions", "refused\u{1b}[2J", "start it");
        assert!(report.has_failures());
        let mut text = Vec::new();
        report.write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let expected = "ok       database: login: logged in\n\
                        failed   homeserver: versions: refused [2J\n         -> start it\n\
                        1 ok, 0 warnings, 1 failed\n";
        assert_eq!(text, expected);
        let mut json = Vec::new();
        report.write_json(&mut json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["findings"][1]["level"], "failed");
        assert_eq!(json["findings"][1]["fix"], "start it");
        assert_eq!(json["findings"][0].get("fix"), None);
    }
}
