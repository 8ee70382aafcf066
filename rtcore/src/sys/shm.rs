//! Named shared memory on tmpfs.
