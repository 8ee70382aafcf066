//! Texts against hand-built series, and against what the real programs print and take.

mod builder;
mod formats;
mod live;
mod plot;
mod real;
mod text;
