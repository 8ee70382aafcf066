//! Sessions of clients that mean harm: others are served, and nothing of theirs stays.

use super::client::Other;
use super::sessions::{Lanes, two};
use super::*;

/// Others come in, within the time a person would wait.
fn still_serves(rig: &Rig) {
    let asked = Instant::now();
    let mut other = Other::new(rig);
    assert_eq!(other.ask("connect"), "done");
    assert!(other.open("planner").starts_with("Ok "));
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn frames_that_no_session_sends_end_it() {
    let (rig, ring_slots) = Rig::with("frames", two);
    let lanes = Lanes::run(ring_slots);
    for (round, order) in [
        "raw 0",
        "raw 1",
        "raw 255",
        "raw 257",
        "raw 65536",
        "raw 256",
        "kind 99",
        "register arm",
    ]
    .iter()
    .enumerate()
    {
        let mut arm = Other::new(&rig);
        assert_eq!(arm.open("arm"), format!("Ok {}", round + 1));
        arm.until("ready");
        assert!(arm.ask(order).starts_with("BadFrame"), "{order}");
        assert_eq!(arm.ask("next"), "closed", "{order}");
        assert_eq!(
            (rig.change().1, rig.change().1),
            (PeerState::Alive, PeerState::Unregistered)
        );
    }
    still_serves(&rig);
    lanes.stop();
    assert_eq!(rig.stop().bad_frames, 8);
}

#[test]
fn floods_are_served_in_turn() {
    let (rig, _feeds) = Rig::with("floods", two);
    let mut arm = Other::opened(&rig, "arm");
    arm.until("ready");
    arm.order("flood mapped 20000");
    still_serves(&rig);
    assert_eq!(arm.0.line("= "), "done");
    assert_eq!(rig.change().0, 0);
}

#[test]
fn who_never_reads_is_closed() {
    let (rig, _feeds) = Rig::with("deaf", two);
    let mut arm = Other::opened(&rig, "arm");
    assert_eq!(arm.ask("flood explain 100000"), "closed");
    assert_eq!(
        (rig.change().1, rig.change().1),
        (PeerState::Alive, PeerState::Unregistered)
    );
    still_serves(&rig);
    assert_eq!(rig.stop().unread, 1);
}

#[test]
fn descriptors_that_are_sent_to_the_daemon_are_not_hoarded() {
    let (rig, _feeds) = Rig::with("hoard", two);
    let mut arm = Other::opened(&rig, "arm");
    let before = pipes();
    // More than the limit of this process.
    assert_eq!(arm.ask("flood hoard 5000"), "done");
    let deadline = Instant::now() + LIMIT;
    // Other tests come and go, with pipes to their programs.
    while pipes() > before + 100 {
        assert!(
            Instant::now() < deadline,
            "{} pipes, {before} before",
            pipes()
        );
        std::thread::yield_now();
    }
    still_serves(&rig);
}

fn pipes() -> usize {
    let links = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fd.ok()?.path().read_link().ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("pipe:"))
        .count()
}

/// Descriptors and mappings of rings that carry this name.
fn rings_called(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let links = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fd.ok()?.path().read_link().ok());
    maps.lines().filter(|line| line.contains(name)).count()
        + links
            .filter(|link| link.to_string_lossy().contains(name))
            .count()
}

#[test]
fn a_client_that_opens_and_closes_in_a_loop_leaves_nothing_behind() {
    let named = |socket| {
        let mut plan = two(socket);
        plan.routes
            .iter_mut()
            .for_each(|route| route.name = format!("loop.{}", route.name));
        plan
    };
    let (rig, ring_slots) = Rig::with("loop", named);
    let lanes = Lanes::run(ring_slots);
    let (mut arm, mut planner) = (Other::new(&rig), Other::opened(&rig, "planner"));
    for generation in 1..=200 {
        assert_eq!(arm.open("arm"), format!("Ok {generation}"));
        arm.ask("close");
        planner.until("reach 0 false");
    }
    planner.0.kill();
    let deadline = Instant::now() + LIMIT;
    while rings_called("loop.") > 0 {
        assert!(Instant::now() < deadline, "{}", rings_called("loop."));
        std::thread::yield_now();
    }
    lanes.stop();
}

#[test]
#[ignore = "needs root"]
fn who_changes_its_user_after_it_connected_does_not_speak_for_the_old_one() {
    let (rig, _feeds) = Rig::with("user", |socket| {
        let mut plan = two(socket);
        plan.processes[0].uid = Some(0);
        plan.processes[1].uid = Some(STRANGER);
        plan
    });
    for name in ["arm", "planner"] {
        let mut other = Other::new(&rig);
        other.ask("connect");
        other.ask(&format!("setuid {STRANGER}"));
        let text = other.ask(&format!("open {name}"));
        // Root asked, who may speak for anybody; but what becomes the holder is what the process is
        // now.
        let expected = if name == "arm" { "Denied pid" } else { "Ok 1" };
        assert!(text.starts_with(expected), "{text}");
    }
}
