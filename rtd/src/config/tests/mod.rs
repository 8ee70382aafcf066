//! Behaviour of the check as its users see it: what is reported, where, and with which fix.

mod account;
mod direct;
mod examples;
mod hints;
mod keys;
mod limits;
mod properties;
mod rules;
mod shared;
mod signals;
mod skins;
mod stale;
mod util;
mod watch;
