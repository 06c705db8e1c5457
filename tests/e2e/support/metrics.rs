//! Prometheus samples of a pod.

use k8s_openapi::api::core::v1::Pod;

use super::leaks;

/// What /metrics answered.
pub struct Samples {
    pub text: String,
}

impl Samples {
    pub async fn of(pod: &Pod) -> Self {
        let name = pod.metadata.name.clone().unwrap_or_default();
        Self { text: leaks::metrics(pod).await.unwrap_or_else(|| panic!("{name} serves no metrics")) }
    }

    /// Sum of the samples of this name that have all these labels; fails if there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let found: Vec<f64> = self
            .text
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter(|(series, _)| wanted.iter().all(|label| series.contains(label)))
            .map(|(_, value)| value.parse().unwrap())
            .collect();
        assert!(!found.is_empty(), "no sample of {name} {labels:?} in {}", self.text);
        found.iter().sum()
    }

    /// The same of something that is counted.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "a small number")]
        let whole = self.value(name, labels).round() as i64;
        whole
    }
}
