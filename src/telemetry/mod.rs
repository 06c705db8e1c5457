//! What every long-running process has: log lines, metrics, and the endpoints that Kubernetes and
//! Prometheus ask.

pub mod health;
pub mod logging;

pub use health::{Health, serve};
pub use logging::{LogFilter, init_logging};
