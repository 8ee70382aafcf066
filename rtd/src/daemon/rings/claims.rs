//! What the library of a route's receivers reports: messages that it discarded, or handed out late.
//!
//! Constraint: a receiver writes these numbers into its own half of a ring. They are untrusted:
//! numbers that cannot be true are not shown, and a receiver that reports false numbers otherwise
//! spoils its own figures only.

use rtcore::ring::{Claims, Watch};
use rtcore::stats::cells::ClaimsCell;
use rtcore::sys::pidfd::PidFd;
use std::sync::Arc;

/// One end of a route: the reports of all the rings that it has had.
#[derive(Debug, Default)]
pub struct Reports {
    gone: Claims,
    current: Option<(Watch, Arc<PidFd>)>,
    /// Rings of sessions that are over. Their receivers may read on, if they live.
    leaving: Vec<(Watch, Arc<PidFd>)>,
    /// Messages in such rings that nobody reads any more.
    unread: u64,
    last: Claims,
    cell: Option<ClaimsCell>,
    is_reported: bool,
}

/// Rings of sessions that are over, of one receiver that does not read them; what is in those
/// beyond is not counted.
const LEAVING_MAX: usize = 4;

impl Reports {
    /// Where they are shown from now on.
    pub fn show(&mut self, cell: ClaimsCell) {
        self.cell = Some(cell);
    }

    /// The receiver, this process, has a ring.
    pub fn begin(&mut self, ring: Watch, process: Arc<PidFd>) {
        self.end();
        self.current = Some((ring, process));
    }

    /// The receiver's session is over: what it has reported stays, its memory goes.
    pub fn end(&mut self) {
        self.poll();
        self.gone = sum(&self.gone, &self.last);
        let over = self.current.take();
        if self.leaving.len() < LEAVING_MAX {
            self.leaving.extend(over);
        }
        (self.last, self.is_reported) = (Claims::default(), false);
    }

    /// How many messages more are in rings that nobody reads any more. To be called when no lane
    /// writes into the rings of sessions that are over.
    pub fn count_unread(&mut self) -> u64 {
        let mut found = 0;
        self.leaving.retain(|(ring, process)| {
            let over = !process.is_alive() || ring.has_left();
            // After that: what is read next is the last that its receiver has written.
            let left = ring.left();
            found += if over { left } else { 0 };
            !over && left > 0
        });
        self.unread = self.unread.saturating_add(found);
        if let (Some(cell), true) = (&mut self.cell, found > 0) {
            cell.show_unread(self.unread);
        }
        found
    }

    /// Reads the reports and shows them; false, once a ring, when they cannot be true.
    pub fn poll(&mut self) -> bool {
        let Some((ring, _)) = &self.current else {
            return true;
        };
        let read = ring.claims().filter(|now| grows(&self.last, now));
        let Some(now) = read else {
            return std::mem::replace(&mut self.is_reported, true);
        };
        self.last = now;
        if let Some(cell) = &mut self.cell {
            cell.show(&sum(&self.gone, &now));
        }
        true
    }
}

/// Whether a later report can follow an earlier one.
pub fn grows(before: &Claims, now: &Claims) -> bool {
    now.expired >= before.expired && now.superseded >= before.superseded && now.late >= before.late
}

/// The sum of both.
pub fn sum(a: &Claims, b: &Claims) -> Claims {
    Claims {
        expired: a.expired.saturating_add(b.expired),
        superseded: a.superseded.saturating_add(b.superseded),
        late: a.late.saturating_add(b.late),
    }
}

/// What was added to an earlier report.
pub fn since(before: &Claims, now: &Claims) -> Claims {
    Claims {
        expired: now.expired.saturating_sub(before.expired),
        superseded: now.superseded.saturating_sub(before.superseded),
        late: now.late.saturating_sub(before.late),
    }
}
