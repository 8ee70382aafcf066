//! The recipe by which OSADL's plots are made from a histogram: rows by grep, columns by cut,
//! gnuplot.

use std::process::Command;

use super::builder::{series, with_bins, written};
use crate::out::hist;

const RECIPE: &str = r##"
set -eu
cd "$1"
max=$(grep "Max Latencies" output | tr " " "\n" | sort -n | tail -1 | sed "s/^0*//")
grep -v -e "^#" -e "^$" output | tr " " "\t" > rows
plot=""
for column in 2 3; do
  cut -f1,$column rows > rows$column
  plot="$plot${plot:+, }'rows$column' using 1:2 title 'CPU$((column - 2))' with steps"
done
gnuplot 2> errors <<END
set terminal svg
set output 'plot.svg'
set xlabel "Latency (us), max $max us"
set logscale y
set xrange [0:50]
set yrange [0.8:*]
plot $plot
END
cat errors
echo "max $max"
"##;

#[test]
#[ignore = "needs gnuplot"]
fn gnuplot_draws_a_histogram_by_osadls_recipe() {
    let dir = std::env::temp_dir().join(format!("rtlat-plot-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let few = [3_000, 4_000, 4_000, 4_500, 12_000];
    let many = [2_000, 2_100, 2_200, 9_000, 77_000];
    let all = [few, many].map(|ns| with_bins(series("timer", &ns), &ns, 50));
    std::fs::write(
        dir.join("output"),
        written(|out| hist::write(out, &all, true)),
    )
    .unwrap();
    let shell = Command::new("sh")
        .args(["-c", RECIPE, "sh"])
        .arg(&dir)
        .output()
        .unwrap();
    let picture = std::fs::read_to_string(dir.join("plot.svg"));
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(
        shell.status.success(),
        "{}",
        String::from_utf8_lossy(&shell.stderr)
    );
    // Anything but the maximum is a warning of gnuplot's.
    assert_eq!(String::from_utf8_lossy(&shell.stdout), "max 77\n");
    let picture = picture.unwrap();
    assert!(
        picture.contains("CPU1") && picture.contains("max 77 us"),
        "{picture}"
    );
}
