//! The file in which rtd keeps registrations for its next start.

use rtd::control::kept_rewritten;

/// Of the boot and pid namespace that the file is of.
const SCOPE: &str = "boot 0 pid:[1]";

/// What is accepted is, written and read again, the same.
pub fn play(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(once) = kept_rewritten(&text, SCOPE) else {
        return;
    };
    let twice = kept_rewritten(&once, SCOPE).expect("it was accepted before");
    assert_eq!(once.lines().count(), twice.lines().count(), "{once}{twice}");
}

/// Two entries.
pub fn seeds() -> Vec<Vec<u8>> {
    let text = format!(
        "rtd registrations 1\n{SCOPE}\nregistration arm 12 13 99 1000 1000 0 4,27. /opt/arm\nsession leg 7 7 1 0 0 0 . /a b\n"
    );
    vec![text.into_bytes()]
}

/// What it consists of.
pub fn words() -> Vec<Vec<u8>> {
    let mut words = super::words_of([
        SCOPE,
        "rtd registrations 1 registration session arm 4294967296 -1 . ,",
    ]);
    words.push(b"\nsession x 1 1 1 0 0 0 . /x\n".to_vec());
    words
}
