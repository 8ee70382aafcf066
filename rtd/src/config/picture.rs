//! A picture of a plan as SVG: sources on the left, lanes in the middle with the highest on top,
//! sinks on the right, and a line for each route.
//!
//! Every name has 31 characters at most (`[A-Za-z0-9_.-]`), so no name needs escaping, and all
//! names fit.

use crate::plan::{EndpointId, Path, Plan};
use std::fmt::Write as _;

const WIDTH: usize = 900;
const BOX_WIDTH: usize = 240;
const BOX_HEIGHT: usize = 34;
const STEP: usize = 48;
const TOP: usize = 44;
const LANES_X: usize = 340;
const LANES_WIDTH: usize = WIDTH - 2 * LANES_X;
const SINKS_X: usize = WIDTH - BOX_WIDTH - 10;
const SOURCES_X: usize = 10;

const STYLE: &str = "\
text{font:13px sans-serif;fill:#1b2733}.small{font-size:11px;fill:#5b6b7a}\
.box{fill:#eef3f8;stroke:#8ba3b8}.lane{fill:#fbe9d7;stroke:#c98a4b}\
.route{fill:none;stroke:#c0561b;stroke-width:1.6}.direct{stroke:#2a6f97;stroke-dasharray:6 4}";

/// The picture, with a newline at the end.
pub fn svg(plan: &Plan) -> String {
    let sources = distinct(plan.routes.iter().map(|route| route.from));
    let sinks = distinct(plan.routes.iter().flat_map(|route| route.ends()));
    let mut lanes: Vec<usize> = (0..plan.lanes.len()).collect();
    lanes.sort_by_key(|&lane| std::cmp::Reverse(plan.lanes[lane].priority));
    let rows = sources.len().max(sinks.len()).max(lanes.len());
    let height = TOP + rows * STEP + 34;
    // Writing to a String cannot fail.
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>Lanes and routes of {}</title>\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>",
        plan.daemon.name
    );
    for (x, text) in [
        (SOURCES_X, "sources"),
        (LANES_X, "lanes (SCHED_FIFO)"),
        (SINKS_X, "receivers"),
    ] {
        let _ = writeln!(
            out,
            "<text class=\"small\" x=\"{x}\" y=\"26\">{text}</text>"
        );
    }
    let y_of = |all: &[usize], one: usize| {
        middle(rows, all.len(), all.iter().position(|&other| other == one))
    };
    for route in &plan.routes {
        let (from, lane) = (y_of(&sources, route.from), y_of(&lanes, route.lane));
        let starts = SOURCES_X + BOX_WIDTH;
        if route.path == Path::Routed {
            curve(&mut out, "route", (starts, from), (LANES_X, lane));
        }
        for end in route.ends() {
            let to = y_of(&sinks, end);
            match route.path {
                Path::Routed => curve(
                    &mut out,
                    "route",
                    (LANES_X + LANES_WIDTH, lane),
                    (SINKS_X, to),
                ),
                Path::Direct => curve(&mut out, "route direct", (starts, from), (SINKS_X, to)),
            }
        }
    }
    for &lane in &lanes {
        let (lane, y) = (&plan.lanes[lane], y_of(&lanes, lane));
        let text = format!(
            "{}: priority {}, CPU {}",
            lane.name, lane.priority, lane.cpu
        );
        rectangle(&mut out, "lane", (LANES_X, y), LANES_WIDTH, (&text, None));
    }
    for (x, all) in [(SOURCES_X, &sources), (SINKS_X, &sinks)] {
        for &endpoint in all {
            let (name, kind) = (&plan.endpoints[endpoint].name, kind(plan, endpoint));
            rectangle(
                &mut out,
                "box",
                (x, y_of(all, endpoint)),
                BOX_WIDTH,
                (name, Some(&kind)),
            );
        }
    }
    if plan.routes.iter().any(|route| route.path == Path::Direct) {
        let _ = writeln!(
            out,
            "<text class=\"small\" x=\"{LANES_X}\" y=\"{}\">dashed: direct, not through the daemon</text>",
            height - 12
        );
    }
    out.push_str("</svg>\n");
    out
}

fn distinct(ids: impl Iterator<Item = EndpointId>) -> Vec<EndpointId> {
    let mut all = Vec::new();
    ids.for_each(|id| {
        if !all.contains(&id) {
            all.push(id)
        }
    });
    all
}

/// Height of one of `count` boxes that are spread over `rows`.
fn middle(rows: usize, count: usize, position: Option<usize>) -> usize {
    TOP + rows * STEP * (2 * position.unwrap_or(0) + 1) / (2 * count.max(1))
}

fn kind(plan: &Plan, endpoint: EndpointId) -> String {
    let endpoint = &plan.endpoints[endpoint];
    let kind = endpoint.kind.policy().picture_name();
    match endpoint.owner {
        Some(owner) => format!("{kind} of {}", plan.processes[owner].name),
        None => kind.to_owned(),
    }
}

fn rectangle(
    out: &mut String,
    class: &str,
    (x, y): (usize, usize),
    width: usize,
    text: (&str, Option<&str>),
) {
    let (top, (first, second)) = (y - BOX_HEIGHT / 2, text);
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" rx=\"5\"/>"
    );
    let base = if second.is_some() { y - 2 } else { y + 5 };
    let _ = writeln!(out, "<text x=\"{}\" y=\"{base}\">{first}</text>", x + 10);
    if let Some(second) = second {
        let _ = writeln!(
            out,
            "<text class=\"small\" x=\"{}\" y=\"{}\">{second}</text>",
            x + 10,
            y + 12
        );
    }
}

fn curve(out: &mut String, class: &str, (x1, y1): (usize, usize), (x2, y2): (usize, usize)) {
    let bend = (x1 + x2) / 2;
    let _ = writeln!(
        out,
        "<path class=\"{class}\" d=\"M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}\"/>"
    );
}
