//! A page is an allegation: whatever it holds, reading it ends in a value or an error.

use super::*;
use crate::stats::layout::{self, Header, Section};
use crate::stats::reader::{ReadError, Snapshot};
use proptest::prelude::*;
use std::mem::offset_of;

/// A copy of a page in a file of its own; removed when dropped.
struct Copy(PathBuf);

impl Copy {
    fn new(bytes: &[u8]) -> Copy {
        let path = page_path(&unique("copy"));
        std::fs::write(&path, bytes).unwrap();
        Copy(path)
    }

    fn snapshot(&self) -> Result<Snapshot, ReadError> {
        Reader::open_path(&self.0)?.snapshot()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// The bytes of a valid page with something in it.
fn page_bytes() -> Vec<u8> {
    let name = unique("bytes");
    let page = Page::create(&spec(&name)).unwrap();
    page.route(0).publish(&ledger(99));
    page.route(0).record_latency(99);
    page.route(0).record_delivery(1, 99);
    std::fs::read(page_path(&name)).unwrap()
}

/// Uses every number of a snapshot the way the tools do.
fn exercise(read: &Snapshot) {
    assert_eq!(read.diff(read).routes.len(), read.routes.len());
    let _ = (read.uptime_ns(), read.is_degraded());
    for (ledger, latency) in read
        .lanes
        .iter()
        .map(|lane| (&lane.ledger, &lane.latency))
        .chain(
            read.routes
                .iter()
                .map(|route| (&route.ledger, &route.latency)),
        )
    {
        let _ = (
            ledger.balances(),
            ledger.rejected_total(),
            latency.summary(),
        );
    }
    for target in read.routes.iter().flat_map(|route| &route.targets) {
        assert!(
            target
                .endpoint
                .is_none_or(|endpoint| endpoint < read.endpoints.len())
        );
        let _ = target.age_ns(read.taken_ns);
    }
    let strings = [&read.instance, &read.socket, &read.rtd_version];
    let names = read
        .lanes
        .iter()
        .map(|lane| &lane.name)
        .chain(read.routes.iter().map(|route| &route.to));
    assert!(
        strings
            .into_iter()
            .chain(names)
            .all(|text| !text.chars().any(char::is_control))
    );
}

#[test]
fn a_copy_of_a_page_is_read_as_that_of_a_stopped_daemon() {
    let read = Copy::new(&page_bytes()).snapshot().unwrap();
    assert_eq!(
        (read.state.name(), read.routes[0].ledger),
        ("stopped", ledger(99))
    );
    exercise(&read);
}

#[test]
fn every_byte_of_the_header_may_lie() {
    let valid = page_bytes();
    for at in 0..size_of::<Header>() {
        for byte in [0, 1, 0x7f, 0xff, valid[at].wrapping_add(1)] {
            let mut bytes = valid.clone();
            bytes[at] = byte;
            if let Ok(read) = Copy::new(&bytes).snapshot() {
                exercise(&read);
            }
        }
    }
}

#[test]
fn giant_and_outlying_sections_are_refused_by_name() {
    let valid = page_bytes();
    for i in 0..layout::SECTIONS {
        let at = offset_of!(Header, sections) + i * size_of::<Section>();
        let count_at = at + offset_of!(Section, count);
        let stride_at = at + offset_of!(Section, stride);
        for (at, value) in [
            (at, u64::MAX.to_ne_bytes().to_vec()),
            (at, (u64::MAX - 63).to_ne_bytes().to_vec()),
            (at, 0u64.to_ne_bytes().to_vec()),
            (at, (valid.len() as u64).to_ne_bytes().to_vec()),
            (count_at, u32::MAX.to_ne_bytes().to_vec()),
            (count_at, 97u32.to_ne_bytes().to_vec()),
            (stride_at, 0u32.to_ne_bytes().to_vec()),
            (stride_at, u32::MAX.to_ne_bytes().to_vec()),
        ] {
            let mut bytes = valid.clone();
            bytes[at..at + value.len()].copy_from_slice(&value);
            let refused = Copy::new(&bytes).snapshot();
            // 97 small records may still fit the page; they are then read as what they hold.
            let fits = at == count_at && value == 97u32.to_ne_bytes() && refused.is_ok();
            let named = matches!(&refused, Err(ReadError::Invalid { what, .. })
                if what.contains(layout::SECTION_NAMES[i])
                    || what.contains("one histogram per route")
                    || what.contains("one record of losses per route")
                    || what.contains("one guard per lane thread"));
            assert!(fits || named, "section {i}: {refused:?}");
        }
    }
}

#[test]
fn a_target_of_no_route_is_nobodys_and_one_of_no_endpoint_has_none() {
    let mut bytes = page_bytes();
    let header = offset_of!(Header, sections) + layout::TARGETS * size_of::<Section>();
    let start = u64::from_ne_bytes(bytes[header..header + 8].try_into().unwrap());
    let mut put = |target: usize, offset: usize, value: u32| {
        let at =
            usize::try_from(start).unwrap() + target * layout::STRIDES[layout::TARGETS] + offset;
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    };
    // Of the three: one of no route, one of no endpoint, one that went over to another route.
    put(0, offset_of!(layout::TargetRecord, route), 3);
    put(1, offset_of!(layout::TargetRecord, endpoint), u32::MAX);
    put(2, offset_of!(layout::TargetRecord, route), 1);
    let read = Copy::new(&bytes).snapshot().unwrap();
    exercise(&read);
    let seen = read.routes.iter().map(|route| {
        route
            .targets
            .iter()
            .map(|t| (t.endpoint, t.delivered))
            .collect()
    });
    assert_eq!(
        seen.collect::<Vec<Vec<_>>>(),
        [vec![(None, 1)], vec![(Some(1), 0)], vec![]]
    );
}

#[test]
fn another_version_is_distinguished_from_garbage() {
    let mut bytes = page_bytes();
    let at = offset_of!(Header, version);
    let ours = layout::version_name(layout::VERSION);
    // One of before the counters were part of the version, the next one, and one whose counters
    // differ.
    for version in [10, (layout::FORMAT + 1) << 16, layout::VERSION ^ 1] {
        bytes[at..at + 4].copy_from_slice(&version.to_ne_bytes());
        let refused = Copy::new(&bytes).snapshot().unwrap_err();
        assert!(matches!(refused, ReadError::Version { found, .. } if found == version));
        let both = format!(
            "has layout version {}, this program reads {ours}:",
            layout::version_name(version)
        );
        assert!(refused.to_string().contains(&both), "{refused}");
    }
    assert_eq!(
        [10, 11 << 16 | 0x5c3e].map(layout::version_name),
        ["10", "11.5c3e"]
    );
    bytes[0] ^= 1;
    assert!(matches!(
        Copy::new(&bytes).snapshot(),
        Err(ReadError::Invalid { .. })
    ));
}

#[test]
fn terminal_escapes_in_names_do_not_reach_the_terminal() {
    let mut bytes = page_bytes();
    let at = offset_of!(Header, instance);
    bytes[at..at + 8].copy_from_slice(b"\x1b[2J\xff\xc2\x9b\n");
    let read = Copy::new(&bytes).snapshot().unwrap();
    assert!(
        read.instance
            .starts_with("\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}"),
        "{:?}",
        read.instance
    );
}

#[test]
fn a_page_that_shrinks_under_the_reader_is_an_error() {
    let valid = page_bytes();
    let copy = Copy::new(&valid);
    let reader = Reader::open_path(&copy.0).unwrap();
    for len in [valid.len() as u64 - 1, 5000, 512, 100, 0] {
        std::fs::OpenOptions::new()
            .write(true)
            .open(&copy.0)
            .unwrap()
            .set_len(len)
            .unwrap();
        assert!(
            reader.snapshot().is_err() && reader.daemon_state().is_err(),
            "{len} bytes"
        );
        assert!(Reader::open_path(&copy.0).is_err(), "{len} bytes");
    }
}

/// One whose writer seems to be at work on each record, for ever: a read waits for that once, not
/// for each record.
#[test]
fn a_page_whose_records_are_never_whole_does_not_hold_the_reader_up() {
    let name = unique("torn");
    let processes: Vec<String> = (0..200).map(|n| format!("p{n}")).collect();
    let page = Page::create(&PageSpec {
        processes,
        ..spec(&name)
    })
    .unwrap();
    let mut bytes = std::fs::read(page_path(&name)).unwrap();
    drop(page);
    let header = offset_of!(Header, sections) + layout::PROCESSES * size_of::<Section>();
    let start = u64::from_ne_bytes(bytes[header..header + 8].try_into().unwrap());
    for record in 0..200 {
        bytes[usize::try_from(start).unwrap() + record * layout::STRIDES[layout::PROCESSES]] |= 1;
    }
    let copy = Copy::new(&bytes);
    let begun = std::time::Instant::now();
    assert_eq!(copy.snapshot().unwrap().processes.len(), 200);
    // 25 pauses of a millisecond for each of 200 records would be 5 s.
    assert!(
        begun.elapsed() < std::time::Duration::from_millis(2_500),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn what_is_not_a_file_does_not_hold_the_reader_up() {
    let path = page_path(&unique("dir"));
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(
        Reader::open_path(&path),
        Err(ReadError::Io { .. })
    ));
    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    assert!(matches!(
        Reader::open_path(&path),
        Err(ReadError::Io { .. })
    ));
    std::fs::remove_file(&path).unwrap();
    for name in ["", "a/b", "..//x", "a\nb", &"x".repeat(32)] {
        assert!(
            matches!(Reader::open(name), Err(ReadError::Name(_))),
            "{name:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Copy::new(&bytes).snapshot().is_err());
    }

    #[test]
    fn random_bytes_behind_a_valid_header_never_panic(seed in any::<u64>(), density in 1..64u64) {
        let mut bytes = page_bytes();
        let mut state = seed | 1;
        for byte in &mut bytes[size_of::<Header>()..] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (state >> 33) % density == 0 {
                *byte = (state >> 56) as u8;
            }
        }
        exercise(&Copy::new(&bytes).snapshot().unwrap());
    }

    #[test]
    fn random_words_in_the_header_never_panic(
        words in prop::collection::vec((0..46usize, any::<u64>()), 1..4),
    ) {
        let mut bytes = page_bytes();
        for (i, word) in words {
            bytes[i * 8..i * 8 + 8].copy_from_slice(&word.to_ne_bytes());
        }
        if let Ok(read) = Copy::new(&bytes).snapshot() {
            exercise(&read);
        }
    }
}
