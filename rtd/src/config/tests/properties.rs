//! Whatever the text: no panic, and a plan that comes out keeps its promises.

use super::util::machine;
use crate::config::{CheckOptions, Machine, check_with, summary};
use proptest::prelude::*;

fn holds(text: &str) -> Result<(), TestCaseError> {
    for machine in [
        machine(),
        Machine {
            known: machine().known,
            ..Machine::unknown()
        },
    ] {
        let checked = check_with(
            "p.toml",
            text,
            &machine,
            CheckOptions {
                allow_degraded: true,
                ..CheckOptions::default()
            },
        );
        for diagnostic in &checked.diagnostics {
            let shown = diagnostic.to_string();
            prop_assert!(!shown.contains('\x1b'));
            prop_assert!(diagnostic.line >= 1 && diagnostic.column >= 1 && diagnostic.length >= 1);
            prop_assert!(
                !diagnostic.message.is_empty() && !diagnostic.fix.is_empty(),
                "{}",
                shown
            );
        }
        let refused = checked
            .diagnostics
            .iter()
            .any(|diagnostic| diagnostic.is_error());
        prop_assert_eq!(checked.plan.is_none(), refused);
        if let Some(plan) = checked.plan {
            prop_assert_eq!(plan.broken_invariant(), None, "{}", text);
            prop_assert!(!summary(&plan, &machine).is_empty());
        }
    }
    Ok(())
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "\"a\"", "\"b\"", "\"c\"", "[\"a\"]", "[\"b\", \"c\"]", "0", "1", "8", "64", "true", "\"mqueue\"", "\"signal\"",
            "\"lane\"", "\"direct\"", "\"warn\"", "2097152",
            "\"block\"", "\"poll\"", "\"spin:5\"", "\"conflate\"", "\"SIGRTMIN+1\"", "\"SIGTERM\"", "\"all\"", "\"1ms\"",
        ]).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|n| n.to_string()),
        1 => any::<f64>().prop_map(|n| format!("{n:?}")),
        1 => "[ -~é\u{7f}\t]{0,40}".prop_map(|s| format!("{s:?}")),
        1 => Just("{ x = [1, {}] }".to_owned()),
        1 => Just("1979-05-27".to_owned()),
    ]
}

/// Tables with keys that exist and values that may or may not belong to them.
fn structured() -> impl Strategy<Value = String> {
    let section = prop::sample::select(vec![
        "[daemon]",
        "[[lane]]",
        "[[process]]",
        "[[endpoint]]",
        "[[group]]",
        "[[route]]",
        "[lane]",
        "[[x]]",
    ]);
    let key = prop::sample::select(vec![
        "name",
        "socket",
        "drain",
        "priority",
        "cpu",
        "wait",
        "unisolated",
        "capacity",
        "overflow",
        "deadline",
        "user",
        "exe",
        "above_ceiling",
        "kind",
        "owner",
        "queue",
        "maxmsg",
        "msgsize",
        "mode",
        "signal",
        "target",
        "members",
        "process_group_of",
        "session_of",
        "from",
        "to",
        "lane",
        "path",
        "ttl",
        "rejoin",
        "rate_hz",
        "burst",
        "payload",
        "truncate",
        "mq_priority",
        "accept_claimed",
        "nmae",
    ]);
    let table = (section, prop::collection::vec((key, value()), 0..8));
    prop::collection::vec(table, 0..12).prop_map(|tables| {
        let lines = |(section, keys): (&str, Vec<(&str, String)>)| {
            let keys: String = keys
                .into_iter()
                .map(|(key, value)| format!("{key} = {value}\n"))
                .collect();
            format!("{section}\n{keys}")
        };
        tables.into_iter().map(lines).collect()
    })
}

prop_compose! {
    /// An endpoint of one of the sorts, owned or not, a signal with payloads beside it or without.
    fn endpoint(count: usize)
        (kind in 0..6_u8, owner in 0..4_u8, size in 1..80_u16, slots in 1..70_u16, sig in 0..12_u8) -> String {
        let name = format!("name = \"e{count}\"\n");
        // Without an owner a lane endpoint is an error: few of them.
        let lane_owner = ["owner = \"p\"\n", "owner = \"q\"\n"][usize::from(owner / 2)];
        let owner = ["", "owner = \"p\"\n", "owner = \"p\"\n", "owner = \"q\"\n"][usize::from(owner)];
        let ring = format!("msgsize = {size}\nmaxmsg = {slots}\n");
        let beside = if slots % 3 == 0 { ring.as_str() } else { "" };
        match kind {
            0 => format!("[[endpoint]]\n{name}kind = \"signal\"\nsignal = \"SIGRTMIN+{sig}\"\n{owner}{beside}"),
            1 => format!("[[endpoint]]\n{name}kind = \"signal\"\nsignal = \"SIGUSR{}\"\n{owner}", sig % 2 + 1),
            2 | 3 => format!("[[endpoint]]\n{name}kind = \"mqueue\"\nmsgsize = {size}\n{owner}"),
            _ => format!("[[endpoint]]\n{name}kind = \"lane\"\n{ring}{}", if slots > 66 { "" } else { lane_owner }),
        }
    }
}

prop_compose! {
    fn route()(
        from in 0..8_u8,
        to in prop::collection::btree_set(0..9_u8, 1..3),
        lane in 0..2_u8,
        path in 0..8_u8,
        more in 0..32_u8,
    ) -> String {
        // The ninth is the group.
        let to: Vec<String> = to.iter().map(|n| if *n == 8 { "\"g\"".into() } else { format!("\"e{n}\"") }).collect();
        let flag = |bit: u8, line: &'static str| if more & bit != 0 { line } else { "" };
        // On a direct route these are errors, one by one: few of them.
        let policy = [
            flag(1, "truncate = true\n"),
            flag(4, "payload = 8\n"),
            flag(8, "overflow = \"conflate\"\n"),
        ];
        let path = if path == 0 { "path = \"direct\"\n" } else { "" };
        let policy = if path.is_empty() || more & 6 == 6 { policy.concat() } else { String::new() };
        format!(
            "[[route]]\nfrom = \"e{from}\"\nto = [{}]\nlane = \"l{lane}\"\n{}{}{path}{policy}",
            to.join(", "),
            flag(2, "accept_claimed = true\n"),
            if policy.contains("overflow") { "" } else { flag(16, "overflow = \"block:50\"\n") },
        )
    }
}

/// Nearly valid: these often make a plan, so the invariants are really asked for.
fn nearly_valid() -> impl Strategy<Value = String> {
    let endpoints: Vec<_> = (0..8).map(endpoint).collect();
    let wait = prop::sample::select(vec!["block", "spin:5", "poll"]);
    let filter = prop::sample::select(vec![
        "",
        "",
        "",
        "process_group_of = \"p\"\n",
        "session_of = \"q\"\n",
    ]);
    let members = prop::sample::subsequence(vec!["\"e5\"", "\"e6\"", "\"e7\""], 1..3);
    let routes = prop::collection::vec(route(), 0..4);
    (wait, endpoints, members, filter, routes).prop_map(
        |(wait, endpoints, members, filter, routes)| {
            format!(
                "[[process]]\nname = \"p\"\n[[process]]\nname = \"q\"\nabove_ceiling = \"warn\"\n\
             [[lane]]\nname = \"l0\"\npriority = 9\ncpu = 3\nwait = \"{wait}\"\n\
             [[lane]]\nname = \"l1\"\npriority = 10\ncpu = 0\n\
             [[group]]\nname = \"g\"\nmembers = [{}]\n{filter}{}{}",
                members.join(", "),
                endpoints.concat(),
                routes.concat()
            )
        },
    )
}

/// Lane endpoints that are owned, and each route from one half of them to the other: most of these
/// make a plan.
fn lanes_and_ways() -> impl Strategy<Value = String> {
    let way = (0..4_u8, 0..4_u8, any::<bool>(), any::<bool>(), 0..2_u8);
    let sizes = prop::collection::vec((1..80_u16, 1..300_u16), 8);
    let wait = prop::sample::select(vec!["block", "spin:5", "poll"]);
    (wait, sizes, prop::collection::vec(way, 1..5)).prop_map(|(wait, sizes, ways)| {
        let mut text = format!(
            "[[process]]\nname = \"p\"\n[[lane]]\nname = \"l0\"\npriority = 9\ncpu = 3\nwait = \"{wait}\"\n\
             [[group]]\nname = \"g\"\nmembers = [\"e4\", \"e7\"]\nsession_of = \"p\"\n"
        );
        for (n, (size, slots)) in sizes.iter().enumerate() {
            // A sink takes what the smallest of bounds lets through.
            let size = if n < 4 { *size } else { size + 60 };
            text += &format!(
                "[[endpoint]]\nname = \"e{n}\"\nkind = \"lane\"\nowner = \"p\"\nmsgsize = {size}\nmaxmsg = {slots}\n"
            );
        }
        for (from, to, direct, group, overflow) in ways {
            let to = if group && !direct { "g".to_owned() } else { format!("e{}", to + 4) };
            text += &format!("[[route]]\nfrom = \"e{from}\"\nto = [\"{to}\"]\nlane = \"l0\"\n");
            text += if direct { "path = \"direct\"\n" } else { "" };
            text += ["", "overflow = \"block:9\"\n"][usize::from(overflow)];
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        holds(&text)?;
    }

    #[test]
    fn any_bytes_that_are_text_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        holds(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn any_tables_are_survived(text in structured()) {
        holds(&text)?;
    }

    #[test]
    fn a_spoilt_configuration_is_survived(at in 0..400_usize, with in "[\\[\\]\"'={}\n#.,x0]{1,3}") {
        let mut text = super::util::whole();
        let at = at.min(text.len());
        text.insert_str(at, &with);
        holds(&text)?;
    }

    #[test]
    fn a_plan_that_comes_out_keeps_its_promises(text in nearly_valid()) {
        holds(&text)?;
    }

    #[test]
    fn a_plan_of_lanes_keeps_its_promises(text in lanes_and_ways()) {
        holds(&text)?;
    }
}

/// The strategies above are of use only when enough of what they make is a plan.
#[test]
fn nearly_valid_texts_do_make_plans() {
    fn plans(strategy: impl Strategy<Value = String>) -> Vec<crate::plan::Plan> {
        use proptest::strategy::ValueTree;
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let texts = (0..200).map(|_| strategy.new_tree(&mut runner).unwrap().current());
        let checked = texts.map(|text| check_with("p", &text, &machine(), CheckOptions::default()));
        checked
            .filter_map(|c| c.plan)
            .filter(|plan| !plan.routes.is_empty())
            .collect()
    }
    let mixed = plans(nearly_valid());
    assert!(mixed.len() >= 10, "only {} of 200", mixed.len());
    let lanes = plans(lanes_and_ways());
    let direct = |plan: &&crate::plan::Plan| {
        plan.routes
            .iter()
            .any(|r| r.path == crate::plan::Path::Direct)
    };
    let count = lanes.iter().filter(direct).count();
    assert!(
        count >= 10 && lanes.len() >= count + 10,
        "{count} with direct of {}",
        lanes.len()
    );
}
