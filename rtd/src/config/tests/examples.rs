//! The files in configs/: the examples pass, the schema is the one the code makes.

use super::util::{machine, run, shown, whole};
use crate::config::command::{self, CheckArgs, Output};
use crate::config::known::Known;
use crate::config::machine::Machine;
use crate::config::reader::Reader;
use crate::config::{check, diagnostic::Report, picture, schema, sections};
use crate::endpoint::KINDS;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

fn example(name: &str) -> String {
    std::fs::read_to_string(configs().join(name)).unwrap()
}

#[test]
fn the_examples_pass_without_a_warning() {
    for name in ["demo-arm.toml", "minimal.toml"] {
        let checked = run(&example(name));
        assert!(
            checked.diagnostics.is_empty(),
            "{name}\n{}",
            shown(&checked.diagnostics)
        );
        let plan = checked.plan.unwrap();
        assert_eq!(plan.broken_invariant(), None);
        assert!(!crate::config::summary(&plan, &machine()).is_empty());
    }
}

#[test]
fn the_arms_plan_is_what_its_file_says() {
    let plan = check("demo-arm.toml", &example("demo-arm.toml"), &machine()).unwrap();
    assert_eq!(
        plan.daemon.socket,
        Path::new("/run/user/1000/rtd/demo-arm.sock")
    );
    assert_eq!(
        plan.lanes
            .iter()
            .map(|lane| lane.priority)
            .collect::<Vec<_>>(),
        [90, 70, 20]
    );
    assert_eq!(plan.sources.len(), 3);
    let telemetry = &plan.sources[2];
    assert_eq!(telemetry.routes, [2, 3]);
    let setpoints = &plan.routes[1];
    assert_eq!(setpoints.deadline_ns, Some(1_000_000), "the lane's");
    assert_eq!(setpoints.payload_bytes_max, 64, "the source's msgsize");
    assert_eq!(
        setpoints.overflow,
        rtcore::lane::policy::Overflow::DisplaceOldest,
        "the lane's"
    );
    assert_eq!(plan.routes[3].capacity, 1, "conflate keeps one");
    assert_eq!(plan.routes[0].payload_bytes_max, 32, "a signal's record");
    assert_eq!(plan.threads(), 3);
}

#[test]
fn the_template_unit_is_the_unit_with_another_file() {
    let keys = |name: &str| {
        let text = example(name);
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (unit, template) = (keys("systemd/rtd.service"), keys("systemd/rtd@.service"));
    assert_eq!(unit.len(), template.len());
    let differ = unit
        .iter()
        .zip(&template)
        .filter(|(unit, template)| unit != template);
    let differ: Vec<_> = differ
        .map(|(_, template)| template.split('=').next().unwrap())
        .collect();
    assert_eq!(differ, ["Description", "ExecStart"]);
    assert!(unit.contains(&"RuntimeDirectoryPreserve=yes".to_owned()));
}

#[test]
fn the_schema_in_configs_is_the_one_the_code_makes() {
    let path = configs().join("rtd.schema.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, schema::json()).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == schema::json(),
        "{} is old: run with UPDATE_GOLDEN=1",
        path.display()
    );
}

/// The README shows it; made by `rtd check --svg configs/demo-arm.toml`.
#[test]
fn the_picture_of_the_arm_is_the_one_the_code_makes() {
    let path = configs().join("../rtd/pictures/routes.svg");
    let plan = check("demo-arm.toml", &example("demo-arm.toml"), &machine()).unwrap();
    let svg = picture::svg(&plan);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &svg).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == svg,
        "{} is old: run with UPDATE_GOLDEN=1",
        path.display()
    );
    for endpoint in plan
        .routes
        .iter()
        .flat_map(|route| route.ends().chain([route.from]))
    {
        assert!(svg.contains(&format!(">{}<", plan.endpoints[endpoint].name)));
    }
}

/// The keys that the code asks for are those of the schema, the required ones too.
#[test]
fn the_schema_has_exactly_the_keys_that_are_read() {
    let schema: serde_json::Value = serde_json::from_str(&schema::json()).unwrap();
    type Read = fn(&mut Reader<'_, '_, '_>);
    let sections: [(&str, Read); 5] = [
        ("Daemon", |r| drop(sections::Daemon::read_keys(r))),
        ("Lane", |r| drop(sections::Lane::read(r))),
        ("Process", |r| drop(sections::Process::read(r))),
        ("Group", |r| drop(sections::Group::read(r))),
        ("Route", |r| drop(sections::Route::read(r))),
    ];
    let read = |text: &str, read: Read| {
        let mut report = Report::new("", text);
        let (table, known) = (DeTable::parse(text).unwrap(), Known::default());
        let mut reader = Reader::new(&mut report, table.get_ref(), &known, 0..0, String::new());
        read(&mut reader);
        let (mut asked, mut required) = reader.finish();
        asked.sort_unstable();
        required.sort_unstable();
        (asked, required)
    };
    let sections = sections.map(|(name, of)| (name, schema["$defs"][name].clone(), read("", of)));
    let kinds = KINDS
        .iter()
        .zip(schema["$defs"]["Endpoint"]["oneOf"].as_array().unwrap());
    let kinds = kinds.map(|((_, name, keys), schema)| {
        assert_eq!(schema["properties"]["kind"]["const"], *name);
        let found = read(&format!("kind = \"{name}\""), |r| {
            drop(sections::Endpoint::read(r))
        });
        assert!(keys.iter().all(|key| found.0.contains(key)), "{name}");
        assert_eq!(
            found.0.len(),
            keys.len() + ["name", "kind", "owner"].len(),
            "{name}"
        );
        (*name, schema.clone(), found)
    });
    for (name, schema, (asked, required)) in sections.into_iter().chain(kinds) {
        let mut properties: Vec<&String> =
            schema["properties"].as_object().unwrap().keys().collect();
        properties.sort();
        assert_eq!(properties, asked, "{name}");
        let listed = schema["required"].as_array().cloned().unwrap_or_default();
        let mut listed: Vec<&str> = listed.iter().filter_map(|v| v.as_str()).collect();
        listed.sort_unstable();
        assert_eq!(listed, required, "{name}: required");
        assert_eq!(
            schema["additionalProperties"],
            serde_json::json!(false),
            "{name}"
        );
        for (key, property) in schema["properties"].as_object().unwrap() {
            assert!(
                property["description"].is_string(),
                "{name}.{key} is not described"
            );
        }
    }
}

#[test]
fn the_command_prints_problems_as_text_and_json_and_the_plan_on_success() {
    let dir = std::env::temp_dir().join(format!("rtd-check-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("a.toml");
    let run = |text: &[u8], json: bool| {
        std::fs::write(&file, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let output = if json { Output::Json } else { Output::Summary };
        let args = CheckArgs {
            output,
            ..CheckArgs::default()
        };
        let code = command::check_on(&file, args, &machine(), &mut out, &mut err);
        (
            code,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    };
    let (code, out, err) = run(whole().as_bytes(), false);
    assert_eq!((code, err.as_str()), (command::EXIT_RUNS, ""));
    assert!(
        out.contains("lane control  priority 50  cpu 0  block\n  in -> out"),
        "{out}"
    );
    assert!(out.lines().count() <= 24, "more than a screen:\n{out}");

    let broken = whole().replace("priority = 50", "priority = 99");
    let (code, out, err) = run(broken.as_bytes(), false);
    assert_eq!((code, out.as_str()), (command::EXIT_REFUSED, ""));
    assert!(
        err.contains("a.toml:3:12: error:") && err.ends_with("1 error, 0 warnings\n"),
        "{err}"
    );

    let (code, out, _) = run(broken.as_bytes(), true);
    assert_eq!(code, command::EXIT_REFUSED);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json[0]["key"], "lane[0].priority");
    assert_eq!(json[0]["severity"], "error");

    let (code, _, err) = run(b"a = \"\xff\"", false);
    assert_eq!(code, command::EXIT_IO);
    assert!(err.contains("not UTF-8 at byte 5"), "{err}");
    std::fs::remove_dir_all(&dir).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = command::check_on(&file, CheckArgs::default(), &machine(), &mut out, &mut err);
    assert_eq!(code, command::EXIT_IO, "the file is gone");
}

#[test]
fn the_real_machine_can_be_asked_and_an_unknown_one_refuses_nothing() {
    let machine = Machine::probe();
    assert!(machine.cpus_allowed.is_some_and(|cpus| !cpus.is_empty()));
    assert!(machine.rlimit_msgqueue.is_some());
    let plan = check(
        "minimal.toml",
        &example("minimal.toml"),
        &Machine::unknown(),
    );
    assert!(plan.is_ok(), "{plan:?}");
}
