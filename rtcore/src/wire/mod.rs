//! Frames of the control socket.
