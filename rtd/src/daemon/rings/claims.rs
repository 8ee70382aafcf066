//! What the library of a route's receivers reports: messages that it discarded, or handed out late.
//!
//! Constraint: a receiver writes these numbers into its own half of a ring. They are untrusted: numbers that cannot be
//! true are not shown, and a receiver that lies about the rest spoils its own figures only.

use rtcore::ring::{Claims, Watch};
use rtcore::stats::writer::ClaimsCell;

/// One end of a route: the reports of all the rings that it has had.
#[derive(Debug, Default)]
pub struct Reports {
    gone: Claims,
    current: Option<Watch>,
    last: Claims,
    cell: Option<ClaimsCell>,
    told: bool,
}

impl Reports {
    /// Where they are shown from now on.
    pub fn show(&mut self, cell: ClaimsCell) {
        self.cell = Some(cell);
    }

    /// The receiver has a ring.
    pub fn begin(&mut self, ring: Watch) {
        self.end();
        self.current = Some(ring);
    }

    /// The receiver's session is over: what it has reported stays, its memory goes.
    pub fn end(&mut self) {
        self.look();
        self.gone = sum(&self.gone, &self.last);
        (self.current, self.last, self.told) = (None, Claims::default(), false);
    }

    /// Reads the reports and shows them; false, once a ring, when they cannot be true.
    pub fn look(&mut self) -> bool {
        let Some(ring) = &self.current else { return true };
        let read = ring.claims().filter(|now| grows(&self.last, now));
        let Some(now) = read else { return std::mem::replace(&mut self.told, true) };
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

/// Both together.
pub fn sum(a: &Claims, b: &Claims) -> Claims {
    Claims {
        expired: a.expired.saturating_add(b.expired),
        superseded: a.superseded.saturating_add(b.superseded),
        late: a.late.saturating_add(b.late),
    }
}
