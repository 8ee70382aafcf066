//! Policy of rtd: configuration to plan to running lanes, the registry, and the tools.
//!
//! The way of a configuration is a straight line: text -> `Config` -> [`plan::Plan`] ->
//! sealed -> running. A `Plan` that exists is valid.

pub mod child;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod demo;
pub mod endpoint;
pub mod log;
pub mod plan;
pub mod sessions;
pub mod words;
