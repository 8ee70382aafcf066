//! One input made of others.

/// Edits of one mutation at most.
const EDITS_MAX: usize = 6;
/// Numbers at the edges of types.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    0x7fff_ffff_ffff_ffff,
    u64::MAX - 63,
    u64::MAX,
];

/// Edits `input`, with pieces of `other` and of the words of its format.
pub fn mutate(
    input: &[u8],
    other: &[u8],
    words: &[Vec<u8>],
    bytes_max: usize,
    rng: &mut fastrand::Rng,
) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.usize(1..=EDITS_MAX) {
        edit(&mut bytes, other, words, rng);
    }
    bytes.truncate(bytes_max);
    bytes
}

fn edit(bytes: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], rng: &mut fastrand::Rng) {
    let at = rng.usize(..=bytes.len());
    match rng.u8(..14) {
        0 => flip(bytes, rng),
        1 => overwrite(bytes, at, &[rng.u8(..)]),
        2 => {
            let number = EDGES[rng.usize(..EDGES.len())].to_ne_bytes();
            overwrite(bytes, at, &number[..1 << rng.usize(..4)]);
        }
        3 => {
            let random: Vec<u8> = (0..rng.usize(1..9)).map(|_| rng.u8(..)).collect();
            insert(bytes, at, &random);
        }
        4 => drop(bytes.drain(piece(bytes.len(), rng))),
        5 => {
            let copy = bytes[piece(bytes.len(), rng)].to_vec();
            insert(bytes, at, &copy);
        }
        6 => bytes.truncate(at),
        7 => {
            let from = &other[piece(other.len(), rng)];
            if rng.bool() {
                insert(bytes, at, from)
            } else {
                overwrite(bytes, at, from)
            }
        }
        8 => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
        }
        9 | 10 if !words.is_empty() => {
            let word = &words[rng.usize(..words.len())];
            if rng.bool() {
                insert(bytes, at, word)
            } else {
                overwrite(bytes, at, word)
            }
        }
        11 => number(bytes, at, rng),
        12 => add(bytes, at, rng),
        _ => lines(bytes, rng),
    }
}

/// A range, mostly a short one.
fn piece(len: usize, rng: &mut fastrand::Rng) -> std::ops::Range<usize> {
    let start = rng.usize(..=len);
    let most = if rng.u8(..4) == 0 {
        len - start
    } else {
        32.min(len - start)
    };
    start..start + rng.usize(..=most)
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    drop(bytes.splice(at..at, piece.iter().copied()));
}

fn overwrite(bytes: &mut [u8], at: usize, piece: &[u8]) {
    for (byte, new) in bytes[at..].iter_mut().zip(piece) {
        *byte = *new;
    }
}

fn flip(bytes: &mut [u8], rng: &mut fastrand::Rng) {
    if let Some(byte) = bytes
        .len()
        .checked_sub(1)
        .map(|last| &mut bytes[rng.usize(..=last)])
    {
        *byte ^= 1 << rng.u8(..8);
    }
}

/// Adds a little to a number of the machine's own form.
fn add(bytes: &mut [u8], at: usize, rng: &mut fastrand::Rng) {
    let Some(Ok(word)) = bytes.get(at..at + 4).map(<[u8; 4]>::try_from) else {
        return;
    };
    let by = rng.u32(..33).wrapping_sub(16);
    overwrite(
        bytes,
        at,
        &u32::from_ne_bytes(word).wrapping_add(by).to_ne_bytes(),
    );
}

/// Replaces a number in digits.
fn number(bytes: &mut Vec<u8>, from: usize, rng: &mut fastrand::Rng) {
    let Some(start) = bytes[from..]
        .iter()
        .position(u8::is_ascii_digit)
        .map(|n| from + n)
    else {
        return;
    };
    let len = bytes[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let edge = EDGES[rng.usize(..EDGES.len())];
    let near = edge.wrapping_add(rng.u64(..3)).wrapping_sub(1);
    drop(bytes.splice(start..start + len, near.to_string().into_bytes()));
}

/// Removes, doubles or exchanges lines.
fn lines(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    let mut all: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    if all.is_empty() {
        return;
    }
    let (one, two) = (rng.usize(..all.len()), rng.usize(..all.len()));
    match rng.u8(..3) {
        0 => drop(all.remove(one)),
        1 => all.insert(one, all[two]),
        _ => all.swap(one, two),
    }
    *bytes = all.concat();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_input_within_its_bound() {
        let words = [b"key".to_vec(), b"\xff".to_vec()];
        let make = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            mutate(b"line 1\nline 22\n", b"other", &words, 20, &mut rng)
        };
        let made: Vec<Vec<u8>> = (0..2_000).map(make).collect();
        assert!(made.iter().all(|bytes| bytes.len() <= 20));
        assert_eq!(made, (0..2_000).map(make).collect::<Vec<_>>());
        let distinct: std::collections::BTreeSet<&Vec<u8>> = made.iter().collect();
        assert!(distinct.len() > 1_000, "{}", distinct.len());
    }

    #[test]
    fn nothing_can_be_edited_too() {
        for seed in 0..2_000 {
            mutate(b"", b"", &[], 8, &mut fastrand::Rng::with_seed(seed));
        }
    }
}
