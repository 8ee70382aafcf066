//! Locking, prefaulting and the allocator settings that keep pages resident.
