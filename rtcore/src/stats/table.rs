//! What is known of one counter, and how a table of counters becomes words of the page, sums,
//! differences and figures.
//!
//! `counters!` turns each table of [`super::counters`] into a struct with a field for each counter.
//! The words of the page, their order, the merging of several threads or routes, the difference of
//! two snapshots, the keys of the JSON and the columns of `rtctl stats` follow from the table.
//!
//! Invariant: `fingerprint` of the tables is part of the layout's version, so a page whose counters
//! differ from those of the reader is never read.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    pub name: &'static str,
    /// Words of the page: 1, or one for each element of an array.
    pub words: usize,
    /// How several values become one.
    pub merge: Merge,
    /// The meaning of the value, which decides how it is shown.
    pub unit: Unit,
    /// Key in the JSON; the field's name unless the table says otherwise.
    pub key: &'static str,
    /// Whether the JSON has it.
    pub is_shown: bool,
    /// Whether a lane shows the merged value of its threads. A counter with a column always does.
    pub of_lane: bool,
    /// Its column in `rtctl stats`.
    pub column: Option<Title>,
}

/// The head of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Title {
    pub text: &'static str,
    /// 0: the column is always there. The higher the rank, the earlier the column is left out where
    /// there is no room.
    pub rank: u8,
}

/// How the values of several threads or routes become one, and what an interval shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Things that happened: their sum; of an interval the difference.
    Sum,
    /// Things that are there now: their sum; of an interval what is there at its end.
    Level,
    /// The highest value; of an interval the highest since the start.
    Max,
    /// The last value that is not 0; of an interval the value at its end.
    Last,
}

/// The meaning of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of messages, calls or events.
    Count,
    /// Messages by reason ([`crate::message::Reject`]), a word each; their sum is shown.
    Rejects,
    /// System calls that a filter refused. The number is unknown if no filter sees the thread's
    /// calls.
    RefusedCalls,
    /// 1 + the number of a system call; 0 for none.
    SystemCall,
    Ns,
    /// Thousandths of a CPU.
    Permille,
    /// 0 or 1.
    Flag,
    /// [`super::guard::GuardState`].
    State,
}

impl Counter {
    /// A counter that becomes one value in this way.
    pub(super) const fn new(merge: Merge, unit: Unit) -> Counter {
        Counter {
            name: "",
            words: 1,
            merge,
            unit,
            key: "",
            is_shown: true,
            of_lane: false,
            column: None,
        }
    }

    /// `rtctl stats` has a column for it.
    pub(super) const fn column(self, text: &'static str, rank: u8) -> Counter {
        Counter {
            column: Some(Title { text, rank }),
            of_lane: true,
            ..self
        }
    }

    /// The JSON of a lane has it, too.
    pub(super) const fn of_lane(self) -> Counter {
        Counter {
            of_lane: true,
            ..self
        }
    }

    /// The JSON has it under this key.
    pub(super) const fn key(self, key: &'static str) -> Counter {
        Counter { key, ..self }
    }

    /// For rtd alone.
    pub(super) const fn hidden(self) -> Counter {
        Counter {
            is_shown: false,
            ..self
        }
    }

    pub(super) const fn named(self, name: &'static str, words: usize) -> Counter {
        Counter {
            name,
            words,
            key: if self.key.is_empty() { name } else { self.key },
            ..self
        }
    }
}

/// The value of a counter in the words of the page.
pub(super) trait Value: Sized {
    /// Number of words.
    const WORDS: usize;

    /// Writes all of `words`, [`Value::WORDS`] of them.
    fn put(self, words: &mut [u64]);

    /// The inverse. Whatever the words are, there is a value for them.
    fn get(words: &[u64]) -> Self;
}

impl Value for u64 {
    const WORDS: usize = 1;

    #[inline]
    fn put(self, words: &mut [u64]) {
        words[0] = self;
    }

    fn get(words: &[u64]) -> u64 {
        words[0]
    }
}

impl Value for bool {
    const WORDS: usize = 1;

    #[inline]
    fn put(self, words: &mut [u64]) {
        words[0] = self.into();
    }

    fn get(words: &[u64]) -> bool {
        words[0] != 0
    }
}

impl<const N: usize> Value for [u64; N] {
    const WORDS: usize = N;

    #[inline]
    fn put(self, words: &mut [u64]) {
        words.copy_from_slice(&self);
    }

    fn get(words: &[u64]) -> [u64; N] {
        std::array::from_fn(|at| words[at])
    }
}

/// Turns tables of counters into structs. A line of a table is `name: type = Counter`.
macro_rules! counters {
    ($(
        $(#[doc = $about:literal])+
        pub struct $table:ident {
            $( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $counter:expr, )+
        }
    )+) => { $(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $table {
            $( $(#[doc = $doc])+ pub $name: $type, )+
        }

        impl $table {
            /// The description of each field, in the order of the fields.
            pub const TABLE: &'static [Counter] =
                &[$( $counter.named(stringify!($name), <$type as Value>::WORDS), )+];
            /// How many words of the page they take.
            pub const WORDS: usize = 0 $( + <$type as Value>::WORDS )+;

            /// As the page holds them.
            #[inline]
            pub(super) fn words(&self) -> [u64; Self::WORDS] {
                let mut words = [0; Self::WORDS];
                let mut at = 0;
                $(
                    self.$name.put(&mut words[at..at + <$type as Value>::WORDS]);
                    at += <$type as Value>::WORDS;
                )+
                debug_assert_eq!(at, Self::WORDS);
                words
            }

            /// The inverse of `words`.
            pub(super) fn of_words(words: [u64; Self::WORDS]) -> $table {
                let mut at = 0;
                // The fields are evaluated in the order in which they are written here.
                $(
                    let $name = <$type as Value>::get(&words[at..at + <$type as Value>::WORDS]);
                    at += <$type as Value>::WORDS;
                )+
                debug_assert_eq!(at, Self::WORDS);
                $table { $( $name, )+ }
            }

            /// Both together, each counter as its table says. Sums saturate.
            pub fn merge(&mut self, other: &$table) {
                *self = Self::of_words(merged(Self::TABLE, self.words(), other.words()));
            }

            /// What an interval shows that began with `earlier`, each counter as its table says.
            pub fn since(&self, earlier: &$table) -> $table {
                Self::of_words(difference(Self::TABLE, self.words(), earlier.words()))
            }

            /// Each counter with its value, in the order of the table; of an array the sum.
            pub fn values(&self) -> impl Iterator<Item = (&'static Counter, u64)> + use<> {
                values(Self::TABLE, self.words())
            }
        }
    )+

    const TABLES: &[&[Counter]] = &[$( $table::TABLE, )+];
    };
}
pub(super) use counters;

/// See [`Merge`].
pub(super) fn merged<const N: usize>(table: &[Counter], mut a: [u64; N], b: [u64; N]) -> [u64; N] {
    for ((a, b), merge) in a.iter_mut().zip(b).zip(by_word(table)) {
        *a = match merge {
            Merge::Sum | Merge::Level => a.saturating_add(b),
            Merge::Max => b.max(*a),
            Merge::Last if b == 0 => *a,
            Merge::Last => b,
        };
    }
    a
}

/// See [`Merge`].
pub(super) fn difference<const N: usize>(
    table: &[Counter],
    mut now: [u64; N],
    before: [u64; N],
) -> [u64; N] {
    for ((now, before), merge) in now.iter_mut().zip(before).zip(by_word(table)) {
        if merge == Merge::Sum {
            *now = now.saturating_sub(before);
        }
    }
    now
}

fn by_word(table: &[Counter]) -> impl Iterator<Item = Merge> + '_ {
    table
        .iter()
        .flat_map(|counter| std::iter::repeat_n(counter.merge, counter.words))
}

/// Each counter with the sum of its words.
pub(super) fn values<const N: usize>(
    table: &'static [Counter],
    words: [u64; N],
) -> impl Iterator<Item = (&'static Counter, u64)> {
    let mut words = words.into_iter();
    table.iter().map(move |counter| {
        let own = words.by_ref().take(counter.words);
        (counter, own.fold(0, u64::saturating_add))
    })
}

/// A number that stands for the names, sizes and order of all counters and of the lists of names
/// that arrays go by (FNV-1a, folded to 16 bits).
pub(super) const fn fingerprint(tables: &[&[Counter]], lists: &[&[&str]]) -> u32 {
    let mut hash = 0x811c_9dc5;
    let (mut at, mut row, mut word) = (0, 0, 0);
    while at < tables.len() {
        while row < tables[at].len() {
            // Once for each word.
            while word < tables[at][row].words {
                hash = mixed(hash, tables[at][row].name);
                word += 1;
            }
            (row, word) = (row + 1, 0);
        }
        (at, row) = (at + 1, 0);
    }
    (at, row) = (0, 0);
    while at < lists.len() {
        while row < lists[at].len() {
            hash = mixed(hash, lists[at][row]);
            row += 1;
        }
        (at, row) = (at + 1, 0);
    }
    (hash >> 16) ^ (hash & 0xffff)
}

const PRIME: u32 = 0x0100_0193;

/// With a text and its end mixed in.
const fn mixed(mut hash: u32, text: &str) -> u32 {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(PRIME);
        at += 1;
    }
    (hash ^ 0xff).wrapping_mul(PRIME)
}
