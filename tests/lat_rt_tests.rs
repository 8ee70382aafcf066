//! `rtlat` beside the real cyclictest, pmqtest and sigwaittest: the same letters bring the same
//! lines and keys, and what people do with the one's files they can do with the other's.

use crate::util::lat::lat;
use crate::util::needs::{GNUPLOT, JQ, ROOT, RT_TESTS};
use crate::util::tool::{RTLAT, run};
use crate::util::{Instance, first_cpu};
use anyhow::{Context as _, ensure};
use rtcore::sys::process;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

tests![
    cyclictest_and_timer_bring_the_same needs(ROOT, RT_TESTS),
    the_standard_line_gives_every_thread_its_samples needs(ROOT),
    command_lines_from_the_field_give_parsers_the_same needs(ROOT, RT_TESTS, JQ),
    a_letter_with_another_meaning_is_refused_with_the_reason,
    help_has_no_letter,
    rarer_options_are_explained_or_refused,
    a_histogram_on_standard_output_is_cyclictests needs(ROOT, RT_TESTS),
    pmqtest_and_mq_bring_the_same needs(ROOT, RT_TESTS),
    sigwaittest_and_signal_bring_the_same needs(ROOT, RT_TESTS),
    gnuplot_draws_the_osadl_picture needs(GNUPLOT),
];

/// One of the real ones.
fn real(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    process::die_with_parent_at_exec(&mut command);
    run(command)?.well().context(program.to_owned())
}

/// Numbers become N, together with the blanks that fill their column; a list of numbers becomes
/// one.
fn shape(text: &str) -> Vec<String> {
    text.lines().map(shape_of_line).collect()
}

fn shape_of_line(line: &str) -> String {
    let line = match line.split_once("# Thread ") {
        // As many as there were overflows.
        Some((_, rest)) => format!("# Thread {}:", rest.split(':').next().unwrap_or_default()),
        None => line.to_owned(),
    };
    let mut shape = String::new();
    for c in line.chars() {
        if c.is_ascii_digit() {
            if !shape.ends_with('N') {
                shape.truncate(shape.trim_end_matches(' ').len());
                shape.push('N');
            }
        } else {
            shape.push(c);
        }
    }
    shape
}

/// All keys with where they are, in order. (rt-tests 2.4 and later write `cmdline:` by mistake.)
fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
    for (key, below) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{}", key.trim_end_matches(':'));
        found.push(path.clone());
        if !path.ends_with("/histogram") {
            keys(below, &path, found);
        }
    }
}

/// A JSON file as rt-tests write it: the mean of a thread without samples is `-nan`, which no JSON
/// parser takes.
fn json_of(path: &Path) -> anyhow::Result<Value> {
    let text = read(path)?;
    let lines = text.lines().map(|line| match line.split_once(": ") {
        Some((key, number)) if number.trim_end_matches(',').ends_with("nan") => {
            format!(
                "{key}: null{}",
                if number.ends_with(',') { "," } else { "" }
            )
        }
        _ => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    serde_json::from_str(&text).with_context(|| format!("{}: {text}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Ours has all of the real one's keys, nested and in its order.
fn ensure_same_keys(real: &Path, ours: &Path) -> anyhow::Result<()> {
    let (mut wanted, mut found) = (Vec::new(), Vec::new());
    let (real, ours): (Value, Value) = (json_of(real)?, serde_json::from_str(&read(ours)?)?);
    keys(&real, "", &mut wanted);
    keys(&ours, "", &mut found);
    found.retain(|key| wanted.contains(key));
    ensure!(found == wanted, "wanted {wanted:#?}, found {found:#?}");
    for same in ["file_version", "return_code", "num_threads", "sysinfo"] {
        ensure!(
            real[same] == ours[same],
            "{same}: {} and {}",
            real[same],
            ours[same]
        );
    }
    Ok(())
}

/// Lines that rt-tests print: all but those behind `# `.
fn printed(text: &str) -> Vec<String> {
    let printed = text
        .lines()
        .filter(|line| !line.starts_with("# ") && !line.is_empty());
    printed.map(shape_of_line).collect()
}

fn cyclictest_and_timer_bring_the_same() -> anyhow::Result<()> {
    for (letters, histogram) in [
        (
            &["-q", "-l", "200", "-i", "1000", "-p", "70"][..],
            Some("-h100"),
        ),
        (
            &["-q", "-l", "100", "-i", "1000", "-t", "2", "-p", "70"],
            Some("-H100"),
        ),
        (
            &["-q", "-l", "100", "-i", "1000", "-t", "2", "-d", "0", "-N"],
            None,
        ),
        (&["-l", "100", "-S", "-p", "70"], Some("-h50")),
        // The second thread ends before its first sample.
        (
            &[
                "-q", "-l", "3", "-i", "1000", "-t", "2", "-d", "500000", "-p", "70",
            ],
            None,
        ),
    ] {
        let instance = Instance::new()?;
        let [f1, j1, f2, j2] = ["f1", "j1", "f2", "j2"].map(|name| instance.file(name));
        let [f1s, j1s, f2s, j2s] = [&f1, &j1, &f2, &j2].map(|file| file.display().to_string());
        let (mut theirs, mut ours) = (letters.to_vec(), [&["timer"], letters].concat());
        if let Some(histogram) = histogram {
            theirs.extend([histogram, "--histfile", &f1s]);
            ours.extend([histogram, "--histfile", &f2s]);
        }
        theirs.extend(["--json", &j1s]);
        ours.extend(["--json", &j2s]);
        let real_out = real("cyclictest", &theirs)?;
        let our_out = run(lat(&instance, &ours)?)?.well()?;
        if letters.contains(&"-q") {
            ensure!(
                printed(&real_out) == printed(&our_out),
                "{theirs:?}: {real_out}\n{our_out}"
            );
        }
        if histogram.is_some() {
            let (real, ours) = (shape(&read(&f1)?), shape(&read(&f2)?));
            ensure!(real == ours, "{theirs:?}: {real:#?} and {ours:#?}");
        }
        ensure_same_keys(&j1, &j2).with_context(|| format!("{theirs:?}"))?;
    }
    Ok(())
}

/// The line that every real-time howto has. Each thread has as many samples as were asked for,
/// which needs the same interval for all.
fn the_standard_line_gives_every_thread_its_samples() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let line = ["timer", "-l2000", "-m", "-Sp90", "-i200", "-h400", "-q"];
    let out = run(lat(&instance, &line)?)?.well()?;
    let rows: Vec<&str> = out
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    ensure!(
        rows.len() == 400 && rows[0].starts_with("000000 "),
        "no histogram of 400 bins: {out}"
    );
    let figures = |name: &str| -> anyhow::Result<Vec<u64>> {
        let line = out
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .with_context(|| format!("no {name}"))?;
        Ok(line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?)
    };
    let (totals, overflows) = (figures("# Total:")?, figures("# Histogram Overflows:")?);
    let samples: Vec<u64> = totals.iter().zip(&overflows).map(|(a, b)| a + b).collect();
    let cpus = rtcore::sys::cpus::allowed()?.len();
    ensure!(
        samples == vec![2000; cpus],
        "samples of each thread: {samples:?}"
    );
    Ok(())
}

/// Command lines of all tools of rt-tests, as people use them, through both:
/// `scripts/compare-rt-tests.d/lines`.
fn command_lines_from_the_field_give_parsers_the_same() -> anyhow::Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/compare-rt-tests");
    let mut command = Command::new(script);
    command.args(["--lines", "--rtlat", *RTLAT]);
    process::die_with_parent_at_exec(&mut command);
    // Half a minute of measurements, each of which ends by itself.
    let said = command.output()?;
    let out = String::from_utf8_lossy(&said.stdout);
    ensure!(
        said.status.success(),
        "{out}\n{}",
        String::from_utf8_lossy(&said.stderr)
    );
    let of = |tool: &str| out.matches(&format!("same: {tool} ")).count();
    ensure!(of("cyclictest") >= 20, "{out}");
    for tool in [
        "pmqtest",
        "sigwaittest",
        "ptsematest",
        "svsematest",
        "signaltest",
    ] {
        ensure!(of(tool) >= 2, "{tool}: {out}");
    }
    Ok(())
}

/// pmqtest's -f has a value and another meaning.
fn a_letter_with_another_meaning_is_refused_with_the_reason() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    for (line, says) in [
        (
            &["mq", "-T", "1", "-f", "2"][..],
            "-f 2: pmqtest's forced timeout",
        ),
        (
            &["mq", "-T", "1", "--forcetimeout=2"],
            "-f 2: pmqtest's forced timeout",
        ),
        (&["route", "-f", "lane"], "write lane in front of -f"),
        (&["timer", "-b", "20ms"], "200us"),
    ] {
        let said = run(lat(&instance, line)?)?;
        ensure!(
            said.code() == Some(2) && said.out.is_empty(),
            "{line:?}: {said:?}"
        );
        ensure!(said.err.contains(says), "{line:?}: {}", said.err);
    }
    Ok(())
}

/// Help has no letter, and a mistake is never mistaken for it.
fn help_has_no_letter() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let help = run(lat(&instance, &["timer", "--help"])?)?.well()?;
    ensure!(
        help.contains("-h, --histogram <US>") && help.contains("--help"),
        "{help}"
    );
    for line in [
        &["timer", "-h"][..],
        &["timer", "-hx"],
        &["mq", "-h", "-q"],
        &["route", "lane", "-h"],
    ] {
        let said = run(lat(&instance, line)?)?;
        ensure!(
            said.code() == Some(2) && said.out.is_empty(),
            "{line:?}: {said:?}"
        );
        ensure!(said.err.contains("--histogram"), "{line:?}: {}", said.err);
    }
    Ok(())
}

/// An option that is not honoured is explained in one line on standard error, which no parser
/// reads, or refused.
fn rarer_options_are_explained_or_refused() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let quick = ["timer", "-q", "-l20", "-i500"];
    for (options, says) in [
        (&["-c1"][..], "-c 1: measured with CLOCK_MONOTONIC"),
        (&["-r"], "-r: sleeps until absolute times"),
        (&["--smi"], "--smi: SMIs are not counted"),
        (
            &["-h50", "-d100"],
            "-d: a histogram needs the same interval",
        ),
    ] {
        let said = run(lat(&instance, &[&quick[..], options].concat())?)?;
        ensure!(
            said.code() == Some(0) && said.err.lines().count() == 1,
            "{options:?}: {said:?}"
        );
        ensure!(
            said.err.contains("rtlat: note: ") && said.err.contains(says),
            "{options:?}: {}",
            said.err
        );
    }
    for options in [
        &["-n", "-u", "-M"][..],
        &["--default-system"],
        &["-A50", "-t2"],
        &["--secaligned"],
    ] {
        let said = run(lat(&instance, &[&quick[..], options].concat())?)?;
        ensure!(
            said.code() == Some(0) && said.err.is_empty(),
            "{options:?}: {said:?}"
        );
    }
    for options in [["-F", "/nowhere/fifo"], ["--policy", "idle"]] {
        let said = run(lat(&instance, &[&quick[..], &options].concat())?)?;
        ensure!(
            said.code() == Some(2) && said.err.contains(options[0]),
            "{options:?}: {said:?}"
        );
    }
    Ok(())
}

/// The histogram on standard output, as OSADL's recipe takes it.
fn a_histogram_on_standard_output_is_cyclictests() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let theirs = real("cyclictest", &["-q", "-l", "100", "-t", "2", "-h", "60"])?;
    let ours = run(lat(
        &instance,
        &["timer", "-q", "-l", "100", "-t", "2", "-h", "60"],
    )?)?
    .well()?;
    ensure!(printed(&theirs) == printed(&ours), "{theirs}\n{ours}");
    Ok(())
}

fn pairs_bring_the_same(program: &str, name: &str) -> anyhow::Result<()> {
    let cpu = first_cpu().to_string();
    for letters in [
        &["-q", "-l", "100", "-i", "1000"][..],
        &["-q", "-l", "50", "-t", "2", "-d", "0"],
        &["-q", "-l", "50", "-a", &cpu, "-t", "1"],
        &["-q", "-l", "50", "-S"],
    ] {
        if program == "sigwaittest" && letters.contains(&"-S") {
            // It has no such letter.
            continue;
        }
        let instance = Instance::new()?;
        let [j1, j2] = ["j1", "j2"].map(|name| instance.file(name));
        let [j1s, j2s] = [&j1, &j2].map(|file| file.display().to_string());
        let letters = [letters, &["-p", "70"]].concat();
        let theirs = real(program, &[&letters[..], &["--json", &j1s]].concat())?;
        for more in [&[][..], &["--sync"]] {
            let ours = run(lat(
                &instance,
                &[&[name], &letters[..], &["--json", &j2s], more].concat(),
            )?)?
            .well()?;
            ensure!(
                printed(&theirs) == printed(&ours),
                "{letters:?}: {theirs}\n{ours}"
            );
            ensure_same_keys(&j1, &j2).with_context(|| format!("{letters:?}"))?;
        }
    }
    Ok(())
}

fn pmqtest_and_mq_bring_the_same() -> anyhow::Result<()> {
    pairs_bring_the_same("pmqtest", "mq")
}

fn sigwaittest_and_signal_bring_the_same() -> anyhow::Result<()> {
    pairs_bring_the_same("sigwaittest", "signal")
}

/// OSADL's latency plot: comments and empty lines taken away, a column per thread cut out, drawn as
/// steps over a logarithmic axis.
fn draw(instance: &Instance, output: &str, threads: usize) -> anyhow::Result<()> {
    let rows = output
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split([' ', '\t']).collect()).collect();
    ensure!(
        !rows.is_empty() && rows.iter().all(|row| row.len() == threads + 1),
        "not a histogram: {output}"
    );
    let mut plots = Vec::new();
    for thread in 1..=threads {
        let file = instance.file(&format!("histogram{thread}"));
        let column: String = rows
            .iter()
            .map(|row| format!("{}\t{}\n", row[0], row[thread]))
            .collect();
        std::fs::write(&file, column)?;
        plots.push(format!(
            "'{}' using 1:2 title 'CPU{}' with histeps",
            file.display(),
            thread - 1
        ));
    }
    let picture = instance.file("plot.svg");
    let script = format!(
        "set terminal svg\nset output '{}'\nset logscale y\nset xrange [0:{}]\nset yrange [0.8:*]\nset xlabel 'Latency \
         (us)'\nset ylabel 'Number of latency samples'\nplot {}\n",
        picture.display(),
        rows.len(),
        plots.join(", ")
    );
    let file = instance.file("plot.gp");
    std::fs::write(&file, script)?;
    let mut gnuplot = Command::new("gnuplot");
    gnuplot.arg(&file);
    let said = run(gnuplot)?;
    ensure!(said.status.success() && said.err.is_empty(), "{said:?}");
    let drawn = read(&picture)?;
    ensure!(
        (0..threads).all(|cpu| drawn.contains(&format!("CPU{cpu}"))) && drawn.contains("<path"),
        "{drawn}"
    );
    Ok(())
}

fn gnuplot_draws_the_osadl_picture() -> anyhow::Result<()> {
    let instance = Instance::new()?;
    let file = instance.file("histogram");
    let path = file.display().to_string();
    // What comes on standard output, and what comes into a file.
    let args = [
        "timer",
        "-q",
        "-l",
        "300",
        "-i",
        "500",
        "-t",
        "2",
        "-d",
        "0",
        "--histogram",
        "2000",
    ];
    let out = run(lat(&instance, &args)?)?.well()?;
    draw(&instance, &out, 2).context("standard output")?;
    run(lat(
        &instance,
        &[&args[..], &["--histfile", &path]].concat(),
    )?)?
    .well()?;
    draw(&instance, &read(&file)?, 2).context("--histfile")?;
    let pairs = ["mq", "-q", "-l", "300", "-i", "500", "--histogram", "2000"];
    let out = run(lat(&instance, &pairs)?)?.well()?;
    draw(&instance, &out, 1).context("mq")
}
