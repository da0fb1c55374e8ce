//! What a run of the load generator found, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::Seen;
use super::{Load, Workload};
use crate::exit::Failure;
use crate::output::{Output, print_json, print_line, print_table};

/// The result of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: &'static str,
    endpoints: Vec<String>,
    connections: u16,
    clients: u16,
    value_size: u32,
    key_count: u64,
    serializable: bool,
    seconds: f64,
    operations: u64,
    /// Operations a second.
    rate: f64,
    latency_ms: Latency,
    #[serde(skip_serializing_if = "Option::is_none")]
    reads: Option<Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes: Option<Part>,
    /// Attempts that surely changed nothing and were made again elsewhere.
    sent_again: u64,
    errors: u64,
    errors_by_message: BTreeMap<String, u64>,
    longest_gap_ms: f64,
}

/// One kind of requests in a mixed load.
#[derive(Debug, Serialize)]
struct Part {
    operations: u64,
    rate: f64,
    latency_ms: Latency,
}

/// Percentiles of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Report {
    pub(super) fn new(
        workload: Workload,
        load: &Load,
        endpoints: &[String],
        seen: &Seen,
        longest_gap: Duration,
    ) -> Report {
        let seconds = load.seconds.0.as_secs_f64();
        let mut all = seen.reads.clone();
        all.add(&seen.writes).expect("all histograms have the same bounds");
        let part = |histogram: &Histogram<u64>| {
            (workload == Workload::Mixed).then(|| Part {
                operations: histogram.len(),
                rate: histogram.len() as f64 / seconds,
                latency_ms: Latency::of(histogram),
            })
        };
        Report {
            workload: workload.name(),
            endpoints: endpoints.to_vec(),
            connections: load.connections,
            clients: load.clients,
            value_size: load.keys.value_size,
            key_count: load.keys.key_count,
            serializable: load.serializable,
            seconds,
            operations: all.len(),
            rate: all.len() as f64 / seconds,
            latency_ms: Latency::of(&all),
            reads: part(&seen.reads),
            writes: part(&seen.writes),
            sent_again: seen.sent_again,
            errors: seen.errors.values().sum(),
            errors_by_message: seen.errors.clone(),
            longest_gap_ms: longest_gap.as_secs_f64() * 1e3,
        }
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn show(&self, json: bool, output: Output) -> Result<(), Failure> {
        if json || output == Output::Json {
            return print_json(self);
        }
        if output == Output::Plain {
            return print_line(&format!("{:.0}", self.rate));
        }
        let row = |name: &str, operations: u64, rate: f64, latency: &Latency| {
            let ms = |value: f64| format!("{value:.2}");
            [
                name.to_owned(),
                operations.to_string(),
                format!("{rate:.0}"),
                ms(latency.p50),
                ms(latency.p90),
                ms(latency.p99),
                ms(latency.p99_9),
                ms(latency.max),
            ]
        };
        let mut rows = vec![row(self.workload, self.operations, self.rate, &self.latency_ms)];
        for (name, part) in [("reads", &self.reads), ("writes", &self.writes)] {
            rows.extend(part.iter().map(|part| row(name, part.operations, part.rate, &part.latency_ms)));
        }
        print_table(["", "COUNT", "PER SECOND", "P50 MS", "P90 MS", "P99 MS", "P99.9 MS", "MAX MS"], &rows)?;
        print_line(&format!("longest gap between two successes: {:.1} ms", self.longest_gap_ms))?;
        if self.sent_again > 0 {
            print_line(&format!("attempts that changed nothing and were made again: {}", self.sent_again))?;
        }
        print_line(&format!("errors: {}", self.errors))?;
        self.errors_by_message.iter().try_for_each(|(what, count)| print_line(&format!("{count:8}  {what}")))
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Latency {
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        Latency {
            mean: if histogram.is_empty() { 0.0 } else { histogram.mean() / 1e6 },
            p50: ms(histogram.value_at_quantile(0.5)),
            p90: ms(histogram.value_at_quantile(0.9)),
            p99: ms(histogram.value_at_quantile(0.99)),
            p99_9: ms(histogram.value_at_quantile(0.999)),
            max: ms(histogram.max()),
        }
    }
}
