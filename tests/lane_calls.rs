//! Questions and answers over two routes: correlated, with a deadline, and ended at once by the end
//! of whoever would have answered.

use crate::util::book::End::{Delivered, PeerDead};
use crate::util::lane_talk::{endpoint, first};
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
    let mut client = Peer::in_session(instance, name)?;
    client.tell(&format!("lane caller c {name}.ask {name}.answers"))?;
    Ok(client)
}

fn server(instance: &Instance, clients: &[&str]) -> anyhow::Result<Peer> {
    let mut server = Peer::in_session(instance, "server")?;
    for name in clients {
        server.tell(&format!("lane inbox {name} server.{name}"))?;
        server.tell(&format!("lane claim server.for.{name}"))?;
    }
    Ok(server)
}

/// What a call came to.
fn call(client: &mut Peer, hex: &str, ms: u64) -> anyhow::Result<String> {
    client.ask(&format!("lane call c {hex} {ms}"))?;
    called(client)
}

fn called(client: &mut Peer) -> anyhow::Result<String> {
    Ok(first(&client.answer()?)?
        .split_once(' ')
        .map(|(_, said)| said.to_owned())
        .unwrap_or_default())
}

/// The server is there for the client's first call.
fn ready(client: &mut Peer, server: &mut Peer, name: &str) -> anyhow::Result<u64> {
    server.reach(&format!("server.for.{name}"))?;
    server.ask(&format!("lane serve {name} server.for.{name} 1"))?;
    // A direct way is joined a moment after both are there.
    let mut refused = 0;
    crate::util::eventually(|| {
        let said = call(client, "00", 10_000).ok()?;
        refused += u64::from(said == "unsent dead");
        (said == "reply 00").then_some(())
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
        server.ask(&format!("lane serve a server.for.a {CALLS}"))?;
        for n in 0..CALLS {
            let (low, high) = (n % 256, n / 256);
            assert_eq!(
                call(&mut a, &format!("{low:02x}{high:02x}77"), 10_000)?,
                format!("reply 77{high:02x}{low:02x}")
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
        assert_eq!(first(&a.tell("lane late c")?)?, "0");
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
    server.ask("lane hold a")?;
    assert_eq!(call(&mut a, "01", 50)?, "timeout -");
    server.answer()?;
    server.tell("lane answer server.for.a 1111")?;
    instance.ledger_is("server.for.a->a.answers", 2, &[(Delivered, 2)])?;
    // Beside an event or two the late answer is what lies there; the next call passes over it.
    server.ask("lane serve a server.for.a 1")?;
    assert_eq!(call(&mut a, "0203", 10_000)?, "reply 0302");
    server.answer()?;
    assert_eq!(first(&a.tell("lane late c")?)?, "1");
    // One that comes while another question is open is not its answer either.
    server.ask("lane hold a")?;
    assert_eq!(call(&mut a, "04", 50)?, "timeout -");
    server.answer()?;
    a.ask("lane call c 0506 10000")?;
    server.tell("lane answer server.for.a 2222")?;
    server.tell("lane serve a server.for.a 1")?;
    assert_eq!(called(&mut a)?, "reply 0605");
    assert_eq!(first(&a.tell("lane late c")?)?, "2");
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
        server.ask("lane hold a")?;
        a.ask("lane call c 01 60000")?;
        server.answer()?;
        // Not reaped yet: before Linux 6.15 nobody but a parent knows the ending of one that is.
        server.signal(Signal::SIGKILL)?;
        let answer = a.answer()?;
        let (took, said) = first(&answer)?.split_once(' ').unwrap_or_default();
        assert_eq!(said, "dead server:(Signal(9))", "{more}");
        assert!(took.parse::<u64>()? < 20_000_000_000, "{took} ns");
        // The next one says so before it is sent.
        assert_eq!(call(&mut a, "02", 60_000)?, "unsent dead");
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
        server.ask("lane serve a server.for.a 1")?;
        crate::util::eventually(|| {
            call(&mut a, "0304", 10_000)
                .ok()
                .filter(|said| said == "reply 0403")
        })?;
        server.answer()?;
        daemon.stop()?;
    }
    Ok(())
}

/// Two clients of one server: each has its own answers, also while the other waits.
fn two_clients_share_a_server() -> anyhow::Result<()> {
    const CALLS: u32 = 50;
    let instance = Instance::new()?;
    let daemon = Daemon::start(&served(&instance, &["a", "b"], ""))?;
    let mut server = server(&instance, &["a", "b"])?;
    let (mut a, mut b) = (client(&instance, "a")?, client(&instance, "b")?);
    ready(&mut a, &mut server, "a")?;
    ready(&mut b, &mut server, "b")?;
    for n in 0..CALLS {
        a.ask(&format!("lane call c aa{n:02x} 10000"))?;
        b.ask(&format!("lane call c bb{n:02x} 10000"))?;
        // The one that asked last is answered first.
        server.tell("lane serve b server.for.b 1")?;
        server.tell("lane serve a server.for.a 1")?;
        assert_eq!(
            (called(&mut a)?, called(&mut b)?),
            (format!("reply {n:02x}aa"), format!("reply {n:02x}bb"))
        );
    }
    // One of them dies with its question in the server's hand: the answer is nobody's, and the
    // other is served.
    server.ask("lane hold a")?;
    a.ask("lane call c 01 60000")?;
    server.answer()?;
    a.kill()?;
    instance.until("its death is seen", |s| {
        s.processes
            .iter()
            .any(|p| p.name == "a" && p.state == rtcore::lane::peer::PeerState::Dead)
    })?;
    // The page may know of it before the server's session does: then the answer ends as peer-dead.
    let early = match server.tell("lane answer server.for.a 11") {
        Ok(_) => 1,
        Err(e) => {
            anyhow::ensure!(format!("{e:#}").contains("nobody receives"), "{e:#}");
            0
        }
    };
    server.ask("lane serve b server.for.b 1")?;
    assert_eq!(call(&mut b, "0102", 10_000)?, "reply 0201");
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
