//! Texts against hand-built series, and against the output and input of the real programs.

mod builder;
mod formats;
mod live;
mod plot;
mod real;
mod text;
