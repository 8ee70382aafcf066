//! A comparison as one picture: a row per path, both placements below each other, the same scale
//! for all.

use super::{
    Area, BEYOND_BODY, FAINT, INK, NAME_CHARS_MAX, Scale, TEXT_PX, arrow, font, head, log_us,
    nothing, svg, to_us, us_text,
};
use crate::report::{PLACEMENTS, clean, conditions, is_routed, paths, raw_at, row};
use crate::series::{Comparison, Placement, Row};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

/// Left and right end of the scale.
const SCALE_PX: (i32, i32) = (210, 640);
/// Right ends of the columns beside it.
const COLUMNS: [(&str, i32); 4] = [
    ("p50 us", 700),
    ("p99 us", 775),
    ("max us", 855),
    ("x mq", 930),
];
/// Distance of the rows from the top.
const TOP_PX: i32 = 118;
/// One placement of one path.
const BAR_PX: i32 = 20;
/// Between two paths.
const GAP_PX: i32 = 10;
/// Title of a group.
const GROUP_PX: i32 = 30;
/// Below the rows: the scale's numbers and its title.
const FOOT_PX: i32 = 66;

/// Draws median to 99th percentile as a bar and the largest as a tick, per path and placement, from
/// raw latencies on the schedule.
pub fn comparison(title: &str, comparison: &Comparison) -> anyhow::Result<String> {
    let paths = paths(comparison);
    let groups: Vec<(&str, Vec<&str>)> = [("raw mechanisms", false), ("through rtd", true)]
        .iter()
        .map(|&(name, routed)| {
            (
                name,
                paths
                    .iter()
                    .copied()
                    .filter(|path| is_routed(path) == routed)
                    .collect(),
            )
        })
        .filter(|(_, paths): &(&str, Vec<&str>)| !paths.is_empty())
        .collect();
    let path_px = 2 * BAR_PX + GAP_PX;
    let rows_px = i32::try_from(groups.len())? * GROUP_PX + i32::try_from(paths.len())? * path_px;
    let bottom_px = TOP_PX + rows_px.max(60);
    let scale = scale(comparison);
    svg(u32::try_from(bottom_px + FOOT_PX)?, |area| {
        head(area, title, &conditions(comparison))?;
        legend(area)?;
        grid(area, &scale, bottom_px)?;
        if paths.is_empty() {
            nothing(area, 2 * TOP_PX + 60)?;
        }
        let mut y = TOP_PX;
        for (name, paths) in groups {
            let bold = font(TEXT_PX, HPos::Left);
            let bold = TextStyle {
                font: bold.font.style(FontStyle::Bold),
                ..bold
            };
            area.draw(&Text::new(name, (20, y + GROUP_PX / 2), bold))?;
            y += GROUP_PX;
            for path in paths {
                area.draw(&PathElement::new([(20, y), (930, y)], FAINT))?;
                let name = clean(path, NAME_CHARS_MAX - 4);
                area.draw(&Text::new(
                    name,
                    (20, y + path_px / 2),
                    font(TEXT_PX, HPos::Left),
                ))?;
                for (at, &placement) in (0..).zip(&PLACEMENTS) {
                    let middle = y + GAP_PX / 2 + BAR_PX / 2 + at * BAR_PX;
                    bar(
                        area,
                        comparison,
                        row(comparison, path, placement),
                        middle,
                        &scale,
                    )?;
                }
                y += path_px;
            }
        }
        Ok(())
    })
}

fn colour(placement: Placement) -> RGBColor {
    match placement {
        Placement::Same => RGBColor(0x33, 0x22, 0x88),
        Placement::Other => RGBColor(0xcc, 0xbb, 0x66),
    }
}

fn scale(comparison: &Comparison) -> Scale {
    let filled = comparison
        .rows
        .iter()
        .filter(|row| row.paced.counts.received > 0);
    let ends = filled.map(|row| {
        let median_ns = row.paced.raw.value_at_quantile(0.5);
        let busy_ns = if row.busy.raw.is_empty() {
            median_ns
        } else {
            row.busy.raw.value_at_quantile(0.5)
        };
        (
            to_us(median_ns.min(busy_ns)),
            to_us(row.paced.max_ns.max(busy_ns)),
        )
    });
    let ends: Vec<(f64, f64)> = ends.collect();
    let low = ends
        .iter()
        .map(|(low, _)| *low)
        .reduce(f64::min)
        .unwrap_or(1.0);
    let mut highs: Vec<f64> = ends.iter().map(|(_, high)| *high).collect();
    highs.sort_by(f64::total_cmp);
    // A value far beyond the largest of three quarters of the rows is drawn as an arrow.
    let body = highs
        .get(highs.len().saturating_sub(1) * 3 / 4)
        .copied()
        .unwrap_or(100.0);
    let high = highs
        .last()
        .copied()
        .unwrap_or(100.0)
        .min(body * BEYOND_BODY);
    log_us(low, high, "latency (us, logarithmic)")
}

/// The position of a latency on the scale, in pixels.
fn place(scale: &Scale, ns: u64) -> i32 {
    scale.place(to_us(ns.max(1)).log10(), SCALE_PX)
}

fn legend(area: &Area) -> anyhow::Result<()> {
    let y = 68;
    let left = font(TEXT_PX, HPos::Left);
    for (x, placement) in [(20, PLACEMENTS[0]), (125, PLACEMENTS[1])] {
        area.draw(&Rectangle::new(
            [(x, y - 6), (x + 22, y + 6)],
            colour(placement).filled(),
        ))?;
        area.draw(&Text::new(placement.text(), (x + 28, y), left.clone()))?;
    }
    let x = 250;
    area.draw(&Rectangle::new([(x, y - 6), (x + 40, y + 6)], INK))?;
    area.draw(&Text::new("p50 to p99", (x + 46, y), left.clone()))?;
    area.draw(&PathElement::new([(x + 130, y), (x + 160, y)], INK))?;
    area.draw(&PathElement::new(
        [(x + 160, y - 6), (x + 160, y + 6)],
        INK.stroke_width(2),
    ))?;
    area.draw(&Text::new("max", (x + 167, y), left.clone()))?;
    area.draw(&Circle::new((x + 222, y), 4, WHITE.filled()))?;
    area.draw(&Circle::new((x + 222, y), 4, INK))?;
    area.draw(&Text::new("p50 back to back", (x + 232, y), left.clone()))?;
    area.draw(&Text::new(
        "x mq: median of per-turn ratios to mq",
        (930, y),
        font(TEXT_PX, HPos::Right),
    ))?;
    for (title, end) in COLUMNS {
        area.draw(&Text::new(
            title,
            (end, TOP_PX - 20),
            font(TEXT_PX, HPos::Right),
        ))?;
    }
    Ok(())
}

fn grid(area: &Area, scale: &Scale, bottom_px: i32) -> anyhow::Result<()> {
    for (at, text) in &scale.ticks {
        let x = scale.place(*at, SCALE_PX);
        area.draw(&PathElement::new([(x, TOP_PX), (x, bottom_px)], FAINT))?;
        area.draw(&Text::new(
            text.as_str(),
            (x, bottom_px + 14),
            font(TEXT_PX, HPos::Center),
        ))?;
    }
    let (left, right) = SCALE_PX;
    area.draw(&PathElement::new(
        [(left, bottom_px), (right, bottom_px)],
        INK,
    ))?;
    let middle = ((left + right) / 2, bottom_px + 42);
    area.draw(&Text::new(scale.title, middle, font(14.0, HPos::Center)))?;
    Ok(())
}

fn bar(
    area: &Area,
    all: &Comparison,
    row: Option<&Row>,
    y: i32,
    scale: &Scale,
) -> anyhow::Result<()> {
    let Some(row) = row else { return Ok(()) };
    let right = font(TEXT_PX, HPos::Right);
    if row.paced.counts.received == 0 {
        let text = format!("no message came ({})", row.placement.text());
        area.draw(&Text::new(
            text,
            (SCALE_PX.0 + 8, y),
            font(TEXT_PX, HPos::Left),
        ))?;
        return Ok(());
    }
    let [p50, p99] = [0.5, 0.99].map(|quantile| raw_at(&row.paced, quantile));
    let [from, to, end] = [p50, p99, row.paced.max_ns].map(|ns| place(scale, ns));
    let colour = colour(row.placement);
    area.draw(&PathElement::new([(to, y), (end, y)], colour))?;
    let is_beyond = to_us(row.paced.max_ns.max(1)).log10() > scale.high;
    if !is_beyond {
        area.draw(&PathElement::new(
            [(end, y - 6), (end, y + 6)],
            colour.stroke_width(2),
        ))?;
    }
    area.draw(&Rectangle::new(
        [(from, y - 6), (to.max(from + 3), y + 6)],
        colour.filled(),
    ))?;
    if !row.busy.raw.is_empty() {
        let busy = (place(scale, row.busy.raw.value_at_quantile(0.5)), y);
        area.draw(&Circle::new(busy, 4, WHITE.filled()))?;
        area.draw(&Circle::new(busy, 4, INK))?;
    }
    if is_beyond {
        arrow(
            area,
            (SCALE_PX.1 + 8, y),
            false,
            colour,
            us_text(to_us(row.paced.max_ns)),
        )?;
    }
    let reference = all.reference(row.placement);
    let ratio = reference.and_then(|reference| row.ratio(reference, |turn| turn.paced_p50_ns));
    let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("x {ratio:.2}"));
    let numbers = [
        us_text(to_us(p50)),
        us_text(to_us(p99)),
        us_text(to_us(row.paced.max_ns)),
        ratio,
    ];
    for (number, (_, end)) in numbers.into_iter().zip(COLUMNS) {
        area.draw(&Text::new(number, (end, y), right.clone()))?;
    }
    Ok(())
}
