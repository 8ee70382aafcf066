//! The result as a table for people and as a document for programs. The document's keys are an
//! interface: they are added to, never renamed or removed.

#![forbid(unsafe_code)]

use super::super::run::{command_line, to_file};
use super::preemptions::By;
use super::verdict::{Granted, Outcome, Preemptions, Row};
use rtd::ctl::page;
use rtd::ctl::sheet::Sheet;
use rtd::ctl::table::{Table, left, or_dash, right};
use serde_json::{Value, json};
use std::path::Path;

/// Prints tables, reasons and the verdict.
pub fn print(
    outcomes: &[Outcome],
    granted: &Granted,
    columns: Option<usize>,
) -> anyhow::Result<()> {
    let mut sheet = Sheet::new(columns);
    conditions(granted)
        .iter()
        .for_each(|said| sheet.line(&format!("# {said}")));
    for outcome in outcomes {
        let [sent, received] = outcome.messages;
        let lost = outcome.lost();
        let caption = format!(
            "{}: sent {sent}, received {received}, lost {lost}",
            outcome.path
        );
        sheet.captioned(&caption, &table(outcome));
    }
    sheet.line("");
    for outcome in outcomes {
        for said in &outcome.machine {
            sheet.line(&format!("machine: {}: {said}", outcome.path));
        }
        for reason in &outcome.reasons {
            sheet.line(&format!("unclean: {}: {reason}", outcome.path));
        }
    }
    let messages: u64 = outcomes.iter().map(|outcome| outcome.messages[1]).sum();
    let unclean = outcomes
        .iter()
        .filter(|outcome| !outcome.reasons.is_empty())
        .count();
    sheet.line(&match unclean {
        0 => format!("clean: {} paths, {messages} messages", outcomes.len()),
        _ => format!("unclean: {unclean} of {} paths", outcomes.len()),
    });
    page::print(&sheet.finish())?;
    Ok(())
}

/// The checks that the run could not make.
fn conditions(granted: &Granted) -> Vec<String> {
    let mut all = Vec::new();
    if !granted.fifo {
        all.push(
            "not all threads are SCHED_FIFO: preemptions are shown and not \
        checked"
                .to_owned(),
        );
    }
    if !granted.memory {
        all.push("memory is not locked: page faults are shown and not checked".to_owned());
    }
    if let Some(why) = &granted.no_trace {
        all.push(format!(
            "threads that preempted others are not checked, because they are not known; run as \
             root ({why})"
        ));
    }
    all
}

fn table(outcome: &Outcome) -> Table {
    let mut table = Table::new(vec![
        left("THREAD"),
        right("PRIO").rank(5),
        right("MESSAGES"),
        right("ALLOCATIONS"),
        right("MINFLT"),
        right("MAJFLT"),
        right("SLEEPS").rank(6),
        right("PREEMPTED").rank(2),
        right("BY-LANES").rank(4),
        left("BY-OTHERS").rank(3),
        left("CALLS-OFF-LIST"),
    ]);
    for Row {
        account: a,
        preempted,
    } in &outcome.rows
    {
        table.row(vec![
            a.role.to_owned(),
            or_dash(if a.priority > 0 {
                a.priority.to_string()
            } else {
                String::new()
            }),
            a.messages.to_string(),
            a.allocations.to_string(),
            a.used.minor_faults.to_string(),
            a.used.major_faults.to_string(),
            a.used.voluntary_switches.to_string(),
            a.used.involuntary_switches.to_string(),
            preempted.by_lanes.to_string(),
            or_dash(others(preempted)),
            match (a.is_confined, a.refused_call) {
                (false, _) => "not watched".to_owned(),
                (true, None) => "0".to_owned(),
                (true, Some(name)) => format!("{} ({name})", a.refused_calls),
            },
        ]);
    }
    table
}

fn others(preempted: &Preemptions) -> String {
    let named = preempted.by.iter().map(|(by, name, times)| match by {
        By::Heir => format!("{name} {times} (its priority inherited)"),
        _ => format!("{name} {times}"),
    });
    let unknown = (preempted.unknown > 0).then(|| format!("unknown {}", preempted.unknown));
    named.chain(unknown).collect::<Vec<_>>().join(", ")
}

/// Writes the document.
pub fn json(path: &Path, outcomes: &[Outcome], granted: &Granted, code: u8) -> anyhow::Result<()> {
    let document = json!({
        "command": command_line(),
        "return_code": code,
        "clean": code == 0,
        "judged": {
            "preemptions": granted.fifo && granted.no_trace.is_none(),
            "faults": granted.memory,
            "no_trace": granted.no_trace,
        },
        "paths": outcomes.iter().map(path_value).collect::<Vec<_>>(),
    });
    to_file(path, |out| {
        Ok(serde_json::to_writer_pretty(out, &document)?)
    })
}

fn path_value(outcome: &Outcome) -> Value {
    json!({
        "path": outcome.key,
        "asked": outcome.count,
        "sent": outcome.messages[0],
        "received": outcome.messages[1],
        "lost": outcome.lost(),
        "clean": outcome.reasons.is_empty(),
        "reasons": outcome.reasons,
        "machine": outcome.machine,
        "threads": outcome.rows.iter().map(thread_value).collect::<Vec<_>>(),
    })
}

fn thread_value(
    Row {
        account: a,
        preempted,
    }: &Row,
) -> Value {
    let kind = |by: &By| match by {
        By::Daemon => "daemon",
        By::Kernel => "kernel",
        By::Ordinary => "ordinary",
        By::Heir => "heir",
        By::Below => "below",
        By::Stranger => "stranger",
    };
    let by = preempted.by.iter();
    let by = by.map(|(by, name, times)| json!({ "name": name, "kind": kind(by), "times": times }));
    json!({
        "role": a.role,
        "name": a.name,
        "priority": a.priority,
        "messages": a.messages,
        "allocations": a.allocations,
        "minor_faults": a.used.minor_faults,
        "major_faults": a.used.major_faults,
        "voluntary_switches": a.used.voluntary_switches,
        "involuntary_switches": a.used.involuntary_switches,
        "preempted_by_lanes": preempted.by_lanes,
        "preempted_by": by.collect::<Vec<_>>(),
        "preempted_by_unknown": preempted.unknown,
        "is_confined": a.is_confined,
        "refused_calls": a.refused_calls,
        "last_refused_call": a.refused_call,
    })
}
