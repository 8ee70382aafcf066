//! Pictures as SVG text.
//!
//! Constraint: legible in print and to the colour-blind: white background, text of 13 px and more,
//! the meaning of a colour is also written beside it. All pictures are [`WIDTH_PX`] wide; the
//! height follows the number of rows. Invariant: a picture is a function of its arguments; any
//! measurement, empty ones too, gives one.

pub mod comparison;
pub mod histogram;
pub mod percentiles;
#[cfg(test)]
mod tests;

use crate::series::Series;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width of every picture.
pub const WIDTH_PX: u32 = 960;

/// Height of a chart without its legend, in pixels.
const CHART_PX: u32 = 440;
/// One row of a legend.
const LINE_PX: i32 = 22;
/// Size of all text but titles.
const TEXT_PX: f64 = 13.0;
/// Characters of a name that are shown.
const NAME_CHARS_MAX: usize = 30;
/// Series that a legend names; the rest are counted.
const LEGEND_ROWS_MAX: usize = 24;

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// Of series, each a colour in all figures of a report: Okabe and Ito's, which the colour-blind can
/// tell apart, without their yellow, which is unreadable on white, and some of Tol's. Placements
/// have colours that are not among them.
const PALETTE: [RGBColor; 14] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x00, 0x00),
    RGBColor(0x80, 0x80, 0x80),
    RGBColor(0x88, 0x22, 0x55),
    RGBColor(0x99, 0x99, 0x33),
    RGBColor(0x44, 0xaa, 0x99),
    RGBColor(0x66, 0x11, 0x00),
    RGBColor(0x66, 0x99, 0xcc),
    RGBColor(0x11, 0x77, 0x33),
];

/// A figure of some series, with the settings that it shares with others of the same report.
#[derive(Clone, Copy, Debug)]
pub struct Figure<'a> {
    pub title: &'a str,
    /// The series that the figure draws.
    pub series: &'a [&'a Series],
    /// The place of each among all, which its colour follows from.
    pub places: &'a [usize],
    /// The series of all figures beside it: they have the same axes.
    pub sisters: &'a [&'a Series],
}

impl Figure<'_> {
    fn colour(&self, at: usize) -> RGBColor {
        colour(self.places.get(at).copied().unwrap_or(at))
    }
}

/// Times the body of the samples that an axis goes: a value beyond it is an arrow with the value
/// beside it.
const BEYOND_BODY: f64 = 10.0;

/// An arrow head at this place, to the right or up, and the value that it stands for, left of it.
fn arrow(
    area: &Area,
    (x, y): (i32, i32),
    is_up: bool,
    colour: RGBColor,
    value: String,
) -> anyhow::Result<()> {
    let corners = if is_up {
        [(x - 5, y + 8), (x + 5, y + 8), (x, y)]
    } else {
        [(x - 8, y - 5), (x - 8, y + 5), (x, y)]
    };
    area.draw(&Polygon::new(corners, colour.filled()))?;
    let y = if is_up { y + 6 } else { y };
    let width_px = i32::try_from(value.chars().count()).unwrap_or(0) * 7 + 4;
    area.draw(&Rectangle::new(
        [(x - 12 - width_px, y - 7), (x - 11, y + 7)],
        WHITE.filled(),
    ))?;
    area.draw(&Text::new(value, (x - 13, y), font(TEXT_PX, HPos::Right)))?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Scale, Scale>>;

/// A scale: its ends, and where which text stands. Logarithmic scales are in powers of ten.
struct Scale {
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
    title: &'static str,
}

impl Scale {
    /// The position of a value between two pixels; a value outside the scale is at its end.
    fn place(&self, at: f64, (first, last): (i32, i32)) -> i32 {
        let part = ((at - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        first + whole(part * f64::from(last - first))
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.place(*value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        let found = self
            .ticks
            .iter()
            .find(|(tick, _)| (tick - value).abs() < 1e-9);
        found.map_or_else(String::new, |(_, text)| text.clone())
    }
}

/// Microseconds, linear from 0 to at least `high`.
fn linear_us(high: f64, title: &'static str) -> Scale {
    let rough = high.max(1.0) / 10.0;
    let magnitude = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .iter()
        .map(|times| times * magnitude)
        .find(|step| *step >= rough);
    let step = step.unwrap_or(rough).max(1.0);
    let ticks = (0..=10)
        .map(|n| f64::from(n) * step)
        .filter(|at| *at <= high * 1.001);
    Scale {
        low: 0.0,
        high,
        ticks: ticks.map(|at| (at, number(at))).collect(),
        title,
    }
}

/// Microseconds, logarithmic, from `low` to `high` widened to the next ticks; both in us and above
/// 0.
fn log_us(low: f64, high: f64, title: &'static str) -> Scale {
    let (low, high) = (low.max(0.001), high.max(low * 1.01).max(0.002));
    let steps: &[f64] = match high / low {
        span if span < 100.0 => &[1.0, 2.0, 5.0],
        span if span < 3000.0 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let candidates: Vec<f64> = (-4..=9)
        .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
        .collect();
    let first = candidates
        .iter()
        .rev()
        .copied()
        .find(|at| *at <= low * 1.0001)
        .unwrap_or(low);
    let last = candidates
        .iter()
        .copied()
        .find(|at| *at >= high * 0.9999)
        .unwrap_or(high);
    let ticks = candidates.iter().filter(|at| (first..=last).contains(*at));
    let ticks = ticks.map(|at| (at.log10(), number(*at))).collect();
    Scale {
        low: first.log10(),
        high: last.log10(),
        ticks,
        title,
    }
}

/// A number of us or samples with as many decimals as it deserves, digits in groups of three.
fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 10.0 {
        let text = format!("{value:.2}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        return if text == "0" {
            format!("{value:.3}")
        } else {
            text.to_owned()
        };
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len() >= 4 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(digit);
    }
    out
}

/// Nanoseconds as us, for a scale.
#[expect(clippy::cast_precision_loss, reason = "a position in a picture")]
fn to_us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// Microseconds as they stand in a column: three digits that count.
fn us_text(us: f64) -> String {
    match us {
        _ if us < 9.995 => format!("{us:.2}"),
        _ if us < 99.95 => format!("{us:.1}"),
        _ => {
            let step = 10f64.powf(us.log10().floor() - 2.0);
            number((us / step).round() * step)
        }
    }
}

/// A distance in pixels.
#[expect(clippy::cast_possible_truncation, reason = "a pixel of a picture")]
fn whole(px: f64) -> i32 {
    px.round() as i32
}

/// A count, for a scale.
#[expect(clippy::cast_precision_loss, reason = "a position in a picture")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

/// Text of `px` pixels. The backend divides its sizes by 1.24.
fn font(px: f64, horizontal: HPos) -> TextStyle<'static> {
    let style = ("sans-serif", px * 1.24).into_font().color(&INK);
    style.pos(Pos::new(horizontal, VPos::Center))
}

/// Makes a picture of this height and lets `paint` fill it.
fn svg(height_px: u32, paint: impl FnOnce(&Area) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, (WIDTH_PX, height_px)).into_drawing_area();
        root.fill(&WHITE)?;
        paint(&root)?;
        root.present()?;
    }
    Ok(out)
}

/// Title and line below it, at the top.
fn head(area: &Area, title: &str, below: &str) -> anyhow::Result<()> {
    let bold = font(18.0, HPos::Left);
    let bold = TextStyle {
        font: bold.font.style(FontStyle::Bold),
        ..bold
    };
    area.draw(&Text::new(super::clean(title, 90), (20, 20), bold))?;
    area.draw(&Text::new(
        super::clean(below, 130),
        (20, 42),
        font(TEXT_PX, HPos::Left),
    ))?;
    Ok(())
}

/// Axes with their labels and grid, between `top_px` and `bottom_px` of the area.
fn chart<'a, 'b>(
    area: &'a Area<'b>,
    (top_px, bottom_px): (u32, u32),
    x: Scale,
    y: Scale,
) -> anyhow::Result<Chart<'a, 'b>> {
    let (x_title, y_title) = (x.title, y.title);
    let mut chart = ChartBuilder::on(area)
        .margin_top(top_px)
        .margin_bottom(area.dim_in_pixel().1.saturating_sub(bottom_px))
        .margin_left(16)
        .margin_right(30)
        .x_label_area_size(48)
        .y_label_area_size(76)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style(("sans-serif", TEXT_PX * 1.24).into_font().color(&INK))
        .axis_desc_style(("sans-serif", 14.0 * 1.24).into_font().color(&INK))
        .x_desc(x_title)
        .y_desc(y_title)
        .draw()?;
    Ok(chart)
}

/// A word in the middle of an empty chart.
fn nothing(area: &Area, bottom_px: i32) -> anyhow::Result<()> {
    let middle = (i32::try_from(WIDTH_PX / 2)?, bottom_px / 2);
    area.draw(&Text::new("no samples", middle, font(18.0, HPos::Center)))?;
    Ok(())
}

/// The table below a chart that says which line is what.
struct Legend<'a> {
    /// Title and right end of each number's column.
    columns: &'a [(&'static str, i32)],
    /// Colour, name and numbers.
    rows: Vec<(RGBColor, String, Vec<String>)>,
}

impl Legend<'_> {
    fn height_px(rows: usize) -> u32 {
        let rows = rows.min(LEGEND_ROWS_MAX + 1) + 1;
        u32::try_from(rows).unwrap_or(0) * LINE_PX.unsigned_abs() + 26
    }

    fn draw(&self, area: &Area, top_px: i32) -> anyhow::Result<()> {
        let left = font(TEXT_PX, HPos::Left);
        let right = font(TEXT_PX, HPos::Right);
        let mut y = top_px + LINE_PX;
        area.draw(&Text::new("series", (72, y), left.clone()))?;
        for (title, end) in self.columns {
            area.draw(&Text::new(*title, (*end, y), right.clone()))?;
        }
        let rule = y + LINE_PX / 2;
        area.draw(&PathElement::new([(24, rule), (930, rule)], FAINT))?;
        for (colour, name, numbers) in self.rows.iter().take(LEGEND_ROWS_MAX) {
            y += LINE_PX;
            area.draw(&PathElement::new(
                [(24, y), (60, y)],
                colour.stroke_width(3),
            ))?;
            area.draw(&Text::new(name.as_str(), (72, y), left.clone()))?;
            for (number, (_, end)) in numbers.iter().zip(self.columns) {
                area.draw(&Text::new(number.as_str(), (*end, y), right.clone()))?;
            }
        }
        if self.rows.len() > LEGEND_ROWS_MAX {
            let more = format!(
                "and {} more, drawn in the same colours",
                self.rows.len() - LEGEND_ROWS_MAX
            );
            area.draw(&Text::new(more, (72, y + LINE_PX), left))?;
        }
        Ok(())
    }
}

/// The colour of the line at this place.
fn colour(at: usize) -> RGBColor {
    PALETTE[at % PALETTE.len()]
}
