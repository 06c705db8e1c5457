//! Log lines: JSON for machines, text for a person's shell; the level can change while the
//! process runs.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// What is logged unless somebody asks for more.
const DEFAULT: &str = "info";
/// Libraries that say more only to those who name them: matrix-sdk logs much at `info`, and its
/// targets below `warn` may name events and users.
const QUIET: &str = "matrix_sdk=warn,matrix_sdk::http_client=off,matrix_sdk_base=warn,matrix_sdk_crypto=error,kube=warn,hyper=warn,sqlx=warn";

/// Changes what is logged while the process runs.
#[derive(Debug, Clone)]
pub struct LogFilter {
    handle: Arc<reload::Handle<EnvFilter, Registry>>,
}

/// Why a filter could not be set.
#[derive(Debug, thiserror::Error)]
pub enum LogFilterError {
    /// Not a filter.
    #[error("{0:?} is not a log filter; try for example `info` or `info,ems_bots=debug`")]
    Syntax(String),
    /// The subscriber is gone.
    #[error("log filter cannot be changed")]
    Gone(#[source] reload::Error),
}

impl LogFilter {
    /// Sets the filter; an empty text means the default.
    pub fn set(&self, filter: &str) -> Result<(), LogFilterError> {
        let parsed = parse(filter)?;
        self.handle.reload(parsed).map_err(LogFilterError::Gone)
    }

    /// Follows a file (a mounted ConfigMap as a rule) that holds the filter, until cancelled. A
    /// missing file means the default; a wrong one is reported and changes nothing.
    pub async fn follow(self, file: PathBuf, every: Duration, soft: CancellationToken) {
        let mut current = None;
        let mut ticks = tokio::time::interval(every);
        loop {
            tokio::select! {
                () = soft.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let wanted = read(&file).await;
            if current.as_ref() == Some(&wanted) {
                continue;
            }
            match self.set(&wanted) {
                Ok(()) => tracing::info!(filter = %wanted, "log filter set"),
                Err(error) => tracing::warn!(%error, file = %file.display(), "log filter not changed"),
            }
            current = Some(wanted);
        }
    }
}

async fn read(file: &Path) -> String {
    tokio::fs::read_to_string(file).await.map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn parse(filter: &str) -> Result<EnvFilter, LogFilterError> {
    let text = if filter.trim().is_empty() { DEFAULT } else { filter.trim() };
    EnvFilter::try_new(format!("{QUIET},{text}"))
        .map_err(|_| LogFilterError::Syntax(filter.chars().take(100).collect()))
}

/// Installs the process-wide subscriber: text on a terminal, else one JSON object a line, with
/// the fields of the enclosing spans (namespace, bot, correlation id). The environment variable
/// `EMS_LOG` holds the first filter.
pub fn init_logging() -> anyhow::Result<LogFilter> {
    let (filter, handle) = reload::Layer::new(parse(&std::env::var("EMS_LOG").unwrap_or_default())?);
    let registry = tracing_subscriber::registry().with(filter);
    if std::io::stderr().is_terminal() {
        registry.with(fmt::layer().with_writer(std::io::stderr)).try_init()?;
    } else {
        let json = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
        registry.with(json.with_writer(std::io::stderr)).try_init()?;
    }
    Ok(LogFilter { handle: Arc::new(handle) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_filters_are_refused_with_an_example() {
        assert!(parse("info,ems_bots=debug").is_ok());
        assert!(parse("").is_ok());
        let error = parse("ems_bots=loud").unwrap_err().to_string();
        assert!(error.contains("try for example"), "{error}");
    }

    #[test]
    fn libraries_stay_quiet_unless_they_are_named() {
        let filter = |text| parse(text).unwrap().to_string();
        assert!(filter("debug").contains("matrix_sdk=warn"), "{}", filter("debug"));
        let named = filter("info,matrix_sdk=debug");
        assert!(named.contains("matrix_sdk=debug") && !named.contains("matrix_sdk=warn"), "{named}");
    }

    #[tokio::test]
    async fn a_changed_file_changes_the_filter_without_a_restart() {
        let (_layer, handle) = reload::Layer::<EnvFilter, Registry>::new(parse("").unwrap());
        let filter = LogFilter { handle: Arc::new(handle) };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("filter");
        std::fs::write(&file, "debug\n").unwrap();
        let soft = CancellationToken::new();
        let follower = tokio::spawn(filter.clone().follow(file, Duration::from_millis(5), soft.clone()));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while !filter.handle.with_current(ToString::to_string).unwrap().ends_with("debug") {
            assert!(tokio::time::Instant::now() < deadline, "filter was not followed");
            tokio::task::yield_now().await;
        }
        soft.cancel();
        follower.await.unwrap();
    }
}
