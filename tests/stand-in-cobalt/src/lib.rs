//! A stand-in for `libcobalt.so.2`.
