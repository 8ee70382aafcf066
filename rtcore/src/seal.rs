//! The guard on allocations after seal.
