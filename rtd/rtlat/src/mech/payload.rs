//! A stamp in a payload.
//!
//! Constraint: the buffers are made once, with every page present.

use super::{STAMP_BYTES, Stamp};
use rtcore::sys::{Errno, memory};

impl Stamp {
    /// As it travels.
    #[inline]
    pub fn encode(&self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        let words = [self.sequence, self.intended_ns, self.sent_ns];
        for (place, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Out of the beginning of a payload. EBADMSG: too short to have one.
    #[inline]
    pub fn decode(payload: &[u8]) -> Result<Stamp, Errno> {
        let (words, _) = payload.as_chunks::<{ size_of::<u64>() }>();
        let &[sequence, intended, sent, ..] = words else {
            return Err(Errno::BADMSG);
        };
        Ok(Stamp {
            sequence: u64::from_ne_bytes(sequence),
            intended_ns: u64::from_ne_bytes(intended),
            sent_ns: u64::from_ne_bytes(sent),
        })
    }

    /// Writes it to the beginning of a payload. EMSGSIZE: too short.
    #[inline]
    pub fn put_into(&self, payload: &mut [u8]) -> Result<(), Errno> {
        *payload.first_chunk_mut().ok_or(Errno::MSGSIZE)? = self.encode();
        Ok(())
    }
}

/// A payload buffer whose pages are present.
pub fn buffer(bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    memory::touch(&mut buffer);
    buffer
}

/// Refuses a payload that has no room for a stamp, or is longer than the mechanism takes.
pub(super) fn check(what: &str, bytes: usize, bytes_max: usize, fix: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        bytes >= STAMP_BYTES,
        "a payload of {bytes} bytes has no room for the {STAMP_BYTES} bytes of sequence and times: ask for \
         {STAMP_BYTES} or more"
    );
    anyhow::ensure!(
        bytes <= bytes_max,
        "a payload of {bytes} bytes is more than the {bytes_max} that a {what} takes: {fix}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        sequence: 1 << 63 | 7,
        intended_ns: 8,
        sent_ns: 9,
    };

    #[test]
    fn a_stamp_comes_out_as_it_went_in() {
        let mut payload = buffer(100);
        STAMP.put_into(&mut payload).unwrap();
        assert_eq!(Stamp::decode(&payload), Ok(STAMP));
        assert_eq!(Stamp::decode(&payload[..STAMP_BYTES]), Ok(STAMP));
    }

    #[test]
    fn what_is_too_short_has_no_stamp() {
        assert_eq!(Stamp::decode(&[0; STAMP_BYTES - 1]), Err(Errno::BADMSG));
        assert_eq!(
            STAMP.put_into(&mut [0; STAMP_BYTES - 1]),
            Err(Errno::MSGSIZE)
        );
    }

    #[test]
    fn sizes_out_of_range_are_refused_with_the_limit() {
        assert!(
            check("pipe", STAMP_BYTES, 4096, "").is_ok() && check("pipe", 4096, 4096, "").is_ok()
        );
        let short = check("pipe", 23, 4096, "").unwrap_err().to_string();
        assert!(
            short.contains("23 bytes") && short.contains("24 or more"),
            "{short}"
        );
        let long = check("pipe", 4097, 4096, "take unix")
            .unwrap_err()
            .to_string();
        assert!(
            long.contains("4097") && long.contains("4096") && long.ends_with("take unix"),
            "{long}"
        );
    }
}
