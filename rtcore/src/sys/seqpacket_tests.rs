//! Behaviour of the kernel that the control socket stands on, and of the name in the file system.

use super::*;
use std::os::unix::fs::symlink;

fn dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("rtcore-seq-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).unwrap();
    dir
}

fn pair(name: &str) -> (Listener, Conn, Conn) {
    let listener = Listener::bind(&dir(name).join("s")).unwrap();
    let client = Conn::connect(listener.path(), Duration::from_secs(1)).unwrap();
    let server = listener.accept().unwrap().unwrap();
    (listener, client, server)
}

#[test]
fn a_long_packet_reports_its_full_length_and_is_gone() {
    let (_listener, client, server) = pair("long");
    let mut buffer = [0; 16];
    assert_eq!(server.receive(&mut buffer).unwrap(), Received::Nothing);
    assert!(client.send(&[1; 100]).unwrap());
    assert!(client.send(&[2; 4]).unwrap());
    assert_eq!(server.receive(&mut buffer).unwrap(), Received::Packet(100));
    assert_eq!(server.receive(&mut buffer).unwrap(), Received::Packet(4));
}

/// The kernel reports the reset before the packets.
#[test]
fn packets_are_received_that_were_sent_before_an_end_with_others_unread() {
    let mut buffer = [0; 16];
    for copied in [true, false] {
        let (_listener, client, server) = if copied {
            pair("reset1")
        } else {
            pair("reset2")
        };
        assert!(client.send(&[1]).unwrap() && server.send(&[2; 3]).unwrap());
        drop(server);
        let mut receive = || match copied {
            true => client.receive(&mut buffer).unwrap(),
            false => client.receive_with(&mut buffer, &mut Vec::new()).unwrap(),
        };
        assert_eq!(
            (receive(), receive()),
            (Received::Packet(3), Received::Closed)
        );
    }
}

#[test]
fn an_empty_packet_is_not_the_end() {
    let (_listener, client, server) = pair("empty");
    let mut buffer = [0; 16];
    client.send(&[]).unwrap();
    assert_eq!(server.receive(&mut buffer).unwrap(), Received::Packet(0));
    client.send(&[1]).unwrap();
    drop(client);
    assert_eq!(server.receive(&mut buffer).unwrap(), Received::Packet(1));
    assert_eq!(server.receive(&mut buffer).unwrap(), Received::Closed);
}

#[test]
fn the_peer_is_who_connected() {
    let (_listener, _client, server) = pair("peer");
    let peer = server.peer().unwrap();
    let own = crate::sys::procfs::status(i32::try_from(std::process::id()).unwrap()).unwrap();
    assert_eq!(
        (peer.pid, peer.uid, peer.gid),
        (own.tgid, own.euid, own.egid)
    );
    assert_eq!(peer.groups, own.groups);
    assert!(server.peer_pidfd().unwrap().is_alive());
}

#[test]
fn a_reader_that_does_not_read_is_noticed_without_waiting() {
    let (_listener, _client, server) = pair("full");
    let sent = (0..100_000)
        .take_while(|_| server.send(&[0; 256]).unwrap())
        .count();
    assert!((1..100_000).contains(&sent), "{sent}");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let path = dir("stale").join("s");
    let first = Listener::bind(&path).unwrap();
    assert_eq!(
        Listener::bind(&path).unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    // The state after kill -9: the name without a listener.
    let copy = path.with_file_name("copy");
    std::fs::hard_link(&path, &copy).unwrap();
    drop(first);
    assert!(!path.exists(), "a dropped listener removes its name");
    std::fs::rename(&copy, &path).unwrap();
    let second = Listener::bind(&path).unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o666);
    drop(second);
}

/// With and without a stale socket: of several daemons that start together, one has the name in the
/// end and listens, and the others get an error.
#[test]
fn of_several_that_start_together_one_gets_the_name_and_keeps_it() {
    let path = dir("race").join("s");
    for round in 0..200 {
        if round % 2 == 1 {
            let stale = socket(SocketFlags::empty()).unwrap();
            rustix::net::bind(&stale, &address(&path).unwrap()).unwrap();
        }
        let start = std::sync::Barrier::new(2);
        let bind = || {
            start.wait();
            Listener::bind(&path)
        };
        let both = std::thread::scope(|scope| {
            [scope.spawn(bind), scope.spawn(bind)].map(|t| t.join().unwrap())
        });
        let (won, lost): (Vec<_>, Vec<_>) = both.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}: {lost:?}");
        assert!(
            lost.iter()
                .flat_map(|l| l.as_ref().err())
                .all(|e| e.kind() == io::ErrorKind::AddrInUse),
            "{lost:?}"
        );
        Conn::connect(&path, Duration::from_secs(1)).unwrap();
        let winner = won.into_iter().next().unwrap().unwrap();
        assert!(
            winner.accept().unwrap().is_some(),
            "round {round}: somebody else's socket"
        );
        drop(winner);
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}

#[test]
fn a_name_that_is_no_longer_ours_survives_the_drop() {
    let path = dir("others").join("s");
    let first = Listener::bind(&path).unwrap();
    std::fs::rename(&path, path.with_file_name("moved")).unwrap();
    let second = Listener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn places_that_strangers_control_are_refused() {
    let base = dir("places");
    symlink(&base, base.join("link")).unwrap();
    let err = Listener::bind(&base.join("link/s"))
        .unwrap_err()
        .to_string();
    assert!(err.contains("symbolic link"), "{err}");

    let open = base.join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    let err = Listener::bind(&open.join("s")).unwrap_err().to_string();
    assert!(err.contains("chmod o-w"), "{err}");

    let file = base.join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(Listener::bind(&file).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    assert!(Listener::bind(Path::new("relative/s")).is_err());
    let err = Listener::bind(&base.join("x".repeat(200)))
        .unwrap_err()
        .to_string();
    assert!(err.contains("107"), "{err}");
}

#[test]
#[ignore = "needs root"]
fn a_place_of_another_user_is_refused_with_what_fixes_it() {
    let base = dir("other");
    let other = base.join("other");
    std::fs::create_dir(&other).unwrap();
    std::os::unix::fs::chown(&other, Some(12345), None).unwrap();
    let err = Listener::bind(&other.join("s")).unwrap_err().to_string();
    assert!(
        err.contains("uid 12345") && err.contains("run rtd as uid 12345"),
        "{err}"
    );
    assert!(
        err.contains(&format!("chown 0 {}", other.display())),
        "{err}"
    );
    // The fix in its text works.
    std::os::unix::fs::chown(&other, Some(0), None).unwrap();
    Listener::bind(&other.join("s")).unwrap();
}

#[test]
fn a_place_that_cannot_be_made_is_named_with_a_hint() {
    let base = dir("nowhere");
    let err = Listener::bind(&base.join("no/such/s"))
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("no/such, the directory of the socket, cannot be created"),
        "{err}"
    );
    assert!(err.contains("set [daemon] socket"), "{err}");
}

#[test]
fn a_missing_parent_is_made_whatever_the_umask() {
    let base = dir("parent");
    let listener = Listener::bind(&base.join("rtd/s")).unwrap();
    assert_eq!(base.join("rtd").metadata().unwrap().mode() & 0o777, 0o755);
    drop(listener);
}

/// A start that was killed leaves its draft; the next one of the same name removes it, and nothing
/// else.
#[test]
fn drafts_of_the_dead_are_removed_and_no_others() {
    let dir = dir("drafts");
    let path = dir.join("s");
    let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
    let (dead, alive) = (child.id(), std::process::id());
    child.wait().unwrap();
    let socket = |name: String| {
        let path = dir.join(name);
        // Dropped, a listener of the standard library leaves its name.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        path
    };
    let (own, other) = (Draft::prefix(&path), Draft::prefix(&dir.join("another")));
    assert_ne!(own, other);
    let stale = socket(format!("{own}{dead:x}.0"));
    let kept = [
        socket(format!("{own}{alive:x}.ff")),
        socket(format!("{other}{dead:x}.0")),
        socket(format!("{own}{dead:x}")),
        dir.join(format!("{own}{dead:x}.1")),
    ];
    std::fs::write(&kept[3], b"no socket").unwrap();
    let listener = Listener::bind(&path).unwrap();
    assert!(!stale.exists());
    assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
    drop(listener);
    std::fs::remove_dir_all(dir).unwrap();
}
