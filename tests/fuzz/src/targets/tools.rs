//! What `rtctl` prints of a page, and what the next daemon of the instance makes of it.

use super::page::snapshot;
use rtd::config::{Machine, check};
use rtd::ctl::ls::listing;
use rtd::ctl::stats::{StatsArgs, totals};
use rtd::daemon::LastLife;
use rtd::plan::Plan;
use std::sync::OnceLock;

/// Texts without control characters, JSON that can be parsed.
pub fn play(bytes: &[u8]) {
    let Ok(read) = snapshot(bytes) else { return };
    for columns in [None, Some(80), Some(1)] {
        printable(&listing(&read, columns));
    }
    let reasons = StatsArgs {
        reasons: true,
        ..StatsArgs::default()
    };
    printable(&totals(&read, &reasons).expect("nothing is selected"));
    let json = StatsArgs {
        json: true,
        ..StatsArgs::default()
    };
    let text = totals(&read, &json).expect("nothing is selected");
    assert!(
        serde_json::from_str::<serde_json::Value>(&text).is_ok(),
        "{text}"
    );
    drop(LastLife::of(&read, plan()));
}

fn printable(text: &str) {
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
}

/// A configuration with a route that the page also has.
fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    let text = "[[lane]]\nname = \"control\"\npriority = 50\ncpu = 0\n\
                [[endpoint]]\nname = \"in\"\nkind = \"mqueue\"\nmsgsize = 64\n\
                [[endpoint]]\nname = \"out\"\nkind = \"mqueue\"\nmsgsize = 64\n\
                [[route]]\nfrom = \"in\"\nto = [\"out\"]\nlane = \"control\"\n";
    PLAN.get_or_init(|| check("fuzz.toml", text, &Machine::unknown()).expect("it is valid"))
}
