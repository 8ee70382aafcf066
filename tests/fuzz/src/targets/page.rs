//! A statistics page.
//!
//! An input is a list of changes to a page that rtd has made, because a page is large and mostly
//! zero: so the saved inputs stay small, and mean something in each version of the layout. An input
//! that starts with an odd byte is a page itself.

use rtcore::endpoint::{Shown, mqueue, ring, signal};
use rtcore::stats::reader::{ReadError, Reader, Snapshot};
use rtcore::stats::writer::Page;
use rtcore::stats::{EndpointSpec, LaneSpec, Ledger, PageSpec, RouteSpec, WorkerSpec};
use std::path::PathBuf;
use std::sync::OnceLock;

/// What `rtctl ls` and `rtctl stats` call the instance.
const INSTANCE: &str = "fuzz";

/// Reading ends in a value or an error, and no number makes anything panic.
pub fn play(bytes: &[u8]) {
    let Ok(read) = snapshot(bytes) else { return };
    assert_eq!(read.diff(&read).routes.len(), read.routes.len());
    let _ = (read.uptime_ns(), read.is_degraded());
    let lanes = read.lanes.iter().map(|lane| (&lane.ledger, &lane.latency));
    for (ledger, latency) in lanes.chain(
        read.routes
            .iter()
            .map(|route| (&route.ledger, &route.latency)),
    ) {
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
    for worker in 0..=read.workers.len() {
        let _ = reader(bytes).map(|reader| {
            (
                reader.received(worker),
                reader.ledger(worker),
                reader.address(),
            )
        });
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

/// What a reader makes of the page of an input.
pub fn snapshot(bytes: &[u8]) -> Result<Snapshot, ReadError> {
    reader(bytes)?.snapshot()
}

fn reader(bytes: &[u8]) -> Result<Reader, ReadError> {
    let path = PathBuf::from(format!("/dev/shm/fuzz-page-{}", std::process::id()));
    std::fs::write(&path, page(bytes)).expect("room in /dev/shm");
    let reader = Reader::open_path(&path);
    std::fs::remove_file(&path).expect("it was written");
    reader
}

/// The page of an input.
fn page(bytes: &[u8]) -> Vec<u8> {
    let Some((kind, mut changes)) = bytes.split_first() else {
        return Vec::new();
    };
    if kind % 2 == 1 {
        return changes.to_vec();
    }
    let mut page = original().to_vec();
    while let Some((head, rest)) = changes.split_at_checked(4) {
        let [low, high, how, len] = [head[0], head[1], head[2], head[3]].map(usize::from);
        // Most of the numbers are in the first bytes of a section; histograms, which take the most
        // room, in the last ones.
        let at = match how % 4 {
            0 | 1 => low | (high % 16) << 8,
            2 => (low | high << 8) * 8,
            _ => (low | high << 8) * 64,
        };
        let (new, rest) = rest.split_at(rest.len().min(len % 17));
        changes = rest;
        if how == 0xff {
            page.truncate(at);
        } else {
            page.iter_mut()
                .skip(at)
                .zip(new)
                .for_each(|(byte, new)| *byte = *new);
        }
    }
    page
}

/// A page with one of everything, made once.
fn original() -> &'static [u8] {
    static PAGE: OnceLock<Vec<u8>> = OnceLock::new();
    PAGE.get_or_init(|| {
        let name = format!("{INSTANCE}-{}", std::process::id());
        let page = Page::create(&spec(&name)).expect("a place for a page");
        let mut route = page.route(0);
        route.publish(&Ledger {
            accepted: 9,
            delivered: 5,
            queued: 4,
            held: 1,
            ..Ledger::default()
        });
        route.record_latency(99);
        route.record_delivery(1, 99);
        page.add_lost_in_last_life(0, 3);
        let path = Reader::open(&name)
            .expect("it was published")
            .path()
            .to_owned();
        std::fs::read(path).expect("it is there")
    })
}

fn spec(name: &str) -> PageSpec {
    let lane = |name: &str| LaneSpec {
        name: name.into(),
        priority: 50,
        cpu: 0,
        wait: "block".into(),
        confined: true,
    };
    let route = |name: &str, lane, direct| RouteSpec {
        name: name.into(),
        lane,
        from: 0,
        to: "out, back".into(),
        ends: vec![1, 2],
        direct,
    };
    let endpoint = |name: &str, owner, kind| EndpointSpec {
        name: name.into(),
        owner,
        is_source: owner.is_none(),
        is_sink: owner.is_some(),
        kind,
    };
    PageSpec {
        name: name.into(),
        socket: "/run/rtd/fuzz.sock".into(),
        skin: "posix".into(),
        private_namespace: false,
        lanes: vec![lane("control"), lane("bulk")],
        routes: vec![route("in->out", 0, false), route("in->back", 1, true)],
        endpoints: vec![
            endpoint(
                "in",
                None,
                Shown::Mqueue(mqueue::Shown {
                    queue: "/in".into(),
                    maxmsg: 8,
                    msgsize: 64,
                }),
            ),
            endpoint(
                "out",
                Some(0),
                Shown::Signal(signal::Shown {
                    signo: 40,
                    to_thread: true,
                }),
            ),
            endpoint(
                "back",
                Some(1),
                Shown::Ring(ring::Shown {
                    maxmsg: 8,
                    msgsize: 64,
                }),
            ),
        ],
        processes: vec!["drive".into(), "panel".into()],
        workers: vec![
            WorkerSpec {
                lane: 0,
                name: "in".into(),
            },
            WorkerSpec {
                lane: 1,
                name: "bulk".into(),
            },
        ],
    }
}

/// The page as it is, one that is cut off, one of another version.
pub fn seeds() -> Vec<Vec<u8>> {
    let version = [4, 8, 12, 16].map(|at| vec![0, at, 0, 0, 4, 9, 0, 0, 0]);
    let mut seeds = vec![
        vec![0],
        vec![0, 0, 8, 0xff, 0],
        [&[1], &original()[..600]].concat(),
    ];
    seeds.extend(version);
    seeds
}
