//! Rules about signals, and about what passes between them and queues.

use super::util::*;

#[test]
fn signals_have_a_direction() {
    let text = with(&whole(), "to = [\"out\"]", "to = [\"out\", \"press\"]");
    let checked = run(&text);
    let found = checked
        .diagnostics
        .iter()
        .find(|d| d.key == "endpoint[2].signal")
        .unwrap();
    expect(
        found,
        line_of(&text, "signal =", 0),
        "endpoint[2].signal",
        "is sent to rtd",
        "declare two endpoints",
    );
    for bad in [
        "SIGTERM", "SIGINT", "SIGHUP", "SIGURG", "SIGCHLD", "SIGPIPE", "SIGKILL", "SIGSTOP",
        "SIGSEGV",
    ] {
        let text = with(&whole(), "SIGRTMIN+1", bad);
        let line = line_of(&text, "signal", 0);
        error(
            &text,
            line,
            "endpoint[2].signal",
            "cannot be a source",
            "signal = \"SIGRTMIN+3\"",
        );
    }
    for bad in ["SIGKILL", "SIGSTOP", "SIGSEGV", "SIGPIPE", "SIGCHLD"] {
        let text = format!("{}truncate = true\n", with(&whole(), "SIGRTMIN+2", bad));
        let line = line_of(&text, "signal", 1);
        error(
            &text,
            line,
            "endpoint[3].signal",
            "cannot be sent as a message",
            "SIGTERM",
        );
    }
    for good in [
        "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGIO", "SIGWINCH", "SIGRTMAX",
    ] {
        assert!(
            run(&with(&whole(), "SIGRTMIN+1", good)).plan.is_some(),
            "{good}"
        );
    }
    for good in [
        "SIGUSR1", "SIGTERM", "SIGHUP", "SIGINT", "SIGCONT", "SIGRTMAX",
    ] {
        assert!(
            run(&with(&whole(), "SIGRTMIN+2", good)).plan.is_some(),
            "{good}"
        );
    }
    let text = with(&whole(), "owner = \"drive\"\n", "");
    let checked = run(&text);
    let found = checked.diagnostics.iter().find(|d| d.is_error()).unwrap();
    let line = line_of(&text, "[[endpoint]]", 3);
    expect(
        found,
        line,
        "endpoint[3].owner",
        "no process owns it",
        "owner = \"drive\"",
    );
    let text = with(
        &whole(),
        "SIGRTMIN+1\"\n",
        "SIGRTMIN+1\"\ntarget = \"thread\"\n",
    );
    warning(
        &text,
        line_of(&text, "target", 0),
        "endpoint[2].target",
        "only if a route sends",
        "remove `target`",
    );
}

#[test]
fn a_queued_signals_sender_is_a_claim_that_must_be_accepted() {
    let text = with(&whole(), "accept_claimed = true\n", "");
    let line = line_of(&text, "[[route]]", 1);
    error(
        &text,
        line,
        "route[1].accept_claimed",
        "any sender may write any pid",
        "accept_claimed = true",
    );
    let text = with(&text, "SIGRTMIN+1", "SIGUSR1");
    assert!(
        run(&text).plan.is_some(),
        "the kernel writes the pid of kill(2)"
    );
    let text = format!("{}accept_claimed = true\n", queues());
    warning(
        &text,
        text.lines().count(),
        "route[0].accept_claimed",
        "only on routes from a signal",
        "remove `accept_claimed`",
    );
}

const TO_SIGNAL: &str = "[[route]]\nfrom = \"in\"\nto = [\"stop\"]\nlane = \"control\"\n";

fn queue_to_signal(more: &str) -> String {
    let queue = QUEUES.split_inclusive("msgsize = 64\n").next().unwrap();
    let sink = SIGNALS.split_inclusive("SIGRTMIN+1\"\n").nth(1).unwrap();
    [LANE, PROCESS, queue, sink, TO_SIGNAL, more].concat()
}

#[test]
fn what_a_signal_cannot_carry_must_be_asked_for() {
    let plan = run(&queue_to_signal("")).plan.unwrap();
    assert_eq!(plan.routes[0].payload_bytes_max, 8);
    let plan = run(&queue_to_signal("truncate = true\n")).plan.unwrap();
    assert_eq!(plan.routes[0].payload_bytes_max, 64);
    let text = queue_to_signal("payload = 9\n");
    let last = text.lines().count();
    error(
        &text,
        last,
        "route[0].payload",
        "carries 8 bytes",
        "truncate = true\npayload = 8",
    );
    let bell = with(&queue_to_signal(""), "SIGRTMIN+2", "SIGUSR1");
    error(
        &bell,
        line_of(&bell, "to =", 0),
        "route[0].to[0]",
        "carries nothing",
        "truncate = true\npayload = 0",
    );
    for fine in ["truncate = true\n", "payload = 0\n"] {
        assert!(run(&format!("{bell}{fine}")).diagnostics.is_empty());
    }
    let mixed = with(&whole(), "to = [\"out\"]", "to = [\"out\", \"stop\"]");
    let line = line_of(&mixed, "to =", 0);
    error(
        &mixed,
        line,
        "route[0].to[1]",
        "up to 64 bytes",
        "truncate = true",
    );
    let text = with(&whole(), "SIGRTMIN+2", "SIGUSR1");
    warning(
        &text,
        line_of(&text, "to =", 1),
        "route[1].to[0]",
        "carries no value",
        "truncate = true",
    );
}

#[test]
fn queues_take_what_is_sent_to_them() {
    let text = with(
        &queues(),
        "name = \"out\"\nkind = \"mqueue\"\nmsgsize = 64",
        "name = \"out\"\nkind = \"mqueue\"\nmsgsize = 32",
    );
    error(
        &text,
        line_of(&text, "to =", 0),
        "route[0].to[0]",
        "which takes 32",
        "payload = 32\nmsgsize = 64",
    );
    let text = format!("{text}payload = 32\n");
    assert!(run(&text).diagnostics.is_empty());
    let text = format!("{}payload = 65\n", queues());
    warning(
        &text,
        text.lines().count(),
        "route[0].payload",
        "longer than its msgsize of 64",
        "payload = 64",
    );
    let log = "[[endpoint]]\nname = \"log\"\nkind = \"mqueue\"\nmsgsize = 31\n";
    let text = format!(
        "{log}{}",
        with(&whole(), "to = [\"stop\"]", "to = [\"stop\", \"log\"]")
    );
    let line = line_of(&text, "to =", 1);
    error(
        &text,
        line,
        "route[1].to[1]",
        "a signal's record has 32",
        "msgsize = 32",
    );
    let text = format!("{}payload = 8\n", whole());
    error(
        &text,
        text.lines().count(),
        "route[1].payload",
        "always a record of 32 bytes",
        "remove `payload`",
    );
}
