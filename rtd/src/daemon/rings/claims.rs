//! Reports of the receivers' library: messages that it discarded or returned late.
//!
//! Constraint: a receiver writes these numbers into its own half of a ring. They are untrusted:
//! numbers that cannot be true are not shown, and a receiver that reports other false numbers
//! falsifies only its own figures.

use rtcore::ring::{Claims, Watch};
use rtcore::stats::cells::ClaimsCell;
use rtcore::sys::pidfd::PidFd;
use std::sync::Arc;

/// The reports of one end of a route, for all its successive rings.
#[derive(Debug, Default)]
pub struct Reports {
    gone: Claims,
    current: Option<(Watch, Arc<PidFd>)>,
    /// Rings of sessions that are over. Their receivers may keep reading, if they live.
    leaving: Vec<(Watch, Arc<PidFd>)>,
    /// Messages in such rings that nobody reads any more.
    unread: u64,
    last: Claims,
    cell: Option<ClaimsCell>,
    is_reported: bool,
}

/// Limit of the earlier rings of a receiver that does not read them; messages in further ones are
/// not counted.
const LEAVING_MAX: usize = 4;

impl Reports {
    /// Sets the cell that shows the reports from now on.
    pub fn show(&mut self, cell: ClaimsCell) {
        self.cell = Some(cell);
    }

    /// The receiver, this process, has a new ring.
    pub fn begin(&mut self, ring: Watch, process: Arc<PidFd>) {
        self.end();
        self.current = Some((ring, process));
    }

    /// The receiver's session is over: its reports stay, its memory goes.
    pub fn end(&mut self) {
        self.poll();
        self.gone = sum(&self.gone, &self.last);
        let over = self.current.take();
        if self.leaving.len() < LEAVING_MAX {
            self.leaving.extend(over);
        }
        (self.last, self.is_reported) = (Claims::default(), false);
    }

    /// Number of further messages in rings that nobody reads any more. Call it when no lane writes
    /// into the rings of sessions that are over.
    pub fn count_unread(&mut self) -> u64 {
        let mut found = 0;
        self.leaving.retain(|(ring, process)| {
            let over = !process.is_alive() || ring.has_left();
            // Read afterwards: these are the last values that its receiver has written.
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

    /// Reads the reports and shows them; false, once for each ring, if they cannot be true.
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

/// The difference from an earlier report.
pub fn since(before: &Claims, now: &Claims) -> Claims {
    Claims {
        expired: now.expired.saturating_sub(before.expired),
        superseded: now.superseded.saturating_sub(before.superseded),
        late: now.late.saturating_sub(before.late),
    }
}
