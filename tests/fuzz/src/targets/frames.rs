//! Bytes as frames of the control socket, in both directions: what is accepted is, encoded again,
//! the same bytes.

use rtcore::wire::{Answer, FRAME_BYTES, Frame, Notice, Request, VERSION};

/// Decodes the bytes as they are, and as the body of a frame whose header is right.
pub fn play(bytes: &[u8]) {
    check(bytes);
    let mut frame: Frame = [0; FRAME_BYTES];
    frame[..4].copy_from_slice(b"rtd\0");
    frame[4..6].copy_from_slice(&VERSION.to_ne_bytes());
    let body = &bytes[..bytes.len().min(FRAME_BYTES - 6)];
    frame[6..6 + body.len()].copy_from_slice(body);
    check(&frame);
}

fn check(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(Answer::Notice(Notice::Channel(channel))) = Answer::decode(bytes) {
        let _ = channel.geometry();
    }
    match Answer::decode(bytes) {
        Ok(Answer::Reply(reply)) => assert_eq!(reply.encode(), bytes),
        Ok(Answer::Notice(notice)) => assert_eq!(notice.encode(), bytes),
        Err(_) => {}
    }
}
