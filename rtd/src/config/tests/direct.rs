//! Direct routes: what two processes can do alone, and what needs a thread of rtd.

use super::util::{LANE, LANE_ROUTE, LANES, PROCESS, QUEUES, ROUTE, machine};
use super::util::{error, lanes, line_of, run, shown, warning, with};
use crate::config::summary;
use crate::endpoint::ring::RingPlan;
use crate::plan::{Path, Plan};
use rtcore::lane::policy::Overflow;

fn direct(more: &str) -> String {
    format!("{}path = \"direct\"\n{more}", lanes())
}

#[track_caller]
fn planned(text: &str) -> Plan {
    let checked = run(text);
    assert!(
        checked.diagnostics.is_empty(),
        "{}",
        shown(&checked.diagnostics)
    );
    let plan = checked.plan.unwrap();
    assert_eq!(plan.broken_invariant(), None);
    plan
}

fn last(text: &str) -> usize {
    text.lines().count()
}

#[test]
fn a_direct_route_has_no_thread() {
    let plan = planned(&direct(""));
    assert_eq!(
        (plan.routes[0].path, plan.routes[0].capacity),
        (Path::Direct, 0)
    );
    assert_eq!(
        (plan.sources.len(), plan.threads(), plan.backlog_bytes()),
        (0, 0, 0)
    );
    let shown = summary(&plan, &machine());
    assert!(
        shown.contains("plan -> axis  direct  <=64B  reject\n"),
        "{shown}"
    );
    assert_eq!(
        planned(&format!("{}path = \"routed\"\n", lanes())).threads(),
        1
    );
    let same = planned(
        &with(&direct(""), "owner = \"planner\"", "owner = \"drive\"")
            .replace("[[process]]\nname = \"planner\"\n", ""),
    );
    assert_eq!(
        same.endpoints[0].owner, same.endpoints[1].owner,
        "within one process"
    );
    let text = with(&direct(""), "\"direct\"", "\"drect\"");
    error(
        &text,
        last(&text),
        "route[0].path",
        "not one of `routed`, `direct`",
        "path = \"direct\"",
    );
}

#[test]
fn its_ring_has_the_receivers_slots_and_the_senders_payload() {
    let text = with(
        &direct(""),
        "owner = \"planner\"\nmsgsize = 64",
        "owner = \"planner\"\nmaxmsg = 4",
    );
    let text = with(
        &text,
        "owner = \"drive\"\nmsgsize = 64",
        "owner = \"drive\"\nmaxmsg = 16\nmsgsize = 512",
    );
    let plan = planned(&text);
    assert_eq!(
        plan.direct_ring(&plan.routes[0]),
        Some(RingPlan {
            slots: 16,
            payload_bytes: 256
        })
    );
    assert_eq!(plan.ring_bytes(), 16 * (64 + 256) + 3 * 4096 + 32 * 1024);
    assert_eq!(plan.descriptors(), 5 + 2 * 7);
    let text = with(&text, "msgsize = 512", "msgsize = 255");
    let message = "messages of up to 256 bytes go to `axis`, which takes 255";
    let fix = "msgsize = 255 (endpoint `plan`)\nmsgsize = 256 (endpoint `axis`)";
    error(
        &text,
        line_of(&text, "to =", 0),
        "route[0].to[0]",
        message,
        fix,
    );
}

#[test]
fn it_joins_two_lane_endpoints() {
    let queue = "kind = \"mqueue\"\nmode = \"0600\"\nowner = ";
    let text = with(
        &direct(""),
        "kind = \"lane\"\nowner = \"drive\"",
        &format!("{queue}\"drive\""),
    );
    let message =
        "`axis` is of kind \"mqueue\": a direct route goes from a lane endpoint to a lane endpoint";
    error(
        &text,
        line_of(&text, "to =", 0),
        "route[0].to[0]",
        message,
        "path = \"routed\"\nkind = \"lane\"",
    );
    let text = with(
        &direct(""),
        "kind = \"lane\"\nowner = \"planner\"",
        &format!("{queue}\"planner\""),
    );
    error(
        &text,
        line_of(&text, "from", 0),
        "route[0].from",
        "`plan` is of kind",
        "kind = \"lane\"",
    );
    let signal = "kind = \"signal\"\nsignal = \"SIGRTMIN+2\"\nowner = \"drive\"";
    let text = with(&direct(""), "kind = \"lane\"\nowner = \"drive\"", signal);
    error(
        &text,
        line_of(&text, "to =", 0),
        "route[0].to[0]",
        "is of kind \"signal\"",
        "routed",
    );
}

#[test]
fn it_has_one_target() {
    let third = "[[endpoint]]\nname = \"third\"\nkind = \"lane\"\nowner = \"drive\"\n";
    let text = with(
        &format!("{}{third}", direct("")),
        "[\"axis\"]",
        "[\"axis\", \"third\"]",
    );
    let fix = "to = [\"axis\"]\npath = \"routed\"";
    error(
        &text,
        line_of(&text, "to =", 0),
        "route[0].to[1]",
        "rtd does not copy",
        fix,
    );
    let group = "[[group]]\nname = \"g\"\nmembers = [\"axis\"]\n";
    let text = with(&format!("{}{group}", direct("")), "[\"axis\"]", "[\"g\"]");
    error(
        &text,
        line_of(&text, "to =", 0),
        "route[0].to[0]",
        "`g` is a group",
        "path = \"routed\"",
    );
}

#[test]
fn no_other_route_reads_its_source() {
    let text = with(
        &format!("{}{QUEUES}{ROUTE}", direct("")),
        "from = \"in\"",
        "from = \"plan\"",
    );
    let text = with(
        &text,
        "[[endpoint]]\nname = \"in\"\nkind = \"mqueue\"\nmsgsize = 64\n",
        "",
    );
    let line = line_of(&text, "path", 0);
    error(
        &text,
        line,
        "route[0].path",
        "route `plan->out` reads `plan` too",
        "path = \"routed\"",
    );
    let third =
        "[[endpoint]]\nname = \"third\"\nkind = \"lane\"\nowner = \"drive\"\nmsgsize = 64\n";
    let second = LANE_ROUTE.replace("axis", "third");
    let text = format!("{}{third}{second}path = \"direct\"\n", direct(""));
    error(
        &text,
        last(&text),
        "route[1].path",
        "route `plan->axis` reads `plan` too",
        "in both",
    );
    let into = "[[endpoint]]\nname = \"other\"\nkind = \"lane\"\nowner = \"drive\"\nmsgsize = 64\n";
    let second = LANE_ROUTE.replace("plan", "other");
    planned(&format!("{}{into}{second}path = \"direct\"\n", direct("")));
    planned(&format!("{}{into}{second}", direct("")));
}

#[test]
fn what_a_thread_would_do_is_refused() {
    for (key, value) in [
        ("rate_hz", "5"),
        ("burst", "5"),
        ("payload", "99"),
        ("truncate", "true"),
        ("capacity", "8"),
        ("rejoin", "\"1s\""),
        ("mq_priority", "3"),
    ] {
        let text = direct(&format!("{key} = {value}\n"));
        let message = format!("`{key}` has no effect on a direct route");
        let fix = format!("remove `{key}`\npath = \"routed\"");
        error(
            &text,
            last(&text),
            &format!("route[0].{key}"),
            &message,
            &fix,
        );
    }
    let text = direct("accept_claimed = true\n");
    warning(
        &text,
        last(&text),
        "route[0].accept_claimed",
        "only on routes from a signal",
        "remove `accept_claimed`",
    );
}

#[test]
fn a_full_ring_refuses_or_holds_the_sender() {
    let overflow = |text: &str| planned(text).routes[0].overflow;
    let block = Overflow::Block { limit_ns: 500_000 };
    assert_eq!(overflow(&direct("")), Overflow::Reject);
    assert_eq!(
        overflow(&direct("overflow = \"reject\"\n")),
        Overflow::Reject
    );
    assert_eq!(overflow(&direct("overflow = \"block:500\"\n")), block);
    for bad in ["displace-oldest", "displace-newest", "conflate"] {
        let text = direct(&format!("overflow = \"{bad}\"\n"));
        error(
            &text,
            last(&text),
            "route[0].overflow",
            "cannot displace",
            "overflow = \"reject\"",
        );
        let lane = with(&direct(""), LANE, &format!("{LANE}overflow = \"{bad}\"\n"));
        assert_eq!(overflow(&lane), Overflow::Reject, "the lane's {bad}");
    }
    assert_eq!(
        overflow(&with(
            &direct(""),
            LANE,
            &format!("{LANE}overflow = \"block:500\"\n")
        )),
        block
    );
}

#[test]
fn a_ttl_and_a_deadline_are_for_the_receivers_library() {
    let route = planned(&direct("ttl = \"1ms\"\ndeadline = \"2ms\"\n"))
        .routes
        .remove(0);
    assert_eq!(
        (route.ttl_ns, route.deadline_ns),
        (Some(1_000_000), Some(2_000_000))
    );
}

#[test]
fn a_lanes_defaults_do_not_apply() {
    let lane = format!("{LANE}deadline = \"1ms\"\ncapacity = 9\n");
    let route = planned(&with(&direct(""), LANE, &lane)).routes.remove(0);
    assert_eq!(
        (route.deadline_ns, route.capacity, route.ttl_ns),
        (None, 0, None)
    );
}

#[test]
fn it_does_not_count_where_a_lane_scans() {
    let wait = |wait: &str| {
        format!("{LANE}wait = \"{wait}\"\noverflow = \"block:500\"\n").replace("cpu = 0", "cpu = 3")
    };
    for scan in ["spin:50", "poll"] {
        let text = with(&format!("{}{QUEUES}{ROUTE}", direct("")), LANE, &wait(scan));
        assert_eq!(
            planned(&text).threads(),
            1,
            "{scan}: a direct route holds up its sender only"
        );
    }
}

#[test]
fn its_way_is_a_way_back_too() {
    let text = [LANE, PROCESS, LANES, LANE_ROUTE, "path = \"direct\"\n"].concat();
    let text = with(&text, "to = [\"axis\"]", "to = [\"plan\"]");
    let found = run(&text).diagnostics;
    assert!(
        found.iter().any(|d| d.message.contains("plan -> plan")),
        "{}",
        shown(&found)
    );
}

/// The oracle of the generated tests sees what it is there for.
#[test]
fn a_broken_plan_is_reported() {
    use crate::endpoint::EndpointKind;
    use crate::plan::{Filter, TargetPlan};
    use rtcore::lane::policy::GroupMode;
    let whole = planned(&direct(""));
    let broken = |spoil: &dyn Fn(&mut Plan)| {
        let mut plan = whole.clone();
        spoil(&mut plan);
        plan.broken_invariant().unwrap_or_default()
    };
    let group = |filter| TargetPlan::Group {
        name: "g".into(),
        mode: GroupMode::All,
        members: vec![1],
        filter,
    };
    let ring = |slots, payload_bytes| {
        EndpointKind::Ring(RingPlan {
            slots,
            payload_bytes,
        })
    };
    let listed = |plan: &mut Plan| {
        plan.sources = vec![crate::plan::SourcePlan {
            endpoint: 0,
            lane: 0,
            routes: vec![0],
        }];
    };
    let needs = "direct route `plan->axis` needs a thread";
    assert_eq!(broken(&|plan| plan.routes[0].truncate = true), needs);
    assert_eq!(
        broken(&|plan| plan.routes[0].overflow = Overflow::DisplaceOldest),
        needs
    );
    assert_eq!(broken(&|plan| plan.routes[0].to = vec![group(None)]), needs);
    assert_eq!(
        broken(&|plan| plan.routes.push(plan.routes[0].clone())),
        needs
    );
    assert!(broken(&listed).contains("sources list"));
    assert!(broken(&|plan| plan.routes[0].path = Path::Routed).contains("sources list"));
    assert!(broken(&|plan| plan.routes[0].capacity = 1).contains("capacity 1"));
    assert!(broken(&|plan| plan.endpoints[1].owner = None).contains("no owner"));
    assert!(broken(&|plan| plan.endpoints[1].kind = ring(3, 64)).contains("a ring of 3 x 64"));
    assert!(broken(&|plan| plan.endpoints[1].kind = ring(65_536, 1 << 20)).contains("a ring of"));
    assert!(broken(&|plan| plan.endpoints[1].kind = ring(64, 32)).contains("`axis` cannot take"));
    let stranger = || vec![group(Some(Filter::SessionOf(9)))];
    assert!(broken(&|plan| plan.routes[0].to = stranger()).contains("out of range"));
    assert!(
        broken(&|plan| plan.routes[0].to = vec![TargetPlan::Endpoint(0)]).contains("both ways")
    );
}
