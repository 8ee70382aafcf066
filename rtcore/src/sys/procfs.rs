//! What /proc says about a process: credentials, executable, pending signals.
