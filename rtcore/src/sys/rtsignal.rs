//! Real-time and standard signals: numbers, names, sets, sending, waiting.
