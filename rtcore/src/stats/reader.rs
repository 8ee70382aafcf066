//! The outsider's side of the page: map read-only, validate, snapshot.
