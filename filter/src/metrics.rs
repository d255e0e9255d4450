//! Metrics in the proxy's stats.
//!
//! Owns the host's ids of metrics, each defined once. What is counted is the core's business; one that
//! the host refuses is not counted, and nothing else depends on it.

use std::time::Duration;

use log::{error, info};
use portcullis_core::call::Dependency;
use portcullis_core::metric::{Kind, Metric};
use portcullis_core::time::UnixTime;

use crate::gateway::Gateway;
use crate::host;

impl Gateway {
    /// Adds `value` to `metric`.
    pub(crate) fn measure(&self, metric: Metric, value: u64) {
        let kind = metric.kind();
        let Some(id) = self.metric_id(metric) else { return };
        // A metric that cannot be written is worth no word per request.
        let _ = match kind {
            Kind::Counter => host::increment_metric(id, value),
            Kind::Gauge | Kind::Histogram => host::record_metric(id, value),
        };
    }

    /// Notes that a dependency took so long to answer a question, or did not answer.
    pub(crate) fn measure_call(
        &self,
        dependency: Dependency,
        elapsed: Option<Duration>,
        now: UnixTime,
    ) {
        let answers = elapsed.is_some();
        self.with(|state| state.worker.health.answered(dependency, elapsed, now));
        let before = self.with(|state| state.answers.insert(dependency, answers)).flatten();
        if before != Some(answers) {
            self.measure(Metric::DependencyUp(dependency), u64::from(answers));
        }
        if let Some(elapsed) = elapsed {
            let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            self.measure(Metric::DependencyDuration(dependency), elapsed);
        }
    }

    /// Writes what the operator should read, and how long a policy took if one was compiled since `since`, when the
    /// callback began.
    pub(crate) fn measure_load(&self, since: UnixTime) {
        let alarms = self.with(|state| state.worker.take_alarms()).unwrap_or_default();
        alarms.iter().for_each(|alarm| error!("{alarm}"));
        let compiled = self.with(|state| state.worker.take_compiled()).flatten();
        let Some(version) = compiled else { return };
        let elapsed = host::now().since(since).as_millis();
        info!("policy {version} compiled in {elapsed} ms");
        self.measure(Metric::PolicyLoad, u64::try_from(elapsed).unwrap_or(u64::MAX));
    }

    fn metric_id(&self, metric: Metric) -> Option<u32> {
        let known = self.with(|state| state.metrics.get(&metric).copied()).flatten();
        if known.is_some() {
            return known;
        }
        let id = host::define_metric(metric.kind(), &metric.name()).ok()?;
        self.with(|state| state.metrics.insert(metric, id));
        Some(id)
    }
}
