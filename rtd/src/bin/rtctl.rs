//! The hand tool.

fn main() {}
