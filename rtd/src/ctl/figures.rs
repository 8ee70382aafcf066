//! Counters as `rtctl stats` shows them: the values of the JSON and the cells of its tables.
//!
//! The counters with their keys, columns and units are in rtcore's tables
//! ([`rtcore::stats::counters`]).

#![forbid(unsafe_code)]

use super::table::{Column, or_dash, right, us};
use rtcore::stats::counters::system_call;
use rtcore::stats::guard::GuardState;
use rtcore::stats::reader::{Diff, Lane};
use rtcore::stats::table::{Counter, Merge, Unit};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Keys and values of some counters, in the order of their table.
#[derive(Debug)]
pub struct Figures(Vec<(&'static str, Value)>);

impl Figures {
    /// All shown counters.
    pub fn of(values: impl Iterator<Item = (&'static Counter, u64)>) -> Figures {
        let shown = values.filter(|(counter, _)| counter.is_shown);
        Figures(
            shown
                .map(|(counter, value)| (counter.key, json(counter.unit, value)))
                .collect(),
        )
    }

    /// The counters of its threads that a lane shows.
    pub fn of_threads(lane: &Lane) -> Figures {
        let of_lane = lane
            .counters
            .values()
            .filter(|(counter, _)| counter.is_shown && counter.of_lane);
        let value = |(counter, value): (&'static Counter, u64)| match counter.unit {
            Unit::RefusedCalls => (counter.key, lane.refused_calls().into()),
            unit => (counter.key, json(unit, value)),
        };
        Figures(of_lane.map(value).collect())
    }

    /// The counts of an interval as events per second. A value that is not a count of events has no
    /// rate.
    pub fn rates(diff: &Diff, values: impl Iterator<Item = (&'static Counter, u64)>) -> Figures {
        let counted = values.filter(|(counter, _)| counter.is_shown && counter.merge == Merge::Sum);
        Figures(
            counted
                .map(|(counter, value)| (counter.key, rate(diff, value).into()))
                .collect(),
        )
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A tenth is finer than the clock of a reader that is not real-time.
pub fn rate(diff: &Diff, count: u64) -> f64 {
    (diff.per_second(count) * 10.0).round() / 10.0
}

fn json(unit: Unit, value: u64) -> Value {
    match unit {
        Unit::Count | Unit::Rejects | Unit::RefusedCalls | Unit::Ns => value.into(),
        Unit::Permille => (value as f64 / 10.0).into(),
        Unit::Flag => (value != 0).into(),
        Unit::State => GuardState::of_word(value).name().into(),
        Unit::SystemCall => system_call(value).into(),
    }
}

/// The counter's column, if it has one.
pub fn column(counter: &Counter) -> Option<Column> {
    counter
        .column
        .map(|title| right(title.text).rank(title.rank))
}

/// A value in its column; `count` formats counts of events.
pub fn cell(counter: &Counter, value: u64, count: impl Fn(u64) -> String) -> String {
    match counter.unit {
        Unit::Count | Unit::Rejects | Unit::RefusedCalls if counter.merge == Merge::Sum => {
            count(value)
        }
        Unit::Count | Unit::Rejects | Unit::RefusedCalls => value.to_string(),
        Unit::Ns => us(value),
        Unit::Permille => format!("{}.{}%", value / 10, value % 10),
        Unit::Flag => if value == 0 { "no" } else { "yes" }.to_owned(),
        Unit::State => GuardState::of_word(value).name().to_owned(),
        Unit::SystemCall => or_dash(system_call(value).unwrap_or_default().to_owned()),
    }
}
