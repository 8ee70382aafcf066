//! What is played against: one function per reader of what others wrote. Each returns, whatever the
//! bytes; what a reader accepts it checks as far as the reader's documentation promises something.

mod config;
mod frames;
mod kept;
mod page;
mod ring;
mod tools;

/// A reader.
#[derive(Debug)]
pub struct Target {
    /// As it is called on the command line, and its directory in the corpus.
    pub name: &'static str,
    /// Plays one input.
    pub play: fn(&[u8]),
    /// Inputs to start from beside those that are saved.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Pieces that its format is made of.
    pub words: fn() -> Vec<Vec<u8>>,
    /// Longest input.
    pub bytes_max: usize,
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "config",
        play: config::play,
        seeds: config::seeds,
        words: config::words,
        bytes_max: 16_384,
    },
    Target {
        name: "frames",
        play: frames::play,
        seeds: Vec::new,
        words: Vec::new,
        bytes_max: 300,
    },
    Target {
        name: "kept",
        play: kept::play,
        seeds: kept::seeds,
        words: kept::words,
        bytes_max: 4096,
    },
    Target {
        name: "page",
        play: page::play,
        seeds: page::seeds,
        words: Vec::new,
        bytes_max: 1024,
    },
    Target {
        name: "ring",
        play: ring::play,
        seeds: Vec::new,
        words: Vec::new,
        bytes_max: 2048,
    },
    Target {
        name: "tools",
        play: tools::play,
        seeds: page::seeds,
        words: Vec::new,
        bytes_max: 1024,
    },
];

/// The words of a text, each once.
fn words_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Vec<u8>> {
    let is_part = |c: char| c.is_alphanumeric() || "_-+.:/".contains(c);
    let texts = texts.into_iter();
    let words = texts
        .flat_map(|text| text.split(move |c| !is_part(c)))
        .filter(|word| !word.is_empty());
    let all: std::collections::BTreeSet<&str> = words.collect();
    all.into_iter()
        .map(|word| word.as_bytes().to_vec())
        .collect()
}
