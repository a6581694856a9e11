//! Percentiles of a set of measured times.

use serde::{Deserialize, Serialize};

/// A set of times, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) n: usize,
    pub(crate) min_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// Summarises times in nanoseconds. Percentiles are nearest-rank, so each is a time that was measured.
pub(crate) fn summarise(times_ns: &[u64]) -> Summary {
    let mut sorted = times_ns.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map_or(0.0, |&ns| ns as f64 / 1000.0)
    };
    Summary {
        n: sorted.len(),
        min_us: sorted.first().map_or(0.0, |&ns| ns as f64 / 1000.0),
        p50_us: at(50),
        p90_us: at(90),
        p99_us: at(99),
        max_us: sorted.last().map_or(0.0, |&ns| ns as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::summarise;

    #[test]
    fn percentiles_are_nearest_rank() {
        let times: Vec<u64> = (1..=100).map(|n| n * 1000).collect();
        let summary = summarise(&times);
        assert_eq!((summary.p50_us, summary.p90_us, summary.p99_us), (50.0, 90.0, 99.0));
        assert_eq!((summary.n, summary.min_us, summary.max_us), (100, 1.0, 100.0));
    }

    #[test]
    fn one_time_is_all_percentiles() {
        let summary = summarise(&[7000]);
        assert_eq!((summary.p50_us, summary.p99_us), (7.0, 7.0));
        assert_eq!(summarise(&[]).n, 0);
    }
}
