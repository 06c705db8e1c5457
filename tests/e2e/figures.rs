//! Figures for docs/performance.md: `make bench-capture` and `make bench-coverage` measure them, `make test` does not.
//! Each is printed beside what the same homeserver does in the same run for somebody who does only what must be done.

use std::time::Duration;

mod capture;
mod coverage;

/// However long it takes.
const LONG: Duration = Duration::from_hours(1);

fn size(name: &str, default: usize) -> usize {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn rate(count: usize, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let count = count as f64;
    count / time.as_secs_f64()
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    format!("p50 {:.1?}, p99 {:.1?}, longest {:.1?}", at(50), at(99), times[times.len() - 1])
}
