//! How much memory is still available: MemAvailable of the machine (proc_meminfo(5)) and the limits
//! of the control groups that the process is in, at every level (cgroups(7): memory.max, or
//! memory.limit_in_bytes of version 1).
//!
//! A process that goes beyond the limit of its group is killed, whatever the machine has. Page
//! cache of files on disk counts as usage of the group and is given back under pressure, so it
//! counts as available here.

use super::procfs;
use std::path::{Path, PathBuf};

/// The available memory, and the source of that number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are still available.
    pub bytes: u64,
    /// `MemAvailable`, or the file with the limit.
    pub limit: String,
}

/// The least of all limits; none where nothing is known.
pub fn available() -> Option<Room> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| mem_available(&text));
    let machine = machine.map(|bytes| Room {
        bytes,
        limit: "MemAvailable".to_owned(),
    });
    let groups =
        read("/proc/self/cgroup").map(|text| of_groups(&text, Path::new("/sys/fs/cgroup")));
    machine
        .into_iter()
        .chain(groups.unwrap_or_default())
        .min_by_key(|room| room.bytes)
}

/// MemAvailable in the text of /proc/meminfo.
pub fn mem_available(meminfo: &str) -> Option<u64> {
    procfs::number::<u64>(meminfo, "MemAvailable")?.checked_mul(1024)
}

/// The files of one version of control groups.
struct Version {
    limit: &'static str,
    usage: &'static str,
    cache: &'static str,
}

const V1: Version = Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cache: "total_inactive_file",
};
const V2: Version = Version {
    limit: "memory.max",
    usage: "memory.current",
    cache: "inactive_file",
};

/// By the lines of /proc/self/cgroup, below where the hierarchies are mounted.
fn of_groups(groups: &str, mounts: &Path) -> Vec<Room> {
    let mut rooms = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (roots, version) = match controllers {
            // With both versions in use it is mounted one level down, without this controller.
            "" => (vec![mounts.to_owned(), mounts.join("unified")], V2),
            names if names.split(',').any(|name| name == "memory") => {
                (vec![mounts.join("memory")], V1)
            }
            _ => continue,
        };
        for root in roots {
            rooms.extend(
                levels(&root, group)
                    .iter()
                    .filter_map(|dir| room_in(dir, &version)),
            );
        }
    }
    rooms
}

/// The group's directory and those above it, up to the mount. In a container the mount may be the
/// group itself, and the path one of the host: then the mount is all there is.
fn levels(root: &Path, group: &str) -> Vec<PathBuf> {
    let own = root.join(group.trim_start_matches('/'));
    own.ancestors()
        .take_while(|dir| dir.starts_with(root))
        .map(Path::to_owned)
        .collect()
}

fn room_in(dir: &Path, version: &Version) -> Option<Room> {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    // "max" of version 2 is not a number; version 1 shows nearly 2^63, which is no limit either.
    let limit = number(version.limit).filter(|limit| *limit < 1 << 60)?;
    let usage = number(version.usage)?;
    let stat = read("memory.stat").unwrap_or_default();
    let cache = stat
        .lines()
        .find_map(|line| line.strip_prefix(version.cache)?.trim().parse::<u64>().ok());
    let bytes = limit.saturating_sub(usage.saturating_sub(cache.unwrap_or(0)));
    Some(Room {
        bytes,
        limit: dir.join(version.limit).display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_or_unknown() {
        let text = "MemTotal:       24683684 kB\nMemAvailable:   24047616 kB\nBuffers: 1 kB\n";
        assert_eq!(mem_available(text), Some(24_047_616 * 1024));
        assert_eq!(mem_available("MemTotal: 1 kB\n"), None);
        assert!(available().is_some());
    }

    /// Files of a hierarchy; removed when dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let root = std::env::temp_dir().join(format!("rtd-room-{}-{name}", std::process::id()));
            for (file, text) in files {
                let path = root.join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Tree(root)
        }

        fn least(&self, groups: &str) -> Option<(u64, String)> {
            let least = of_groups(groups, &self.0)
                .into_iter()
                .min_by_key(|room| room.bytes)?;
            let limit = least
                .limit
                .strip_prefix(&*self.0.to_string_lossy())
                .unwrap();
            Some((least.bytes, limit.to_owned()))
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_tightest_level_of_version_2_counts_without_its_page_cache() {
        let tree = Tree::new(
            "v2",
            &[
                ("a/memory.max", "1000\n"),
                ("a/memory.current", "900\n"),
                ("a/memory.stat", "anon 1\ninactive_file 300\n"),
                ("a/b/memory.max", "max\n"),
                ("a/b/memory.current", "5\n"),
            ],
        );
        assert_eq!(
            tree.least("0::/a/b\n"),
            Some((400, "/a/memory.max".to_owned()))
        );
        assert_eq!(tree.least("0::/\n"), None, "the root has no limit");
    }

    #[test]
    fn version_1_and_a_path_of_the_host_are_understood() {
        let tree = Tree::new(
            "v1",
            &[
                ("memory/memory.limit_in_bytes", "700\n"),
                ("memory/memory.usage_in_bytes", "800\n"),
                ("memory/free/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/free/memory.usage_in_bytes", "1\n"),
            ],
        );
        let groups = "4:cpu,cpuacct:/x\n3:memory:/docker/0123\n0::/\n";
        assert_eq!(
            tree.least(groups),
            Some((0, "/memory/memory.limit_in_bytes".to_owned()))
        );
        assert_eq!(
            tree.least("3:memory:/free\n"),
            Some((0, "/memory/memory.limit_in_bytes".to_owned()))
        );
        assert_eq!(tree.least("rubbish\n5:pids:/\n"), None);
    }
}
