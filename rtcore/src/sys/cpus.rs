//! Which CPUs exist, are allowed and are isolated.
