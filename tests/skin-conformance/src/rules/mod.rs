//! The rules, by subject.

/// `rules![check: "name", ...]`, a table of rules.
macro_rules! rules {
    ($($check:ident: $name:literal,)*) => {
        pub(super) const RULES: &[super::Rule] = &[$(super::Rule { name: $name, check: $check },)*];
    };
}

mod binding;
mod clock;
mod mq;
mod mq_time;
mod process;
mod sem;
mod signal;
mod signal_loss;
mod table;
mod thread;
mod util;
mod xddp;

pub use process::peer;

use crate::skin::{Ending, Skin};

/// A rule, for a library's calls or for a table of `rtcore`'s.
#[derive(Debug)]
pub struct Rule<S: ?Sized + 'static = dyn Skin> {
    /// Subject and sentence.
    pub name: &'static str,
    pub check: fn(&'static S) -> Ending,
}

impl<S: ?Sized> Clone for Rule<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Rule<S> {}

/// The rules for a process that is not bound yet; on its main thread, which is its only one.
pub fn before_binding() -> Vec<Rule> {
    binding::RULES.to_vec()
}

/// The rules for the table that lanes use.
pub fn table_rules() -> Vec<Rule<rtcore::skin::Skin>> {
    [table::RULES, xddp::RULES].concat()
}

/// All other rules, in the order in which they are to run.
pub fn rules() -> Vec<Rule> {
    let groups = [
        thread::RULES,
        clock::RULES,
        signal::RULES,
        signal_loss::RULES,
        mq::RULES,
        mq_time::RULES,
        sem::RULES,
    ];
    groups
        .concat()
        .into_iter()
        .chain(process::RULES.iter().copied())
        .collect()
}
