//! What a path's threads must not have done, and the sentence for each that did.
//!
//! The rules. Heap calls, system calls off the list and lost messages: none, ever. Page faults:
//! none where memory is locked. A thread may be preempted by threads of the run that are above it,
//! and by these, which are shown by name: the daemon's watchdog; the kernel's own of higher
//! priority (migration/N of the stop class, interrupt threads), which are nobody's to forbid; and a
//! thread of the run below it that has inherited its priority because it holds a lock of the
//! kernel's, which is how PREEMPT_RT bounds that wait. It may not be preempted by anybody else.
//! Where the kernel gave the CPU to ordinary threads, the machine is not set up for real time,
//! which no path can help: that is reported with the line that fixes it, and is no reason. Without the kernel's
//! trace nobody knows by whom, which is shown and not judged; without SCHED_FIFO being preempted is
//! what an ordinary thread has to expect.

#![forbid(unsafe_code)]

use super::preemptions::By;
use super::role_thread::Account;

/// By whom a thread was preempted.
#[derive(Clone, Debug, Default)]
pub struct Preemptions {
    /// By threads of the run above it.
    pub by_lanes: u64,
    /// By others, by name.
    pub by: Vec<(By, String, u64)>,
    /// Times at which the trace does not show who ran.
    pub unknown: u64,
}

/// A thread with its account and its preemptions.
#[derive(Clone, Debug)]
pub struct Row {
    /// The counters of the task during the measurement.
    pub account: Account,
    /// The threads that preempted it.
    pub preempted: Preemptions,
}

/// The privileges and facilities that the run was granted; the rules depend on them.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    /// Memory of both processes is locked.
    pub memory: bool,
    /// All threads are SCHED_FIFO.
    pub fifo: bool,
    /// The reason why there is no trace of the preemptions; `None` if there is one.
    pub no_trace: Option<String>,
}

/// A path and its threads.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// As in the table.
    pub path: &'static str,
    /// As on the command line.
    pub key: String,
    /// Messages sent, and received.
    pub messages: [u64; 2],
    /// Number of messages that were requested.
    pub count: u64,
    pub rows: Vec<Row>,
    /// The violations of the rules, one sentence each.
    pub reasons: Vec<String>,
    /// The machine's effects on a thread, one sentence each.
    pub machine: Vec<String>,
}

impl Outcome {
    /// Assesses a path that has ended.
    pub fn assess(mut self, granted: &Granted) -> Outcome {
        let [sent, received] = self.messages;
        if received != sent {
            self.reasons.push(format!(
                "{} of {sent} messages were lost",
                sent.saturating_sub(received)
            ));
        }
        for row in &self.rows {
            self.reasons.extend(of_thread(row, granted));
            self.machine.extend(of_machine(row, granted));
        }
        self
    }

    /// Messages that did not arrive.
    pub fn lost(&self) -> u64 {
        self.messages[0].saturating_sub(self.messages[1])
    }
}

fn of_thread(
    Row {
        account: a,
        preempted,
    }: &Row,
    granted: &Granted,
) -> Vec<String> {
    let who = format!("{} ({})", a.role, a.name);
    let mut all = Vec::new();
    if a.allocations > 0 {
        all.push(format!(
            "{who}: {} heap calls; RTD_GUARD=abort ends the process at the first",
            a.allocations
        ));
    }
    if a.refused_calls > 0 {
        let name = a.refused_call.unwrap_or("?");
        all.push(format!(
            "{who}: {} system calls that are not on its list, the last one {name}(2)",
            a.refused_calls
        ));
    }
    let (minor, major) = (a.used.minor_faults, a.used.major_faults);
    if granted.memory && (minor > 0 || major > 0) {
        all.push(format!(
            "{who}: {minor} minor and {major} major page faults"
        ));
    }
    if granted.fifo {
        all.extend(preempted.by.iter().filter_map(|(by, name, times)| {
            let why = match by {
                By::Daemon | By::Kernel | By::Heir | By::Ordinary => return None,
                By::Below => "which is below it",
                By::Stranger => {
                    "which is not part of the run and is above it: end it, or choose another CPU \
                     with -a"
                }
            };
            Some(format!("{who}: preempted {times} times by {name}, {why}"))
        }));
        if granted.no_trace.is_none() && preempted.unknown > 0 {
            all.push(format!(
                "{who}: preempted {} times by a thread that the kernel's trace does not show",
                preempted.unknown
            ));
        }
    }
    all
}

fn of_machine(
    Row {
        account: a,
        preempted,
    }: &Row,
    granted: &Granted,
) -> Vec<String> {
    let ordinary = preempted
        .by
        .iter()
        .filter(|(by, ..)| granted.fifo && *by == By::Ordinary);
    let say = |(_, name, times): &(By, String, u64)| {
        format!(
            "{} ({}): the kernel gave its CPU {times} times to {name}, no real-time thread: it keeps a share for those \
             (/sys/kernel/debug/sched/fair_server/cpu*/runtime, sysctl kernel.sched_rt_runtime_us)",
            a.role, a.name
        )
    };
    ordinary.map(say).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtcore::sys::memory::ThreadUsage;

    fn row(change: impl FnOnce(&mut Row)) -> Row {
        let used = ThreadUsage {
            voluntary_switches: 9,
            involuntary_switches: 9,
            ..ThreadUsage::default()
        };
        let account = Account {
            role: "sender",
            name: "x".into(),
            used,
            ..Account::default()
        };
        let by = [(By::Kernel, "migration/0"), (By::Daemon, "watchdog")];
        let by = by.map(|(by, name)| (by, name.to_owned(), 1)).to_vec();
        let mut row = Row {
            account,
            preempted: Preemptions {
                by_lanes: 7,
                by,
                unknown: 0,
            },
        };
        change(&mut row);
        row
    }

    fn judged(messages: [u64; 2], granted: &Granted, change: impl FnOnce(&mut Row)) -> Outcome {
        let outcome = Outcome {
            path: "p",
            key: "p".into(),
            messages,
            count: messages[0],
            rows: vec![row(change)],
            reasons: Vec::new(),
            machine: Vec::new(),
        };
        outcome.assess(granted)
    }

    fn reasons(
        messages: [u64; 2],
        granted: &Granted,
        change: impl FnOnce(&mut Row),
    ) -> Vec<String> {
        judged(messages, granted, change).reasons
    }

    #[test]
    fn each_thing_that_must_not_happen_is_found_and_nothing_else() {
        let all = Granted {
            memory: true,
            fifo: true,
            no_trace: None,
        };
        assert_eq!(
            reasons([5, 5], &all, |_| {}),
            [""; 0],
            "lanes and the kernel may preempt"
        );
        let found = |messages, change: fn(&mut Row), what: &str| {
            let found = reasons(messages, &all, change);
            assert!(found.len() == 1 && found[0].contains(what), "{found:?}");
        };
        found([5, 4], |_| {}, "1 of 5 messages");
        found([5, 5], |r| r.account.allocations = 2, "2 heap calls");
        found(
            [5, 5],
            |r| (r.account.refused_calls, r.account.refused_call) = (3, Some("openat")),
            "openat(2)",
        );
        found([5, 5], |r| r.account.used.minor_faults = 4, "4 minor");
        found([5, 5], |r| r.account.used.major_faults = 4, "4 major");
        found(
            [5, 5],
            |r| r.preempted.by.push((By::Stranger, "hog".into(), 6)),
            "hog",
        );
        found(
            [5, 5],
            |r| r.preempted.by.push((By::Below, "rtlat-sender".into(), 7)),
            "rtlat-sender, which is below",
        );
        found([5, 5], |r| r.preempted.unknown = 1, "does not show");
    }

    #[test]
    fn activity_of_the_machine_is_reported_and_not_a_fault() {
        let all = Granted {
            memory: true,
            fifo: true,
            no_trace: None,
        };
        let ordinary = |r: &mut Row| r.preempted.by.push((By::Ordinary, "kworker/1:2".into(), 7));
        let outcome = judged([5, 5], &all, ordinary);
        assert_eq!(outcome.reasons, [""; 0]);
        assert!(
            outcome.machine.len() == 1 && outcome.machine[0].contains("7 times to kworker/1:2")
        );
        let heir = |r: &mut Row| r.preempted.by.push((By::Heir, "rtlat-sender".into(), 7));
        let outcome = judged([5, 5], &all, heir);
        assert_eq!((outcome.reasons.len(), outcome.machine.len()), (0, 0));
    }

    #[test]
    fn what_was_not_granted_is_not_judged() {
        let none = Granted {
            memory: false,
            fifo: false,
            no_trace: Some("EPERM".into()),
        };
        let spoil = |r: &mut Row| {
            r.account.used.minor_faults = 4;
            r.preempted.unknown = 3;
        };
        assert_eq!(reasons([5, 5], &none, spoil), [""; 0]);
        let no_trace = Granted { fifo: true, ..none };
        assert_eq!(
            reasons([5, 5], &no_trace, |r| r.preempted.unknown = 3),
            [""; 0]
        );
        assert_eq!(
            reasons([5, 5], &no_trace, |r| r.account.allocations = 1).len(),
            1
        );
    }
}
