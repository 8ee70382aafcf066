//! Latencies of a stream that no fault is aimed at: during each hostile load, and alone.

use crate::fault::Kind;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// From the send to the receipt, in nanoseconds.
#[derive(Debug, Default)]
pub struct Latencies {
    alone: Vec<u64>,
    beside: BTreeMap<Kind, Vec<u64>>,
    /// How often a second the load did what it does, in each of its faults.
    rates: BTreeMap<Kind, Vec<u64>>,
}

impl Latencies {
    /// Adds a message that was sent `during` a fault, or between two.
    pub fn add(&mut self, during: Option<Kind>, latency_ns: u64) {
        match during {
            None => self.alone.push(latency_ns),
            Some(kind) if kind.is_load() => self.beside.entry(kind).or_default().push(latency_ns),
            Some(_) => {}
        }
    }

    /// Adds how often a second the load did what it does.
    pub fn rate(&mut self, kind: Kind, per_second: u64) {
        self.rates.entry(kind).or_default().push(per_second);
    }

    /// As a Markdown table; empty if there was no hostile load.
    pub fn markdown(&mut self) -> String {
        let mut text = String::new();
        if self.beside.is_empty() {
            return text;
        }
        text += "| latency of the innocent stream beside | messages | p50 / p99 / max |\n|---|---|---|\n";
        let mut row = |name: &str, all: &mut Vec<u64>| {
            all.sort_unstable();
            let quantile = |percent: usize| {
                let ns = all
                    .get(all.len() * percent / 100)
                    .or(all.last())
                    .copied()
                    .unwrap_or(0);
                format!("{:.1}", ns as f64 / 1e3)
            };
            let (p50, p99, max) = (quantile(50), quantile(99), quantile(100));
            let _ = writeln!(
                text,
                "| {name} | {} | {p50} / {p99} / {max} us |",
                all.len()
            );
        };
        row("nothing", &mut self.alone);
        for (kind, all) in &mut self.beside {
            let rate = self
                .rates
                .get(kind)
                .map(|rates| rates.iter().sum::<u64>() / rates.len() as u64);
            let rate = rate.map_or_else(String::new, |rate| format!(" ({rate} a second)"));
            row(&format!("{kind:?}{rate}"), all);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_load_is_shown_beside_the_time_without_one() {
        let mut latencies = Latencies::default();
        (1..=100).for_each(|us| latencies.add(None, us * 1000));
        latencies.add(Some(Kind::KillRtd), 1);
        assert_eq!(latencies.markdown(), "", "a restart is no load");
        (1..=200).for_each(|us| latencies.add(Some(Kind::Garbage), us * 1000));
        let table = latencies.markdown();
        assert!(
            table.contains("| nothing | 100 | 51.0 / 100.0 / 100.0 us |"),
            "{table}"
        );
        assert!(
            table.contains("| Garbage | 200 | 101.0 / 199.0 / 200.0 us |"),
            "{table}"
        );
    }
}
