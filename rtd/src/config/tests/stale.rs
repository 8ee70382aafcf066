//! What a receiver can read that is older than the file promises, and the size of a queue that
//! conflates.

use super::util::{
    LANE, LANES, PROCESS, ROUTE, lanes, line_of, queues, run, shown, warning, whole, with,
};
use crate::endpoint::EndpointKind;

fn maxmsg(text: &str, endpoint: usize) -> usize {
    let checked = run(text);
    match &checked
        .plan
        .unwrap_or_else(|| panic!("{}", shown(&checked.diagnostics)))
        .endpoints[endpoint]
        .kind
    {
        EndpointKind::Mqueue(queue) => queue.maxmsg,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queue_into_which_every_route_conflates_holds_one_message_unless_the_file_says_more() {
    let conflating = format!("{}overflow = \"conflate\"\n", queues());
    assert_eq!((maxmsg(&conflating, 0), maxmsg(&conflating, 1)), (10, 1));
    let clean = run(&conflating);
    assert!(
        clean.diagnostics.is_empty(),
        "{}",
        shown(&clean.diagnostics)
    );

    let lanes_own = with(&queues(), LANE, &format!("{LANE}overflow = \"conflate\"\n"));
    assert_eq!(maxmsg(&lanes_own, 1), 1);

    let out = "name = \"out\"\nkind = \"mqueue\"\n";
    let written = with(&conflating, out, &format!("{out}maxmsg = 4\n"));
    assert_eq!(maxmsg(&written, 1), 4);
    let line = line_of(&written, "overflow", 0);
    warning(
        &written,
        line,
        "route[0].overflow",
        "up to 4 older messages",
        "maxmsg = 1 (endpoint `out`)",
    );

    let mixed = format!("{conflating}{ROUTE}");
    assert_eq!(
        maxmsg(&mixed, 1),
        10,
        "the other route loses messages with less"
    );
    let line = line_of(&mixed, "overflow", 0);
    warning(
        &mixed,
        line,
        "route[0].overflow",
        "up to 10 older messages",
        "maxmsg = 1 (endpoint `out`)",
    );
}

#[test]
fn a_queue_that_keeps_older_messages_than_its_route_is_a_warning() {
    let displacing = format!("{}overflow = \"displace-oldest\"\ncapacity = 5\n", queues());
    let line = line_of(&displacing, "overflow", 0);
    warning(
        &displacing,
        line,
        "route[0].overflow",
        "keeps the newest 5 messages",
        "maxmsg = 1",
    );
    warning(
        &displacing,
        line,
        "route[0].overflow",
        "itself keeps the oldest 10",
        "maxmsg = 1",
    );

    let lanes_own = with(
        &queues(),
        LANE,
        &format!("{LANE}overflow = \"displace-oldest\"\n"),
    );
    warning(
        &lanes_own,
        line_of(&lanes_own, "overflow", 0),
        "lane[0].overflow",
        "oldest 10",
        "maxmsg = 1",
    );

    for keeps_the_oldest in ["reject", "displace-newest", "block:500"] {
        let checked = run(&format!("{}overflow = \"{keeps_the_oldest}\"\n", queues()));
        assert!(
            checked.diagnostics.is_empty(),
            "{keeps_the_oldest}: {}",
            shown(&checked.diagnostics)
        );
    }
}

#[test]
fn a_ttl_that_ends_at_a_kernel_queue_is_a_warning() {
    let text = format!("{}ttl = \"5ms\"\n", queues());
    let line = line_of(&text, "ttl", 0);
    warning(
        &text,
        line,
        "route[0].ttl",
        "applies the ttl of 5ms only until",
        "kind = \"lane\" (endpoint `out`)",
    );
    warning(
        &text,
        line,
        "route[0].ttl",
        "up to 10 messages",
        "compare ages",
    );

    let signal = format!("{}ttl = \"5ms\"\n", whole());
    let line = line_of(&signal, "ttl", 0);
    warning(
        &signal,
        line,
        "route[1].ttl",
        "pending signals (SIGRTMIN+2)",
        "msgsize = 8 (endpoint `stop`)",
    );
}

#[test]
fn a_ring_whose_receivers_library_discards_is_no_warning() {
    for honoured in [
        "ttl = \"5ms\"",
        "overflow = \"conflate\"",
        "overflow = \"displace-oldest\"",
    ] {
        let checked = run(&format!("{}{honoured}\n", lanes()));
        assert!(
            checked.diagnostics.is_empty(),
            "{honoured}: {}",
            shown(&checked.diagnostics)
        );
    }
    let group = "[[group]]\nname = \"one\"\nmembers = [\"axis\"]\nmode = \"any\"\n";
    let route =
        "[[route]]\nfrom = \"plan\"\nto = [\"one\"]\nlane = \"control\"\noverflow = \"conflate\"\n";
    let text = [LANE, PROCESS, LANES, group, route].concat();
    let line = line_of(&text, "overflow", 0);
    warning(
        &text,
        line,
        "route[0].overflow",
        "the ring of `axis` keeps the oldest 64",
        "maxmsg = 1",
    );
}
