//! The binary on POSIX and on the stand-in: that both keep the rules, and that a library which does
//! not is found out.

use stand_in_cobalt::copies::{Kind, library};
use stand_in_cobalt::{Space, switch};
use std::process::{Command, Output};

/// Runs the binary with these arguments and this environment.
fn conformance(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skin-conformance"));
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .expect("the binary starts")
}

/// Runs it on a copy of the stand-in, in a space of the test's own.
fn on_stand_in(name: &str, kind: Kind, more: &[&str], switches: &[(&str, &str)]) -> Output {
    let space = Space::new(name);
    let path = library(kind).expect("the stand-in is built");
    let path = path.to_str().expect("a path of this build");
    let arguments = [&["--skin", "cobalt", "--library", path], more].concat();
    let environment = [&[space.environment()], switches].concat();
    conformance(&arguments, &environment)
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Every rule was kept; a thread needs SCHED_FIFO for most of them.
fn assert_kept(output: &Output) {
    let text = text(output);
    assert!(output.status.success() && !text.contains("FAIL"), "{text}");
}

/// This rule was broken and none other.
fn assert_only_broken(output: &Output, rule: &str) {
    let text = text(output);
    let broken: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("FAIL"))
        .collect();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(broken.len() == 1 && broken[0].contains(rule), "{text}");
}

#[test]
#[ignore = "needs root, for SCHED_FIFO"]
fn posix_keeps_the_rules() {
    let output = conformance(&["--skin", "posix"], &[]);
    assert_kept(&output);
    assert_eq!(
        text(&output).matches("skip  xddp: ").count(),
        7,
        "{}",
        text(&output)
    );
}

#[test]
#[ignore = "needs root, for SCHED_FIFO"]
fn the_stand_in_keeps_the_rules_and_says_what_it_is() {
    let output = on_stand_in("stock", Kind::Stock, &[], &[]);
    assert_kept(&output);
    let text = text(&output);
    assert!(
        text.lines()
            .next()
            .is_some_and(|first| first.contains("stand-in")),
        "{text}"
    );
    assert!(text.contains("skip  signal: pthread_sigqueue_np"), "{text}");
    assert!(text.matches("pass  xddp: ").count() == 7, "{text}");
}

#[test]
#[ignore = "needs root, for SCHED_FIFO"]
fn with_the_old_extension_it_is_checked_too() {
    let output = on_stand_in(
        "np",
        Kind::WithSigqueueNp,
        &["--rule", "pthread_sigqueue_np"],
        &[],
    );
    assert_kept(&output);
    assert!(
        text(&output).contains("pass  signal: pthread_sigqueue_np"),
        "{}",
        text(&output)
    );
}

#[test]
#[ignore = "needs root, for SCHED_FIFO"]
fn where_there_is_no_xddp_its_rules_say_why() {
    for (name, kind, switches, why) in [
        (
            "no-xddp",
            Kind::Stock,
            &[("RTD_STAND_IN_NO_XDDP", "1")][..],
            "CONFIG_XENO_DRIVERS_RTIPC_XDDP",
        ),
        (
            "no-sendto",
            Kind::Without("__cobalt_sendto"),
            &[],
            "this skin has none",
        ),
    ] {
        let output = on_stand_in(name, kind, &["--rule", "xddp: "], switches);
        assert_kept(&output);
        assert_eq!(
            text(&output).matches("skip  xddp: ").count(),
            7,
            "{}",
            text(&output)
        );
        assert!(text(&output).contains(why), "{}", text(&output));
    }
}

#[test]
#[ignore = "needs root, for SCHED_FIFO"]
fn a_smaller_pool_still_drops_in_silence() {
    let output = on_stand_in(
        "pool",
        Kind::Stock,
        &["--rule", "no more room"],
        &[("RTD_STAND_IN_POOL", "20")],
    );
    assert_kept(&output);
    assert!(
        text(&output).contains("200 accepted, 20 delivered"),
        "{}",
        text(&output)
    );
}

#[test]
#[ignore = "needs root, for SCHED_FIFO"]
fn the_table_makes_an_error_of_that_silence() {
    for (kind, name) in [(Kind::Stock, "flood"), (Kind::WithSigqueueNp, "flood-np")] {
        let output = on_stand_in(
            name,
            kind,
            &["--rule", "of a flood"],
            &[("RTD_STAND_IN_POOL", "20")],
        );
        assert_kept(&output);
        assert!(text(&output).contains("after 20)"), "{}", text(&output));
    }
}

#[test]
#[ignore = "needs root, for SCHED_FIFO"]
fn a_library_that_finds_no_thread_is_found_out() {
    let switches = [("RTD_STAND_IN_ESRCH", "1")];
    let output = on_stand_in(
        "esrch",
        Kind::Stock,
        &["--rule", "arrive in order"],
        &switches,
    );
    assert_only_broken(&output, "errno 3");
}

#[test]
#[ignore = "needs root, for SCHED_FIFO"]
fn a_thread_that_stays_relaxed_is_found_out() {
    let switches = [("RTD_STAND_IN_RELAX_EVERY", "1")];
    let output = on_stand_in(
        "relax",
        Kind::Stock,
        &["--rule", "is not relaxed"],
        &switches,
    );
    assert_only_broken(&output, "relaxed (mode 0x80)");
    let output = on_stand_in(
        "relax-table",
        Kind::Stock,
        &["--rule", "in real-time mode"],
        &switches,
    );
    assert_only_broken(&output, "relaxed: true");
}

/// What `rtcore` puts around the library's calls makes no Linux call either.
#[test]
#[ignore = "needs root, for SCHED_FIFO, and x86_64 with Linux 5.11"]
fn the_table_stays_in_real_time_mode_where_linux_calls_are_followed() {
    assert!(
        stand_in_cobalt::follow::is_supported(),
        "needs x86_64 and Linux 5.11 (Syscall User Dispatch)"
    );
    let switches = [("RTD_STAND_IN_FOLLOW", "1")];
    assert_kept(&on_stand_in(
        "follow",
        Kind::Stock,
        &["--rule", "in real-time mode"],
        &switches,
    ));
}

#[test]
fn without_the_right_to_promote_every_rule_says_so() {
    // The main thread's own promotion is part of binding, which then fails.
    let output = on_stand_in("eperm", Kind::Stock, &[], &[("RTD_STAND_IN_PROMOTE", "1")]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("the main thread was not promoted"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_library_that_comes_back_without_having_bound_is_found_out() {
    let output = on_stand_in(
        "unbound",
        Kind::Stock,
        &[],
        &[("RTD_STAND_IN_INIT", "eperm")],
    );
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("returned without binding the process"),
        "{}",
        text(&output)
    );
}

#[test]
fn binding_that_fails_ends_the_process_with_the_librarys_own_words() {
    for (init, words) in [
        ("exit", "binding failed"),
        ("enosys", "Cobalt core not enabled"),
    ] {
        let output = on_stand_in(init, Kind::Stock, &[], &[("RTD_STAND_IN_INIT", init)]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(words), "{}", text(&output));
        assert!(
            !text(&output).contains(" passed, "),
            "it came back from the binding: {}",
            text(&output)
        );
    }
}

#[test]
fn without_cobalt_the_first_call_says_so() {
    let output = on_stand_in(
        "enosys-call",
        Kind::Stock,
        &["--rule", "binding"],
        &[("RTD_STAND_IN_INIT", "enosys")],
    );
    assert!(text(&output).contains("FAIL  binding"), "{}", text(&output));
    assert!(
        text(&output).contains("there is no Cobalt in this kernel"),
        "{}",
        text(&output)
    );
}

#[test]
fn what_cannot_be_loaded_is_no_broken_rule() {
    for (name, kind, words) in [
        ("nodlopen", Kind::RefusesDlopen, "--enable-dlopen-libs"),
        (
            "missing",
            Kind::Without("__cobalt_sigqueue"),
            "does not export __cobalt_sigqueue",
        ),
    ] {
        let output = on_stand_in(name, kind, &[], &[]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains(words), "{}", text(&output));
    }
    let absent = conformance(
        &["--skin", "cobalt", "--library", "/nowhere/libcobalt.so.2"],
        &[],
    );
    assert_eq!(absent.status.code(), Some(3), "{}", text(&absent));
    assert!(
        text(&absent).contains("/nowhere/libcobalt.so.2 was not found"),
        "{}",
        text(&absent)
    );
}

#[test]
fn bad_usage_is_no_broken_rule_either() {
    for arguments in [
        &[][..],
        &["--skin"],
        &["--skin", "evl"],
        &["--skin", "posix", "--library", "/x"],
        &["--speed", "high"],
        &["--skin", "posix", "--rule", "no such rule"],
    ] {
        let output = conformance(arguments, &[]);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            text(&output)
        );
    }
    assert!(conformance(&["--help"], &[]).status.success());
}

#[test]
fn a_space_leaves_nothing_behind() {
    let space = Space::new("leftovers");
    let (variable, name) = space.environment();
    assert_eq!(variable, switch::SPACE);
    let memory = std::path::PathBuf::from(format!("/dev/shm/rtd-stand-in-{name}"));
    let path = library(Kind::Stock).expect("the stand-in is built");
    let path = path.to_str().expect("a path of this build");
    conformance(
        &["--skin", "cobalt", "--library", path, "--rule", "clock"],
        &[space.environment()],
    );
    assert!(memory.exists());
    let device = space.device(0);
    assert!(device.exists());
    drop(space);
    assert!(!memory.exists() && !device.exists());
}
