//! Whether the kernel is PREEMPT_RT.

use flate2::read::GzDecoder;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a file that are read at most, unpacked. A kernel configuration has about 300 KiB.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Whether the kernel is PREEMPT_RT; `root` is `/`, or a copy of the files in a test.
///
/// Three sources say so. /sys/kernel/realtime exists with the out-of-tree patches only. The version
/// (`uname -v`) names the model. The kernel configuration remains where a distribution replaced the
/// version.
pub fn is_rt(root: &Path) -> bool {
    let text = |path: &str| File::open(root.join(path)).ok().and_then(read);
    let config = || {
        let packed = File::open(root.join("proc/config.gz"))
            .ok()
            .and_then(|file| read(GzDecoder::new(file)));
        packed.or_else(|| {
            text(&format!(
                "boot/config-{}",
                text("proc/sys/kernel/osrelease")?.trim()
            ))
        })
    };
    text("sys/kernel/realtime").is_some_and(|text| text.trim() == "1")
        || text("proc/sys/kernel/version").is_some_and(|version| version_says_rt(&version))
        || config().is_some_and(|config| config_says_rt(&config))
}

/// `#1 SMP PREEMPT_RT Debian ...`; older patches say `#1 SMP PREEMPT RT ...`.
fn version_says_rt(version: &str) -> bool {
    let words: Vec<&str> = version.split_whitespace().collect();
    words.contains(&"PREEMPT_RT") || words.windows(2).any(|pair| pair == ["PREEMPT", "RT"])
}

/// `CONFIG_PREEMPT_RT=y`; older patches call it `CONFIG_PREEMPT_RT_FULL`.
fn config_says_rt(config: &str) -> bool {
    config.lines().any(|line| {
        matches!(
            line.trim(),
            "CONFIG_PREEMPT_RT=y" | "CONFIG_PREEMPT_RT_FULL=y"
        )
    })
}

fn read(from: impl Read) -> Option<String> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_names_the_model() {
        for version in [
            "#1 SMP PREEMPT_RT Debian 6.1.119-1 (2024-11-22)",
            "#1 SMP PREEMPT RT Debian 4.19.316-1 (2024-06-25)",
            "#8 SMP PREEMPT_RT Thu Oct 3 10:00:00 UTC 2024\n",
        ] {
            assert!(version_says_rt(version), "{version}");
        }
        for version in [
            "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)",
            "#1 SMP PREEMPT Tue Jun 4 2024",
            "#1 SMP Debian 4.19.316-1",
            "#1 SMP PREEMPT_RTX",
            "",
        ] {
            assert!(!version_says_rt(version), "{version}");
        }
    }

    #[test]
    fn the_configuration_has_the_option_set() {
        assert!(config_says_rt(
            "CONFIG_PREEMPT_BUILD=y\nCONFIG_PREEMPT_RT=y\n# CONFIG_PREEMPT is not set\n"
        ));
        assert!(config_says_rt("CONFIG_PREEMPT_RT_FULL=y\n"));
        for config in [
            "# CONFIG_PREEMPT_RT is not set\n",
            "CONFIG_HAVE_PREEMPT_RT=y\n",
            "CONFIG_PREEMPT=y\n",
            "",
        ] {
            assert!(!config_says_rt(config), "{config}");
        }
    }

    #[test]
    fn each_source_is_enough() {
        use flate2::{Compression, write::GzEncoder};
        use std::io::Write as _;
        type File<'a> = (&'a str, &'a [u8]);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(b"CONFIG_PREEMPT_RT=y\n").unwrap();
        let packed = packed.finish().unwrap();
        let release: File<'_> = ("proc/sys/kernel/osrelease", b"6.12.1-rt\n");
        let cases: [(bool, &[File<'_>]); 6] = [
            (false, &[]),
            (true, &[("sys/kernel/realtime", b"1\n")]),
            (
                true,
                &[("proc/sys/kernel/version", b"#1 SMP PREEMPT_RT x\n")],
            ),
            (true, &[("proc/config.gz", &packed)]),
            (
                true,
                &[release, ("boot/config-6.12.1-rt", b"CONFIG_PREEMPT_RT=y\n")],
            ),
            (
                false,
                &[
                    release,
                    ("boot/config-6.1.0", b"CONFIG_PREEMPT_RT=y\n"),
                    ("sys/kernel/realtime", b"0\n"),
                ],
            ),
        ];
        for (index, (expected, files)) in cases.into_iter().enumerate() {
            let root =
                std::env::temp_dir().join(format!("rtd-preempt-{}-{index}", std::process::id()));
            for (path, bytes) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            let found = is_rt(&root);
            let _ = std::fs::remove_dir_all(&root);
            assert_eq!(found, expected, "case {index}");
        }
    }
}
