//! Whose process the daemon is, what it may do, whose everything is that it makes, and who is
//! served all the same.

use crate::permissions::{Granted, ordinary};
use crate::util::kernel::{self, Credentials, FIFO};
use crate::util::needs::{MOUNT, ROOT, SECOND_USER, SETCAP, USER_NAMESPACES};
use crate::util::order;
use crate::util::stranger::Stranger;
use crate::util::tool::{NOBODY, RTD, Tool, copy_program, rtd, run_on};
use crate::util::{Daemon, Instance, Peer, exists, process, route, rt, signal, status};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

tests![
    started_by_root_it_is_the_configured_user_in_every_respect needs(ROOT),
    what_the_plan_does_not_need_is_not_kept needs(ROOT),
    for_the_executable_of_another_user_the_control_thread_alone_can_trace needs(ROOT),
    one_of_its_own_user_cannot_look_into_it needs(ROOT),
    without_the_capability_signals_to_others_are_refused_before_they_are_lost needs(ROOT),
    without_the_right_to_become_that_user_the_error_names_it,
    root_of_a_user_namespace_may_not_become_that_user_either needs(USER_NAMESPACES),
    a_user_with_capabilities_keeps_those_that_are_needed needs(ROOT),
    the_starters_code_does_not_get_the_rights_of_the_file needs(ROOT, SETCAP),
    an_ordinary_start_is_what_it_was,
    root_that_stays_root_says_so needs(ROOT),
    what_a_killed_daemon_of_roots_left_is_taken_over needs(ROOT),
    the_directory_of_the_socket_is_made_for_the_user needs(SECOND_USER, MOUNT),
    a_directory_that_the_user_may_not_write_is_named needs(ROOT),
    an_account_that_is_none_is_refused_by_the_check,
    it_ends_with_its_parent_still needs(ROOT),
    a_stranger_gets_into_no_queue_and_sends_rtd_no_signal needs(ROOT),
];

const KILL: u64 = 1 << 5;
const IPC_LOCK: u64 = 1 << 14;
const SYS_PTRACE: u64 = 1 << 19;
const NET_RAW: u64 = 1 << 13;

/// What a control thread keeps because its memory is locked past a limit.
fn for_memory() -> u64 {
    use rtcore::sys::limits::{Kind, get};
    if get(Kind::MemLock).is_ok_and(|limit| limit.hard.is_none()) {
        0
    } else {
        IPC_LOCK
    }
}

/// A queue into a queue that everybody may use, and into the signal of `arm`, which has these keys.
fn config(i: &Instance, daemon: &str, arm: &str) -> String {
    let all = "mode = \"0666\"";
    i.head()
        .replace("[daemon]\n", &format!("[daemon]\n{daemon}\n"))
        + &process("arm")
        + arm
        + "\n"
        + &i.mqueue("in", all)
        + &i.mqueue("out", all)
        + &i.mqueue("ring", all)
        + &signal("arm.go", "arm", "SIGRTMIN+5", "")
        + &route("in", &["out"], "")
        + &route("ring", &["arm.go"], "")
}

/// A daemon that root starts and that becomes this user, to whom the instance's directory belongs.
fn become_user(i: &Instance, uid: u32, config: &str) -> anyhow::Result<Daemon> {
    chown(i.file(""), Some(uid), Some(uid))?;
    Daemon::start(config)
}

fn account(uid: u32) -> String {
    format!("user = {uid}\ngroup = {uid}")
}

/// Its threads, which all are this user's, in no other group, and get nothing by an exec(2); by
/// name.
fn threads(pid: u32, uid: u32) -> anyhow::Result<Vec<Credentials>> {
    let all = kernel::credentials(pid)?;
    for thread in &all {
        ensure!(
            thread.uids == [uid; 4] && thread.gids == [uid; 4] && thread.groups.is_empty(),
            "{thread:?}"
        );
        let [inheritable, permitted, effective, _, ambient] = thread.sets;
        ensure!(
            inheritable == 0 && ambient == 0 && effective == permitted,
            "{thread:?}"
        );
        ensure!(thread.no_new_privs, "{thread:?}");
    }
    Ok(all)
}

/// What the threads of that name hold.
fn held(threads: &[Credentials], name: &str) -> anyhow::Result<u64> {
    let thread = threads.iter().find(|thread| thread.name == name);
    Ok(thread
        .with_context(|| format!("no thread {name}: {threads:?}"))?
        .sets[1])
}

fn owner(path: impl AsRef<Path>) -> anyhow::Result<(u32, u32)> {
    let path = path.as_ref();
    let meta = path
        .symlink_metadata()
        .with_context(|| path.display().to_string())?;
    Ok((meta.uid(), meta.gid()))
}

/// A message of this user's own program goes through.
fn passes(i: &Instance, sender: &mut Peer) -> anyhow::Result<()> {
    sender.open_to_send(&i.queue("in"))?;
    sender.stream(7, 1)?;
    ensure!(Peer::receiver(&i.queue("out"))?.numbers(1)? == [7]);
    Ok(())
}

/// Signals to a process of another user, from a daemon of a third: sent by the one capability that
/// is kept for it.
fn started_by_root_it_is_the_configured_user_in_every_respect() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (own, other) = (Stranger::new(&i)?, Stranger::new(&i)?);
    let daemon = become_user(&i, own.uid, &config(&i, &account(own.uid), ""))?;
    let all = threads(daemon.pid(), own.uid)?;
    ensure!(held(&all, "rtd")? == KILL | for_memory(), "{all:?}");
    ensure!(
        held(&all, "in")? == KILL && held(&all, "ring")? == KILL,
        "{all:?}"
    );
    let rest = |thread: &&Credentials| !["rtd", "in", "ring"].contains(&thread.name.as_str());
    ensure!(
        all.iter().filter(rest).all(|thread| thread.sets[1] == 0),
        "helpers need nothing: {all:?}"
    );
    ensure!(
        all.iter().all(|thread| thread.sets[3] == 0),
        "the bounding set: {all:?}"
    );

    let ours = (own.uid, own.uid);
    ensure!(owner(i.page()?)? == ours && owner(i.socket())? == ours);
    for queue in ["in", "out", "ring"] {
        let found = status(&i.queue(queue))?;
        ensure!(
            found.uid == own.uid && found.mode == 0o666,
            "{queue}: {found:?}"
        );
    }
    // What the kernel granted before stays granted.
    let page = i.snapshot()?;
    ensure!(
        page.uid == own.uid && page.lanes[0].degraded().is_empty(),
        "{page:?}"
    );
    for worker in &page.workers {
        let thread = kernel::thread(daemon.pid(), worker.tid)?;
        ensure!((thread.policy, thread.priority) == (FIFO, 50), "{thread:?}");
    }
    ensure!(kernel::status(daemon.pid(), "VmLck")? != "0 kB");

    for mut peer in [own.peer()?, other.peer()?, Peer::start()?] {
        passes(&i, &mut peer)?;
        peer.expect(&i, "arm", &[rt(5)])?;
        peer.open_to_send(&i.queue("ring"))?;
        peer.stream(3, 1)?;
        let got = peer.signals(rt(5), 1)?;
        ensure!(got.len() == 1 && got[0].value == 3, "{got:?}");
        peer.kill()?;
        i.until("it is dead", |page| {
            page.processes[0].state == rtcore::lane::peer::PeerState::Dead
        })?;
    }
    let log = daemon.stop()?;
    let line = format!("runs as uid {0} gid {0}, keeps ", own.uid);
    ensure!(
        log.contains(&line) && log.contains("CAP_KILL (signals to `arm`)"),
        "{log}"
    );
    ensure!(
        i.page().is_err() && !Path::new(&i.socket()).exists(),
        "what it made it takes away"
    );
    Ok(())
}

/// Signals to its own user alone: then no lane keeps anything.
fn what_the_plan_does_not_need_is_not_kept() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let config = config(&i, &account(NOBODY), &format!("user = {NOBODY}"));
    let daemon = become_user(&i, NOBODY, &config)?;
    let all = threads(daemon.pid(), NOBODY)?;
    ensure!(
        held(&all, "rtd")? == for_memory() && held(&all, "in")? == 0,
        "{all:?}"
    );
    let log = daemon.stop()?;
    ensure!(!log.contains("CAP_KILL"), "{log}");
    Ok(())
}

/// Only the thread that looks what others run keeps what shows it, and the check warns of it.
fn for_the_executable_of_another_user_the_control_thread_alone_can_trace() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (own, other) = (Stranger::new(&i)?, Stranger::new(&i)?);
    let peer = i.file("peer");
    let arm = format!("user = {}\nexe = {peer:?}", other.uid);
    let daemon = become_user(&i, own.uid, &config(&i, &account(own.uid), &arm))?;
    let all = threads(daemon.pid(), own.uid)?;
    ensure!(
        held(&all, "rtd")? == KILL | SYS_PTRACE | for_memory(),
        "{all:?}"
    );
    ensure!(
        held(&all, "in")? == KILL && held(&all, "log")? == 0,
        "{all:?}"
    );
    other.peer()?.expect(&i, "arm", &[rt(5)])?;
    ensure!(
        daemon
            .log()
            .contains("rtd keeps CAP_SYS_PTRACE, which can read and change any process")
    );
    daemon.stop()?;
    Ok(())
}

/// A program of rtd's own user: it may end rtd, and it reads nothing out of it.
fn one_of_its_own_user_cannot_look_into_it() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = become_user(&i, NOBODY, &config(&i, &account(NOBODY), ""))?;
    for file in ["mem", "maps", "environ", "fd", "auxv"] {
        let path = format!("/proc/{}/{file}", daemon.pid());
        let mut command = Command::new("cat");
        command.arg(&path).uid(NOBODY).gid(NOBODY);
        let said = crate::util::tool::run(command)?;
        ensure!(
            said.code() == Some(1) && said.err.contains("Permission denied"),
            "{path}: {said:?}"
        );
    }
    daemon.stop()?;
    Ok(())
}

/// A root without CAP_KILL: certain is an error of the file, and what depends on who comes is
/// refused to who comes.
fn without_the_capability_signals_to_others_are_refused_before_they_are_lost() -> anyhow::Result<()>
{
    let i = Instance::new()?;
    let (own, other) = (Stranger::new(&i)?, Stranger::new(&i)?);
    chown(i.file(""), Some(own.uid), Some(own.uid))?;
    let without = || {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-kill", "--inh-caps=-kill", RTD, "run", "-"]);
        command
    };
    let certain = config(&i, &account(own.uid), &format!("user = {}", other.uid));
    let text = run_on(without(), certain.as_bytes())?.refused(&["has no CAP_KILL to send them"])?;
    let says = format!(
        "signals for endpoint `arm.go` go to `arm` of uid {}: rtd is uid {}",
        other.uid, own.uid
    );
    ensure!(
        text.contains(&says) && text.contains("AmbientCapabilities=CAP_KILL"),
        "{text}"
    );
    ensure!(!exists(&i.queue("in"))?, "a refused start leaves nothing");

    let daemon = Daemon::spawn(without(), &config(&i, &account(own.uid), ""))?;
    let mut stranger = other.peer()?;
    let refused = stranger
        .expect(&i, "arm", &[rt(5)])
        .err()
        .context("it was registered")?;
    let refused = format!("{refused:#}");
    let says = format!("may not signal pid {} of uid {}", stranger.pid(), other.uid);
    ensure!(
        refused.contains(&says) && refused.contains("CAP_KILL"),
        "{refused}"
    );
    own.peer()?.expect(&i, "arm", &[rt(5)])?;
    daemon.stop()?;
    Ok(())
}

/// Who cannot become that user is told what it takes; the check knows, and the kernel has the last
/// word. Why a start with this configuration is refused, which leaves nothing behind.
fn refused(i: &Instance, granted: Granted) -> anyhow::Result<String> {
    let command = ordinary(i, granted, &["--allow-degraded"])?;
    let started = Daemon::spawn(command, &config(i, &account(NOBODY), ""));
    let text = format!("{:#}", started.err().context("it started")?);
    ensure!(
        !exists(&i.queue("in"))? && i.page().is_err(),
        "something is left behind"
    );
    Ok(text)
}

fn without_the_right_to_become_that_user_the_error_names_it() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = refused(&i, Granted::default())?;
    ensure!(
        text.contains("cannot become uid 65534 gid 65534")
            && text.contains("CAP_SETUID and CAP_SETGID"),
        "{text}"
    );
    ensure!(text.contains("User=65534"), "{text}");
    Ok(())
}

fn root_of_a_user_namespace_may_not_become_that_user_either() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text = refused(
        &i,
        Granted {
            namespace: true,
            ..Granted::default()
        },
    )?;
    ensure!(text.contains("cannot become uid 65534 gid 65534"), "{text}");
    ensure!(
        text.contains("CAP_SETUID and CAP_SETGID") && text.contains("setpriv --reuid"),
        "{text}"
    );
    Ok(())
}

/// What a unit with AmbientCapabilities= makes: no switch, and what is not needed goes all the
/// same.
fn a_user_with_capabilities_keeps_those_that_are_needed() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let own = Stranger::new(&i)?;
    let mut command = Command::new("setpriv");
    let capabilities = "+sys_nice,+ipc_lock,+kill,+net_raw";
    command.args([
        &format!("--reuid={}", own.uid),
        &format!("--regid={}", own.uid),
        "--clear-groups",
    ]);
    command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
    command.arg(own.rtd()).args(["run", "-"]);
    let daemon = Daemon::spawn(command, &config(&i, "", &format!("user = {}", own.uid)))?;
    let all = threads(daemon.pid(), own.uid)?;
    ensure!(
        held(&all, "rtd")? == for_memory() && held(&all, "in")? == 0,
        "{all:?}"
    );
    ensure!(
        all.iter().all(|thread| thread.sets[1] & NET_RAW == 0),
        "{all:?}"
    );
    ensure!(i.snapshot()?.lanes[0].degraded().is_empty());
    // Its own programs are served, and it may not be traced by them either.
    passes(&i, &mut own.peer()?)?;
    ensure!(
        owner(format!("/proc/{}/environ", daemon.pid()))?.0 == 0,
        "it can be traced"
    );
    daemon.stop()?;
    Ok(())
}

/// A program that got capabilities of its file (setcap) loads no library that its starter could
/// have written; without them it may.
fn the_starters_code_does_not_get_the_rights_of_the_file() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let own = Stranger::new(&i)?;
    let library = i.file("libcobalt.so.2");
    std::fs::write(&library, "")?;
    chown(&library, Some(own.uid), Some(own.uid))?;
    let capable = i.file("rtd-capable");
    copy_program(own.rtd(), &capable)?;
    let status = Command::new("setcap")
        .arg("cap_sys_nice,cap_ipc_lock+ep")
        .arg(&capable)
        .status()?;
    ensure!(status.success(), "setcap failed");
    let key = format!("cobalt_library = \"{}\"", library.display());
    let said = |program: &Path| {
        let mut command = Command::new(program);
        command
            .args(["check", "--skin", "cobalt", "-"])
            .uid(own.uid)
            .gid(own.uid);
        run_on(command, config(&i, &key, "").as_bytes()).map(|said| said.out + &said.err)
    };
    let refused = format!("{} belongs to uid {}", library.display(), own.uid);
    let mut probe = Command::new(&capable);
    probe
        .args(["cobalt-probe", "--library"])
        .arg(&library)
        .uid(own.uid)
        .gid(own.uid);
    let probed = run_on(probe, b"")?;
    ensure!(probed.out.contains(&refused), "{}", probed.out);
    let (capable, plain) = (said(&capable)?, said(own.rtd())?);
    ensure!(capable.contains(&refused), "{capable}");
    ensure!(
        !plain.contains(&refused) && plain.contains("Cobalt is not available"),
        "{plain}"
    );
    Ok(())
}

/// Nothing to give up, nothing given up: an ordinary user can debug its own daemon as before.
fn an_ordinary_start_is_what_it_was() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let command = ordinary(&i, Granted::default(), &["--allow-degraded"])?;
    let text = i.head() + &i.mqueue("in", "") + &i.mqueue("out", "") + &route("in", &["out"], "");
    let daemon = Daemon::spawn(command, &text)?;
    let uid = i.snapshot()?.uid;
    let all = kernel::credentials(daemon.pid())?;
    ensure!(
        all.iter()
            .all(|thread| thread.uids == [uid; 4] && thread.sets[1] == 0),
        "{all:?}"
    );
    ensure!(
        owner(format!("/proc/{}/environ", daemon.pid()))?.0 == uid,
        "it cannot be traced"
    );
    let log = daemon.stop()?;
    ensure!(!log.contains("runs as"), "{log}");
    Ok(())
}

fn root_that_stays_root_says_so() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let log = Daemon::start(&config(&i, "", ""))?.stop()?;
    ensure!(
        log.contains("runs as root with ") && log.contains("user = in [daemon]"),
        "{log}"
    );
    Ok(())
}

/// A daemon of root's was killed; the next one is to be another user. Nothing is lost and nothing
/// is in the way.
fn what_a_killed_daemon_of_roots_left_is_taken_over() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i, "", ""))?;
    daemon.freeze()?;
    Peer::sender(&i.queue("in"))?.stream(0, 5)?;
    daemon.kill()?;
    ensure!(owner(i.page()?)?.0 == 0 && status(&i.queue("in"))?.uid == 0);
    let later = config(&i, &account(NOBODY), "");
    let mut daemon = become_user(&i, NOBODY, &later)?;
    daemon.logged(&format!(
        "message queue {}: from uid 0 to uid {NOBODY}",
        i.queue("in")
    ))?;
    ensure!(Peer::receiver(&i.queue("out"))?.numbers(5)? == [0, 1, 2, 3, 4]);
    // And so on, each killed: what is that user's already is no obstacle either.
    for _ in 0..3 {
        daemon.kill()?;
        daemon = Daemon::start(&later)?;
        ensure!(owner(i.page()?)?.0 == NOBODY && status(&i.queue("in"))?.uid == NOBODY);
        passes(&i, &mut Peer::start()?)?;
    }
    daemon.stop()?;
    Ok(())
}

/// The default socket is in /run/rtd, which only root can make; here in a /run of the daemon's own.
fn the_directory_of_the_socket_is_made_for_the_user() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let text =
        config(&i, &account(NOBODY), "").replace(&format!("socket = \"{}\"\n", i.socket()), "");
    let refusals = [
        (
            "mkdir /run/rtd && touch /run/rtd/other.sock",
            "/run/rtd belongs to uid 0 and contains more",
        ),
        (
            "mkdir /run/rtd && chown 77777 /run/rtd",
            "run rtd as uid 77777, or chown 65534 /run/rtd",
        ),
        (
            "ln -s /proc/self/fdinfo /run/rtd",
            "/run/rtd is a symbolic link: remove it",
        ),
        (
            "mount -o remount,ro /run",
            "/run/rtd, the directory of the socket, cannot be created",
        ),
    ];
    for (before, says) in [("true", ""), ("mkdir /run/rtd", "")]
        .into_iter()
        .chain(refusals)
    {
        let script = format!("mount -t tmpfs none /run && {before} && exec {RTD} run -");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        if !says.is_empty() {
            let refused = format!(
                "{:#}",
                Daemon::spawn(command, &text).err().context("it started")?
            );
            ensure!(
                refused.contains(says) && refused.contains("[daemon] socket"),
                "{before}: {refused}"
            );
            continue;
        }
        let daemon = Daemon::spawn(command, &text)?;
        let run = format!("/proc/{}/root/run/rtd", daemon.pid());
        ensure!(owner(&run)? == (NOBODY, NOBODY), "{before}");
        ensure!(
            owner(format!("{run}/{}.sock", i.name))? == (NOBODY, NOBODY),
            "{before}"
        );
        ensure!(
            Path::new(&run).metadata()?.mode() & 0o777 == 0o755,
            "clients of every user pass"
        );
        daemon.stop()?;
    }
    Ok(())
}

/// A directory that is somebody's is not taken from him; the refusal says whose it is and what
/// would help.
fn a_directory_that_the_user_may_not_write_is_named() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let refused = Daemon::start(&config(&i, &account(NOBODY), ""))
        .err()
        .context("it started")?;
    let text = format!("{refused:#}");
    let directory = i.socket().trim_end_matches("/rtd.sock").to_owned();
    ensure!(
        text.contains(&format!(
            "{directory} belongs to uid 0, and uid {NOBODY} may not write in it"
        )),
        "{text}"
    );
    ensure!(
        text.contains(&format!("chown {NOBODY} {directory}")),
        "{text}"
    );
    ensure!(
        !exists(&i.queue("in"))? && owner(&directory)?.0 == 0,
        "something is left behind"
    );
    Ok(())
}

/// What the file says is wrong is told by the check, before anything is tried.
fn an_account_that_is_none_is_refused_by_the_check() -> anyhow::Result<()> {
    let i = Instance::new()?;
    for (keys, says) in [
        (
            "user = \"no-such-user-here\"",
            "there is no user `no-such-user-here`",
        ),
        (
            "user = 65534\ngroup = \"no-such-group-here\"",
            "there is no group `no-such-group-here`",
        ),
        (
            "user = 4000000000",
            "uid 4000000000 has no account, so its group is not known",
        ),
        ("group = 65534", "`group` has no effect without `user`"),
    ] {
        let text = config(&i, keys, "");
        run_on(rtd(&["check", "-"]), text.as_bytes())?.refused(&[says])?;
    }
    Ok(())
}

/// The same signals stop it as before, and a parent's death too.
fn it_ends_with_its_parent_still() -> anyhow::Result<()> {
    let i = Instance::new()?;
    chown(i.file(""), Some(NOBODY), Some(NOBODY))?;
    let file = i.file("rtd.toml");
    std::fs::write(&file, config(&i, &account(NOBODY), ""))?;
    // setpriv sets what a supervisor would, and a shell in between dies.
    let script = format!(
        "setpriv --pdeathsig TERM {RTD} run {} & echo $!; wait",
        file.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    let shell = Tool::start(command)?;
    let pid: u32 = shell.line()?.trim().parse()?;
    ensure!(shell.line()? == "READY\n");
    ensure!(kernel::credentials(pid)?[0].uids == [NOBODY; 4]);
    shell.signal(Signal::SIGKILL)?;
    crate::util::eventually(|| (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()))
        .with_context(|| format!("pid {pid} lives on"))
}

/// For every other user, and for any user of rtd: the kernel's own permissions on rtd's objects.
fn a_stranger_gets_into_no_queue_and_sends_rtd_no_signal() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let (own, other) = (Stranger::new(&i)?, Stranger::new(&i)?);
    let text = config(&i, &account(own.uid), "").replace("0666", "0660")
        + &signal("press", "", "SIGRTMIN+7", "")
        + &route("press", &["out"], "accept_claimed = true");
    let daemon = become_user(&i, own.uid, &text)?;
    let (mut ours, mut theirs) = (own.peer()?, other.peer()?);
    for (access, queue) in [("send", "in"), ("receive", "in"), ("receive", "out")] {
        let queue = i.queue(queue);
        let open = |peer: &mut Peer| match access {
            "send" => peer.open_to_send(&queue),
            _ => peer.open_to_receive(&queue),
        };
        let refused = open(&mut theirs)
            .err()
            .with_context(|| format!("{access} {queue} was let in"))?;
        ensure!(
            format!("{refused:#}").contains("Permission denied"),
            "{refused:#}"
        );
        open(&mut ours)?;
    }
    let refused = theirs
        .ring(daemon.pid(), rt(7), 1)
        .err()
        .context("it was sent")?;
    ensure!(format!("{refused:#}").contains("EPERM"), "{refused:#}");
    let refused = theirs
        .tell(order::Signal::Kill {
            pid: daemon.pid(),
            signo: 15,
        })
        .err()
        .context("it was sent")?;
    ensure!(format!("{refused:#}").contains("EPERM"), "{refused:#}");
    ours.ring(daemon.pid(), rt(7), 1)?;
    i.until("its own user's arrived", |page| {
        page.routes.iter().any(|r| r.ledger.delivered == 1)
    })?;
    daemon.stop()?;
    Ok(())
}
