//! Whatever the text: no panic, and a plan that comes out keeps its promises.

use super::util::machine;
use crate::config::{CheckOptions, Machine, check_with, summary};
use proptest::prelude::*;

fn holds(text: &str) -> Result<(), TestCaseError> {
    for machine in [machine(), Machine { known: machine().known, ..Machine::unknown() }] {
        let checked = check_with("p.toml", text, &machine, CheckOptions { allow_degraded: true });
        for diagnostic in &checked.diagnostics {
            let shown = diagnostic.to_string();
            prop_assert!(!shown.contains('\x1b'));
            prop_assert!(diagnostic.line >= 1 && diagnostic.column >= 1 && diagnostic.length >= 1);
            prop_assert!(!diagnostic.message.is_empty() && !diagnostic.mend.is_empty(), "{}", shown);
        }
        let refused = checked.diagnostics.iter().any(|diagnostic| diagnostic.is_error());
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
        "kind",
        "owner",
        "queue",
        "maxmsg",
        "msgsize",
        "mode",
        "signal",
        "target",
        "members",
        "from",
        "to",
        "lane",
        "ttl",
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
            let keys: String = keys.into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
            format!("{section}\n{keys}")
        };
        tables.into_iter().map(lines).collect()
    })
}

prop_compose! {
    /// An endpoint of one of the sorts, owned or not.
    fn endpoint(count: usize)(kind in 0..4_u8, owned in any::<bool>(), size in 1..80_u16, sig in 0..12_u8) -> String {
        let name = format!("name = \"e{count}\"\n");
        let owner = if owned { "owner = \"p\"\n" } else { "" };
        match kind {
            0 => format!("[[endpoint]]\n{name}kind = \"signal\"\nsignal = \"SIGRTMIN+{sig}\"\n{owner}"),
            1 => format!("[[endpoint]]\n{name}kind = \"signal\"\nsignal = \"SIGUSR{}\"\n{owner}", sig % 2 + 1),
            _ => format!("[[endpoint]]\n{name}kind = \"mqueue\"\nmsgsize = {}\n{owner}", size.max(1)),
        }
    }
}

prop_compose! {
    fn route()(from in 0..8_u8, to in prop::collection::btree_set(0..8_u8, 1..3), lane in 0..2_u8, more in 0..16_u8)
        -> String {
        let to: Vec<String> = to.iter().map(|n| format!("\"e{n}\"")).collect();
        let flag = |bit: u8, line: &'static str| if more & bit != 0 { line } else { "" };
        format!(
            "[[route]]\nfrom = \"e{from}\"\nto = [{}]\nlane = \"l{lane}\"\n{}{}{}{}",
            to.join(", "),
            flag(1, "truncate = true\n"),
            flag(2, "accept_claimed = true\n"),
            flag(4, "payload = 8\n"),
            flag(8, "overflow = \"conflate\"\n"),
        )
    }
}

/// Nearly valid: these often make a plan, so the invariants are really asked for.
fn nearly_valid() -> impl Strategy<Value = String> {
    let endpoints: Vec<_> = (0..8).map(endpoint).collect();
    let wait = prop::sample::select(vec!["block", "spin:5", "poll"]);
    (wait, endpoints, prop::collection::vec(route(), 0..4)).prop_map(|(wait, endpoints, routes)| {
        format!(
            "[[process]]\nname = \"p\"\n[[lane]]\nname = \"l0\"\npriority = 9\ncpu = 3\nwait = \"{wait}\"\n\
             [[lane]]\nname = \"l1\"\npriority = 10\ncpu = 0\n{}{}",
            endpoints.concat(),
            routes.concat()
        )
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
}

/// The strategy above is of use only when enough of what it makes is a plan.
#[test]
fn nearly_valid_texts_do_make_plans() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let texts = (0..200).map(|_| nearly_valid().new_tree(&mut runner).unwrap().current());
    let plans = texts.filter(|text| {
        check_with("p", text, &machine(), CheckOptions::default())
            .plan
            .is_some_and(|plan| !plan.routes.is_empty())
    });
    let count = plans.count();
    assert!(count >= 10, "only {count} of 200");
}
