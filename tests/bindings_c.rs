//! The client library for C and C++: what C sees is what Rust has, each errno can be provoked, an
//! installed library is found in every usual way, and programs of both languages work together.

use crate::examples;
use crate::examples::rust;
use crate::util::cobalt_bench::{Bench, balanced};
use crate::util::needs::{COMPILER, FOLLOWING, MOUNT, PKG_CONFIG, ROOT};
use crate::util::session::{lane_end, planner_and_arm, unbroken};
use crate::util::tool::{Tool, cargo_build, profile, run};
use crate::util::{Daemon, Instance, Peer, process, route, signal};
use anyhow::{Context as _, ensure};
use stand_in_cobalt::copies::Kind;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

tests![
    the_header_is_c_and_cpp_of_every_version needs(COMPILER),
    the_shared_library_exports_its_list_and_nothing_else needs(COMPILER),
    every_errno_is_returned_with_what_to_do needs(COMPILER),
    a_violation_of_the_other_process_is_returned needs(COMPILER),
    without_a_name_several_daemons_are_refused needs(COMPILER),
    without_a_daemon_the_text_says_how_to_start_one needs(COMPILER, MOUNT),
    real_time_calls_make_no_heap_call needs(COMPILER),
    a_child_gets_an_errno_from_every_call needs(COMPILER),
    the_classes_of_cpp_do_what_the_functions_do needs(COMPILER),
    a_controller_and_a_drive_of_either_language_work_together needs(COMPILER),
    a_stop_works_between_a_button_and_a_machine_of_either_language needs(COMPILER),
    questions_and_answers_pass_between_the_languages needs(COMPILER),
    an_example_in_c_behaves_as_its_rust_twin needs(COMPILER),
    the_library_leaves_no_memory_error_or_leak needs(COMPILER),
    a_message_says_all_of_itself_and_a_callback_ends_when_it_is_removed needs(COMPILER),
    an_installed_library_is_found_by_pkg_config_and_cmake_also_after_a_move needs(COMPILER, PKG_CONFIG),
    a_program_in_c_echoes_on_cobalt needs(COMPILER, ROOT, FOLLOWING),
    the_programs_of_the_manual_work_together needs(COMPILER),
];

/// The sources.
fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bindings/c")
}

/// Where the libraries, the examples and the test programs are, which this builds.
fn built() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|e| format!("{e:#}")));
    built.as_deref().map_err(|e| anyhow::anyhow!("{e}"))
}

fn build() -> anyhow::Result<PathBuf> {
    // As the Makefile does: with the features that a user gets, and not those that the tests add.
    let directory = cargo_build(&["--package", "rtcore-c", "--lib"])?;
    make(&["libraries", "tests", "examples"])?;
    Ok(directory.join("c"))
}

/// `make` on what cargo has built.
fn make(arguments: &[&str]) -> anyhow::Result<()> {
    let target = Path::new(crate::util::tool::RTD)
        .ancestors()
        .nth(2)
        .context("no target directory")?;
    let mut make = Command::new("make");
    make.arg("-C").arg(here());
    make.args(["--silent", "CARGO=true", &format!("PROFILE={}", profile()?)]);
    make.arg(format!("TARGET={}", target.display()))
        .args(arguments)
        .env_remove("MAKEFLAGS");
    succeeds(make)
}

fn succeeds(mut command: Command) -> anyhow::Result<()> {
    let said = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        said.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    Ok(())
}

/// A program of C that is about to run on this instance.
fn program(i: &Instance, name: &str, arguments: &[&str]) -> anyhow::Result<Tool> {
    let mut command = Command::new(built()?.join(name));
    command.args(arguments).env("RTD_INSTANCE", &i.name);
    rtcore::sys::process::die_with_parent_at_exec(&mut command);
    Tool::start(command)
}

/// Waits until it stops there, and ends early with what it said.
fn reaches(tool: Tool, place: &str) -> anyhow::Result<Tool> {
    match tool.line() {
        Ok(line) if line.trim_end() == place => Ok(tool),
        _ => {
            let said = tool.end()?;
            anyhow::bail!("it does not reach {place:?}: {said:?}")
        }
    }
}

/// A planner and an arm with two ways, and a question and its answer.
fn config(i: &Instance) -> String {
    let ends = "msgsize = 64\nmaxmsg = 8";
    planner_and_arm(i, ends, "", "")
        + &lane_end("ask", "planner", ends)
        + &lane_end("arm.ask", "arm", ends)
        + &lane_end("arm.answers", "arm", ends)
        + &lane_end("plan", "planner", ends)
        + &route("ask", &["arm.ask"], "")
        + &route("arm.answers", &["plan"], "")
        + &process("locked")
        + "exe = \"/bin/false\"\n"
}

/// Each compiler that is there: gcc, and clang where it is installed.
fn compilers() -> Vec<(&'static str, &'static str)> {
    let all = [("gcc", "g++"), ("clang", "clang++")];
    let is_there = |(c, _): &(&str, &str)| Command::new(c).arg("--version").output().is_ok();
    let there: Vec<_> = all.into_iter().filter(is_there).collect();
    for (c, _) in all
        .iter()
        .filter(|(c, _)| !there.iter().any(|(name, _)| name == c))
    {
        println!("skipped: {c} is not installed");
    }
    there
}

fn the_header_is_c_and_cpp_of_every_version() -> anyhow::Result<()> {
    let compilers = compilers();
    ensure!(!compilers.is_empty(), "no compiler");
    for (c, cpp) in compilers {
        for standard in ["c99", "c11", "c17", "c++17", "c++20"] {
            let is_cpp = standard.starts_with("c++");
            let mut compile = Command::new(if is_cpp { cpp } else { c });
            compile.args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]);
            compile
                .arg(format!("-std={standard}"))
                .arg("-I")
                .arg(here().join("include"));
            if is_cpp {
                compile.args(["-x", "c++", "-D_Static_assert=static_assert"]);
            }
            compile.arg(here().join("tests/uses.c"));
            if is_cpp {
                compile.arg(here().join("tests/cpp.cpp"));
            }
            if standard != "c99" {
                // C99 has no _Static_assert.
                compile.arg(here().join("tests/abi.c"));
            }
            succeeds(compile)?;
        }
    }
    Ok(())
}

fn the_shared_library_exports_its_list_and_nothing_else() -> anyhow::Result<()> {
    let library = built()?.join("librtcore.so.0");
    let mut nm = Command::new("nm");
    nm.args(["--dynamic", "--defined-only"]).arg(&library);
    let exported = run(nm)?.well()?;
    let exported: BTreeSet<&str> = exported
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    let map = std::fs::read_to_string(here().join("rtcore.map"))?;
    let listed = map.lines().filter_map(|line| line.trim().strip_suffix(';'));
    let listed: BTreeSet<String> = listed
        .filter(|name| name.starts_with("rtcore_"))
        .map(|name| format!("{name}@@RTCORE_0.1"))
        .chain(["RTCORE_0.1".to_owned()])
        .collect();
    let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    ensure!(
        exported == listed && listed.len() > 50,
        "not exported: {:?}; exported too: {:?}",
        &listed - &exported,
        &exported - &listed
    );
    let mut readelf = Command::new("readelf");
    readelf.arg("--dynamic").arg(&library);
    let dynamic = run(readelf)?.well()?;
    ensure!(
        dynamic.contains("Library soname: [librtcore.so.0]") && dynamic.contains("NODELETE"),
        "{dynamic}"
    );
    Ok(())
}

fn every_errno_is_returned_with_what_to_do() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let daemon = Daemon::start(&config(&i))?;
    let strange = i.file("strange.sock").display().to_string();
    let directory = i.file("stranger").display().to_string();
    std::fs::create_dir(&directory)?;
    let tool = program(&i, "test-errors", &[&strange, &directory])?;
    let mut tool = reaches(tool, "start the arm")?;
    let mut arm = Peer::session(&i, "arm")?;
    arm.open_inbox()?;
    tool.type_in(b"\n")?;
    let mut tool = reaches(tool, "kill the daemon")?;
    daemon.kill()?;
    tool.type_in(b"\n")?;
    let mut tool = reaches(tool, "start it without cmd")?;
    let without = config(&i).replacen("from = \"cmd\"", "from = \"ask\"", 1);
    let without = without.replacen("to = [\"arm.cmd\"]", "to = [\"arm.cmd\", \"arm.ask\"]", 1);
    let again = route("ask", &["arm.ask"], "");
    let _daemon = Daemon::start(&without.replacen(&again, "", 1))?;
    tool.type_in(b"\n")?;
    let out = tool.end()?.well()?;
    ensure!(out.ends_with("all refused as they should be\n"), "{out}");
    Ok(())
}

fn a_violation_of_the_other_process_is_returned() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let end = |name: &str, owner: &str| lane_end(name, owner, "msgsize = 64\nmaxmsg = 8");
    let direct = "path = \"direct\"";
    let config = i.head()
        + &process("liar")
        + &process("victim")
        + &end("liar.direct", "liar")
        + &end("victim.direct.in", "victim")
        + &end("victim.direct", "victim")
        + &end("liar.direct.in", "liar")
        + &route("liar.direct", &["victim.direct.in"], direct)
        + &route("victim.direct", &["liar.direct.in"], direct);
    let _daemon = Daemon::start(&config)?;
    let mut tool = reaches(program(&i, "test-corrupt", &[])?, "connect the liar")?;
    let mut liar = Peer::start()?;
    liar.liar(&format!("connect {}", i.socket()))?;
    liar.liar("open liar")?;
    for endpoint in ["liar.direct", "liar.direct.in"] {
        liar.liar(&format!("join {endpoint}"))?;
    }
    tool.type_in(b"\n")?;
    let mut tool = reaches(tool, "break its head")?;
    // Both words are the first of the memory that this end writes.
    liar.liar("poke liar.direct.in 0 9")?;
    tool.type_in(b"\n")?;
    let mut tool = reaches(tool, "break its tail")?;
    liar.liar("poke liar.direct 0 100")?;
    liar.liar("ring liar.direct")?;
    tool.type_in(b"\n")?;
    let out = tool.end()?.well()?;
    ensure!(out.ends_with("corrupt\n"), "{out}");
    Ok(())
}

fn without_a_name_several_daemons_are_refused() -> anyhow::Result<()> {
    let (one, other) = (Instance::new()?, Instance::new()?);
    let _daemons = (
        Daemon::start(&config(&one))?,
        Daemon::start(&config(&other))?,
    );
    let mut several = Command::new(built()?.join("test-several"));
    several.arg("several").env_remove("RTD_INSTANCE");
    run(several)?.well()?;
    Ok(())
}

/// Pages of daemons are below /dev/shm, which is empty here.
fn without_a_daemon_the_text_says_how_to_start_one() -> anyhow::Result<()> {
    let program = built()?.join("test-several");
    let line = format!(
        "mount -t tmpfs none /dev/shm; exec {} none",
        program.display()
    );
    let mut nobody = Command::new("unshare");
    nobody.args(["--mount", "sh", "-euc", &line]);
    nobody.env_remove("RTD_INSTANCE");
    run(nobody)?.well()?;
    Ok(())
}

fn real_time_calls_make_no_heap_call() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    let out = program(&i, "test-quiet", &[])?.end()?.well()?;
    ensure!(out.ends_with("quiet\n"), "{out}");
    Ok(())
}

fn a_child_gets_an_errno_from_every_call() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let question =
        lane_end("arm.question", "arm", "msgsize = 64") + &route("arm.question", &["plan"], "");
    let _daemon = Daemon::start(&(config(&i) + &question))?;
    let mut tool = reaches(program(&i, "test-forked", &[])?, "forked")?;
    let mut planner = Peer::from_endpoint(&i, "planner", "fast")?;
    planner.reach("fast")?;
    planner.number("fast", 1)?;
    tool.type_in(b"\n")?;
    let out = tool.end()?.well()?;
    ensure!(out.ends_with("goes on\n"), "{out}");
    Ok(())
}

fn a_message_says_all_of_itself_and_a_callback_ends_when_it_is_removed() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let bell = lane_end("ring", "planner", "msgsize = 64")
        + &signal("arm.bell", "arm", "SIGRTMIN+4", "msgsize = 64")
        + &route("ring", &["arm.bell"], "");
    let _daemon = Daemon::start(&(config(&i) + &bell))?;
    let mut tool = reaches(program(&i, "test-receives", &[])?, "ring")?;
    let mut planner = Peer::from_endpoint(&i, "planner", "ring")?;
    planner.claim("cmd")?;
    planner.reach("ring")?;
    for _ in 0..2 {
        planner.number("ring", u64::from_ne_bytes(*b"payload!"))?;
    }
    tool.type_in(b"\n")?;
    let mut tool = reaches(tool, "send")?;
    planner.reach("cmd")?;
    for number in 1..=3 {
        planner.number("cmd", number)?;
    }
    tool.type_in(b"\n")?;
    let mut tool = reaches(tool, "end the planner")?;
    planner.kill()?;
    tool.type_in(b"\n")?;
    let out = tool.end()?.well()?;
    ensure!(out.ends_with("received\n"), "{out}");
    Ok(())
}

fn the_classes_of_cpp_do_what_the_functions_do() -> anyhow::Result<()> {
    // With std::span, and with the class that takes its place.
    for name in ["test-cpp17", "test-cpp20"] {
        let i = Instance::new()?;
        let _daemon = Daemon::start(&config(&i))?;
        let out = program(&i, name, &[])?.end()?.well()?;
        ensure!(out == "c++\n", "{name}: {out}");
    }
    Ok(())
}

/// An example in C: its name, arguments and output are those of its Rust twin.
fn c(i: &Instance, name: &str, arguments: &[&str]) -> anyhow::Result<Tool> {
    program(i, name, arguments)
}

fn a_controller_and_a_drive_of_either_language_work_together() -> anyhow::Result<()> {
    examples::commands(c, rust).context("C controller, Rust drive")?;
    examples::commands(rust, c).context("Rust controller, C drive")?;
    examples::commands(c, c).context("both C")
}

fn a_stop_works_between_a_button_and_a_machine_of_either_language() -> anyhow::Result<()> {
    examples::pressed(c, rust).context("C machine, Rust button")?;
    examples::pressed(rust, c).context("Rust machine, C button")?;
    examples::killed(c, rust)?;
    examples::without_a_daemon_it_stops(c, c)
}

fn questions_and_answers_pass_between_the_languages() -> anyhow::Result<()> {
    examples::asked(c, rust).context("C panel, Rust axis")?;
    examples::asked(rust, c).context("Rust panel, C axis")
}

fn an_example_in_c_behaves_as_its_rust_twin() -> anyhow::Result<()> {
    examples::looped(c)?;
    examples::held(c)?;
    examples::refused(c)
}

/// AddressSanitizer, with its search for leaks: it sees each heap call of the library, too. (Valgrind
/// ends where rustix looks for the vDSO.)
fn the_library_leaves_no_memory_error_or_leak() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = Daemon::start(&config(&i))?;
    built()?;
    make(&["sanitized"])?;
    let out = program(&i, "sanitized-cpp17", &[])?.end_of_work()?.well()?;
    ensure!(out == "c++\n", "{out}");
    // It would find one: this program forgets a waiter.
    let said = program(&i, "sanitized-leaks", &[])?.end_of_work()?;
    ensure!(
        said.code() != Some(0) && said.err.contains("LeakSanitizer"),
        "a leak is not found: {said:?}"
    );
    Ok(())
}

/// A directory that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(i: &Instance, name: &str) -> anyhow::Result<Scratch> {
        let directory = i.file(name);
        std::fs::create_dir_all(&directory)?;
        Ok(Scratch(directory))
    }

    /// Runs a line of shell there.
    fn sh(&self, line: &str) -> anyhow::Result<String> {
        let mut shell = Command::new("sh");
        shell.args(["-euc", line]).current_dir(&self.0);
        shell
            .env_remove("RTD_INSTANCE")
            .env_remove("PKG_CONFIG_PATH")
            .env_remove("LD_LIBRARY_PATH");
        run(shell)?.well().with_context(|| line.to_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the consumer prints: the library's version, and that no daemon is there.
const CONSUMED: &str = "0.1.0 -111\n";

fn an_installed_library_is_found_by_pkg_config_and_cmake_also_after_a_move() -> anyhow::Result<()> {
    let i = Instance::new()?;
    built()?;
    let scratch = Scratch::new(&i, "install")?;
    std::fs::copy(
        here().join("tests/consumer.c"),
        scratch.0.join("consumer.c"),
    )?;
    std::fs::copy(
        here().join("tests/CMakeLists.txt"),
        scratch.0.join("CMakeLists.txt"),
    )?;
    let stage = scratch.0.join("stage");
    for libdir in ["lib", "lib/x86_64-linux-gnu"] {
        let (destdir, libdir_is) = (
            format!("DESTDIR={}", stage.display()),
            format!("LIBDIR={libdir}"),
        );
        make(&["install", "PREFIX=/opt/rtcore", &destdir, &libdir_is])?;
        // The tree was staged elsewhere, and moves once more.
        let moved = scratch.0.join("moved");
        std::fs::rename(stage.join("opt/rtcore"), &moved)?;
        let pkg = format!("export PKG_CONFIG_PATH=$PWD/moved/{libdir}/pkgconfig; ");
        let run_shared = format!("LD_LIBRARY_PATH=$PWD/moved/{libdir} ./shared");
        let compile = "cc -std=c11 -Wall -Werror consumer.c";
        let shared =
            format!("{pkg}{compile} -o shared $(pkg-config --cflags --libs rtcore); {run_shared}");
        ensure!(scratch.sh(&shared)? == CONSUMED, "pkg-config, shared");
        ensure!(
            scratch
                .sh("readelf -d shared")?
                .contains("[librtcore.so.0]"),
            "the program does not ask for the soname"
        );
        ensure!(
            scratch.sh("readelf -V shared")?.contains("RTCORE_0.1"),
            "the program does not ask for the version of the symbols"
        );
        let fixed = format!(
            "{pkg}{compile} -static -o static $(pkg-config --static --cflags --libs rtcore) 2>/dev/null; ./static"
        );
        ensure!(scratch.sh(&fixed)? == CONSUMED, "pkg-config, static");
        ensure!(scratch.sh(&format!("{pkg}pkg-config --modversion rtcore"))? == "0.1.0\n");
        if Command::new("cmake").arg("--version").output().is_ok() {
            let cmake = "rm -rf built; cmake -S . -B built -DCMAKE_PREFIX_PATH=$PWD/moved >/dev/null; \
                         cmake --build built >/dev/null; built/shared; built/static";
            ensure!(scratch.sh(cmake)? == [CONSUMED, CONSUMED].concat(), "CMake");
        } else {
            println!("skipped: cmake is not installed");
        }
        std::fs::remove_dir_all(&moved)?;
    }
    make(&[
        "install",
        "PREFIX=/usr",
        &format!("DESTDIR={}", stage.display()),
    ])?;
    make(&[
        "uninstall",
        "PREFIX=/usr",
        &format!("DESTDIR={}", stage.display()),
    ])?;
    let left = scratch.sh("find stage -not -type d")?;
    ensure!(left.is_empty(), "uninstall leaves {left}");
    Ok(())
}

fn a_program_in_c_echoes_on_cobalt() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Stock)?;
    let i = &bench.instance;
    let config = bench.head()
        + &process("planner")
        + &process("arm")
        + &lane_end("plan", "planner", "")
        + &lane_end("arm.cmd", "arm", "")
        + &lane_end("arm.back", "arm", "")
        + &lane_end("planner.back", "planner", "")
        + &route("plan", &["arm.cmd"], "")
        + &route("arm.back", &["planner.back"], "");
    let daemon = bench.daemon(&config)?;
    let mut planner = bench.sender("planner", "plan")?;
    planner.open_inbox()?;
    let mut command = Command::new(built()?.join("test-cobalt"));
    command
        .arg(&bench.libcobalt)
        .envs(bench.environment())
        .env("RTD_STAND_IN_FOLLOW", "1")
        .env("RTD_INSTANCE", &i.name);
    rtcore::sys::process::die_with_parent_at_exec(&mut command);
    let tool = Tool::start(command)?;
    planner.reach("plan")?;
    planner.number("plan", 1)?;
    unbroken(&planner.got_until("number 1")?, 1, 1)?;
    // From here to the last but one it receives and sends, and does nothing else.
    let before = bench.linux_calls(tool.pid())?;
    for number in 2..=19 {
        planner.number("plan", number)?;
    }
    unbroken(&planner.got_until("number 19")?, 2, 18)?;
    let after = bench.linux_calls(tool.pid())?;
    ensure!(
        after.0 == before.0,
        "{} calls of Linux, the last one number {}",
        after.0 - before.0,
        after.1
    );
    planner.number("plan", 20)?;
    unbroken(&planner.got_until("number 20")?, 20, 1)?;
    let mut tool = reaches(tool, "echoed")?;
    tool.type_in(b"\n")?;
    let out = tool.end()?.well()?;
    ensure!(out.ends_with("on cobalt\n"), "{out}");
    balanced(&i.snapshot()?)?;
    daemon.stop()?;
    Ok(())
}

/// The blocks of this language in a document.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let start = format!("\n```{language}\n");
    let blocks = text.split(start.as_str()).skip(1);
    blocks
        .filter_map(|rest| rest.split("\n```").next().map(|block| format!("{block}\n")))
        .collect()
}

fn the_programs_of_the_manual_work_together() -> anyhow::Result<()> {
    let i = Instance::new()?;
    let _daemon = examples::daemon(&i)?;
    let scratch = Scratch::new(&i, "manual")?;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("book/src/c.md");
    let page = std::fs::read_to_string(page)?;
    let (in_c, in_cpp) = (blocks(&page, "c"), blocks(&page, "cpp"));
    ensure!(
        (in_c.len(), in_cpp.len()) == (2, 1),
        "the page has other programs"
    );
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let in_readme = blocks(&std::fs::read_to_string(readme)?, "c");
    ensure!(in_readme.len() == 1, "the README has other programs");
    let options = format!(
        "-Wall -Wextra -pedantic -Werror -I{} -L{} -Wl,-rpath,{1} ",
        here().join("include").display(),
        built()?.display()
    );
    for (name, text) in [
        ("controller.c", &in_c[0]),
        ("drive.c", &in_c[1]),
        ("drive.cpp", &in_cpp[0]),
        ("readme.c", &in_readme[0]),
    ] {
        std::fs::write(scratch.0.join(name), text)?;
        let compiler = if name.ends_with("pp") {
            "c++ -std=c++17"
        } else {
            "cc -std=c11"
        };
        scratch.sh(&format!(
            "{compiler} {options} -o {name}.run {name} -lrtcore"
        ))?;
    }
    let start = |name: &str| {
        // Its standard output is no terminal here.
        let mut command = Command::new("stdbuf");
        command.arg("-oL").arg(scratch.0.join(name));
        command.env("RTD_INSTANCE", &i.name);
        rtcore::sys::process::die_with_parent_at_exec(&mut command);
        Tool::start(command)
    };
    for drive in ["drive.c.run", "drive.cpp.run"] {
        let drive = start(drive)?;
        start("controller.c.run")?.end()?.well()?;
        // The end of the controller is an event, which may overtake its message.
        let lines = [drive.line()?, drive.line()?];
        ensure!(
            lines.iter().any(|line| line.starts_with("0.5 from pid "))
                && lines.contains(&"controller is gone\n".to_owned()),
            "{lines:?}"
        );
    }
    let drive = start("readme.c.run")?;
    start("controller.c.run")?.end()?.well()?;
    let line = drive.line()?;
    ensure!(line.starts_with("16 bytes from pid "), "{line}");
    Ok(())
}
