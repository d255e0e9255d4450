//! Metrics in Envoy's stats.
//!
//! Owns the host's ids of metrics, each defined once. The core decides what is counted. A metric that the host refuses
//! is not counted, which has no other effect.

use std::time::Duration;

use portcullis_core::driver::call::Dependency;
use portcullis_core::hashing::Map;
use portcullis_core::metric::{Kind, Metric};

use crate::guarded::Guarded;
use crate::host;

/// The metrics of one worker.
#[derive(Default)]
pub(crate) struct Metrics {
    /// The host's ids, by metric.
    ids: Guarded<Map<Metric, u32>>,
    /// Whether each dependency answered the last call.
    answers: Guarded<Map<Dependency, bool>>,
}

impl Metrics {
    /// Adds `value` to `metric`.
    pub(crate) fn measure(&self, metric: Metric, value: u64) {
        let kind = metric.kind();
        let Some(id) = self.id(metric) else { return };
        // A log line per request about a failed metric would be too much.
        let _ = match kind {
            Kind::Counter => host::increment_metric(id, value),
            Kind::Gauge | Kind::Histogram => host::record_metric(id, value),
        };
    }

    /// Records the time of a dependency's answer, or that it did not answer.
    pub(crate) fn measure_call(&self, dependency: Dependency, elapsed: Option<Duration>) {
        let answers = elapsed.is_some();
        let before = self.answers.with(|known| known.insert(dependency, answers)).flatten();
        if before != Some(answers) {
            self.measure(Metric::DependencyUp(dependency), u64::from(answers));
        }
        if let Some(elapsed) = elapsed {
            let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            self.measure(Metric::DependencyDuration(dependency), elapsed);
        }
    }

    fn id(&self, metric: Metric) -> Option<u32> {
        let known = self.ids.with(|ids| ids.get(&metric).copied()).flatten();
        if known.is_some() {
            return known;
        }
        let id = host::define_metric(metric.kind(), &metric.name()).ok()?;
        self.ids.with(|ids| ids.insert(metric, id));
        Some(id)
    }
}
