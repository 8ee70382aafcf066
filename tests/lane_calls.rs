//! Requests and replies over two routes: correlated, with a deadline, and ended at once when the
//! replying process ends.

use crate::util::book::End::{Delivered, PeerDead};
use crate::util::lane_talk::endpoint;
use crate::util::order::{self, CallEnd};
use crate::util::{Daemon, Instance, Peer, process, route};
use nix::sys::signal::Signal;

tests![
    each_question_has_its_answer,
    a_late_answer_is_counted_and_dropped,
    a_killed_server_ends_the_call_at_once,
    two_clients_share_a_server,
];

/// `ask` of each client goes to `server.in`; `server.NAME` answers to `NAME.answers`.
fn served(instance: &Instance, clients: &[&str], more: &str) -> String {
    let mut config = instance.head() + &process("server");
    for name in clients {
        config += &process(name);
        config += &endpoint(&format!("{name}.ask"), name, 16);
        config += &endpoint(&format!("{name}.answers"), name, 16);
        config += &endpoint(&format!("server.{name}"), "server", 16);
        config += &endpoint(&format!("server.for.{name}"), "server", 16);
        config += &route(&format!("{name}.ask"), &[&format!("server.{name}")], more);
        config += &route(
            &format!("server.for.{name}"),
            &[&format!("{name}.answers")],
            more,
        );
    }
    config
}

fn client(instance: &Instance, name: &str) -> anyhow::Result<Peer> {
    let mut client = Peer::session(instance, name)?;
    client.tell(order::Call::Caller {
        key: "c",
        requests: &format!("{name}.ask"),
        answers: &format!("{name}.answers"),
    })?;
    Ok(client)
}

fn server(instance: &Instance, clients: &[&str]) -> anyhow::Result<Peer> {
    let mut server = Peer::session(instance, "server")?;
    for name in clients {
        server.tell(order::Receive::Inbox {
            key: name,
            of: Some(vec![&format!("server.{name}")]),
        })?;
        server.claim(&format!("server.for.{name}"))?;
    }
    Ok(server)
}

/// What a call came to.
fn call(client: &mut Peer, request: &[u8], ms: u64) -> anyhow::Result<CallEnd> {
    ask(client, request, ms)?;
    called(client)
}

fn ask(client: &mut Peer, request: &[u8], ms: u64) -> anyhow::Result<()> {
    let (key, request) = ("c", request.to_vec());
    client.ask(order::Call::Ask { key, request, ms })
}

fn called(client: &mut Peer) -> anyhow::Result<CallEnd> {
    Ok(client.answer()?.called()?.ended)
}

fn reply(bytes: &[u8]) -> CallEnd {
    CallEnd::Reply(bytes.to_vec())
}

const NOBODY_THERE: CallEnd = CallEnd::Unsent(order::Refused::PeerDead);

/// Answers that came too late for the caller.
fn late(client: &mut Peer) -> anyhow::Result<u64> {
    client.tell(order::Call::Late("c"))?.number()
}

/// The server is there for the client's first call.
fn ready(client: &mut Peer, server: &mut Peer, name: &str) -> anyhow::Result<u64> {
    server.reach(&format!("server.for.{name}"))?;
    server.ask(order::Call::Serve {
        key: name,
        endpoint: &format!("server.for.{name}"),
        count: 1,
    })?;
    // A direct way is joined a moment after both are there.
    let mut refused = 0;
    crate::util::eventually(|| {
        let said = call(client, &[0], 10_000).ok()?;
        refused += u64::from(said == NOBODY_THERE);
        (said == reply(&[0])).then_some(())
    })?;
    server.answer()?;
    Ok(refused)
}

/// Routed and direct: each answer is the one to its question.
fn each_question_has_its_answer() -> anyhow::Result<()> {
    const CALLS: u64 = 200;
    for more in ["", "path = \"direct\""] {
        let instance = Instance::new()?;
        let daemon = Daemon::start(&served(&instance, &["a"], more))?;
        let (mut server, mut a) = (server(&instance, &["a"])?, client(&instance, "a")?);
        let early = ready(&mut a, &mut server, "a")?;
        server.ask(order::Call::Serve {
            key: "a",
            endpoint: "server.for.a",
            count: CALLS,
        })?;
        for n in 0..CALLS {
            let [low, high] = u16::try_from(n)?.to_le_bytes();
            assert_eq!(
                call(&mut a, &[low, high, 0x77], 10_000)?,
                reply(&[0x77, high, low])
            );
        }
        server.answer()?;
        // No lane sees what a direct route refuses: its ledger has it.
        let refused = if more.is_empty() { 0 } else { early };
        let ends = [(Delivered, CALLS + 1), (PeerDead, refused)];
        instance.ledger_is("a.ask->server.a", CALLS + 1 + refused, &ends)?;
        instance.ledger_is(
            "server.for.a->a.answers",
            CALLS + 1,
            &[(Delivered, CALLS + 1)],
        )?;
        assert_eq!(late(&mut a)?, 0);
        daemon.stop()?;
    }
    Ok(())
}

/// No answer in time ends the call; the one that comes afterwards is counted and is nobody's
/// answer.
fn a_late_answer_is_counted_and_dropped() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let daemon = Daemon::start(&served(&instance, &["a"], ""))?;
    let (mut server, mut a) = (server(&instance, &["a"])?, client(&instance, "a")?);
    ready(&mut a, &mut server, "a")?;
    server.ask(order::Call::Hold("a"))?;
    assert_eq!(call(&mut a, &[0x01], 50)?, CallEnd::Timeout);
    server.answer()?;
    server.tell(order::Call::Reply {
        endpoint: "server.for.a",
        bytes: vec![0x11, 0x11],
    })?;
    instance.ledger_is("server.for.a->a.answers", 2, &[(Delivered, 2)])?;
    // Beside an event or two the late answer is what lies there; the next call passes over it.
    server.ask(order::Call::Serve {
        key: "a",
        endpoint: "server.for.a",
        count: 1,
    })?;
    assert_eq!(call(&mut a, &[0x02, 0x03], 10_000)?, reply(&[0x03, 0x02]));
    server.answer()?;
    assert_eq!(late(&mut a)?, 1);
    // One that comes while another question is open is not its answer either.
    server.ask(order::Call::Hold("a"))?;
    assert_eq!(call(&mut a, &[0x04], 50)?, CallEnd::Timeout);
    server.answer()?;
    ask(&mut a, &[0x05, 0x06], 10_000)?;
    server.tell(order::Call::Reply {
        endpoint: "server.for.a",
        bytes: vec![0x22, 0x22],
    })?;
    server.tell(order::Call::Serve {
        key: "a",
        endpoint: "server.for.a",
        count: 1,
    })?;
    assert_eq!(called(&mut a)?, reply(&[0x06, 0x05]));
    assert_eq!(late(&mut a)?, 2);
    instance.ledger_is("server.for.a->a.answers", 5, &[(Delivered, 5)])?;
    daemon.stop()?;
    Ok(())
}

/// Killed with a question in its hand: the caller, who would wait for a minute, knows at once, and
/// by what.
fn a_killed_server_ends_the_call_at_once() -> anyhow::Result<()> {
    for more in ["", "path = \"direct\""] {
        let instance = Instance::new()?;
        let daemon = Daemon::start(&served(&instance, &["a"], more))?;
        let (mut server, mut a) = (server(&instance, &["a"])?, client(&instance, "a")?);
        let early = ready(&mut a, &mut server, "a")?;
        server.ask(order::Call::Hold("a"))?;
        ask(&mut a, &[0x01], 60_000)?;
        server.answer()?;
        // Not reaped yet: before Linux 6.15 nobody but a parent knows the ending of one that is.
        server.signal(Signal::SIGKILL)?;
        let order::Called { took_ns, ended } = a.answer()?.called()?;
        let dead = CallEnd::PeerDead {
            process: "server".to_owned(),
            ending: "Signal(9)".to_owned(),
        };
        assert_eq!(ended, dead, "{more}");
        assert!(took_ns < 20_000_000_000, "{took_ns} ns");
        // The next one says so before it is sent.
        assert_eq!(call(&mut a, &[0x02], 60_000)?, NOBODY_THERE);
        // No lane sees what a direct route refuses: its ledger has it.
        let refused = if more.is_empty() { 0 } else { early + 1 };
        instance.ledger_is(
            "a.ask->server.a",
            2 + refused,
            &[(Delivered, 2), (PeerDead, refused)],
        )?;
        // And another server answers.
        let mut server = self::server(&instance, &["a"])?;
        server.reach("server.for.a")?;
        server.ask(order::Call::Serve {
            key: "a",
            endpoint: "server.for.a",
            count: 1,
        })?;
        crate::util::eventually(|| {
            call(&mut a, &[0x03, 0x04], 10_000)
                .ok()
                .filter(|said| *said == reply(&[0x04, 0x03]))
        })?;
        server.answer()?;
        daemon.stop()?;
    }
    Ok(())
}

/// Two clients of one server: each has its own answers, also while the other waits.
fn two_clients_share_a_server() -> anyhow::Result<()> {
    const CALLS: u8 = 50;
    let instance = Instance::new()?;
    let daemon = Daemon::start(&served(&instance, &["a", "b"], ""))?;
    let mut server = server(&instance, &["a", "b"])?;
    let (mut a, mut b) = (client(&instance, "a")?, client(&instance, "b")?);
    ready(&mut a, &mut server, "a")?;
    ready(&mut b, &mut server, "b")?;
    for n in 0..CALLS {
        ask(&mut a, &[0xaa, n], 10_000)?;
        ask(&mut b, &[0xbb, n], 10_000)?;
        // The one that asked last is answered first.
        server.tell(order::Call::Serve {
            key: "b",
            endpoint: "server.for.b",
            count: 1,
        })?;
        server.tell(order::Call::Serve {
            key: "a",
            endpoint: "server.for.a",
            count: 1,
        })?;
        assert_eq!(
            (called(&mut a)?, called(&mut b)?),
            (reply(&[n, 0xaa]), reply(&[n, 0xbb]))
        );
    }
    // One of them dies with its question in the server's hand: the answer is nobody's, and the
    // other is served.
    server.ask(order::Call::Hold("a"))?;
    ask(&mut a, &[0x01], 60_000)?;
    server.answer()?;
    a.kill()?;
    instance.until("its death is seen", |s| {
        s.processes
            .iter()
            .any(|p| p.name == "a" && p.state == rtcore::lane::peer::PeerState::Dead)
    })?;
    // The page may know of it before the server's session does: then the answer ends as peer-dead.
    let early = match server.tell(order::Call::Reply {
        endpoint: "server.for.a",
        bytes: vec![0x11],
    }) {
        Ok(_) => 1,
        Err(e) => {
            anyhow::ensure!(format!("{e:#}").contains("nobody receives"), "{e:#}");
            0
        }
    };
    server.ask(order::Call::Serve {
        key: "b",
        endpoint: "server.for.b",
        count: 1,
    })?;
    assert_eq!(call(&mut b, &[0x01, 0x02], 10_000)?, reply(&[0x02, 0x01]));
    server.answer()?;
    let calls = u64::from(CALLS) + 1;
    instance.ledger_is(
        "server.for.a->a.answers",
        calls + early,
        &[(Delivered, calls), (PeerDead, early)],
    )?;
    instance.ledger_is(
        "server.for.b->b.answers",
        calls + 1,
        &[(Delivered, calls + 1)],
    )?;
    daemon.stop()?;
    Ok(())
}
