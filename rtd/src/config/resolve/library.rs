//! Checks who can change the code of `cobalt_library`: it runs with rtd's rights as soon as it is
//! loaded, even by the check.

use rtcore::sys::process;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// A fault of a path, and whether another user's code may be there already.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Any program on the machine, or another user's, can put its own code there.
    pub is_open: bool,
    /// The file or directory, and the fault.
    pub text: String,
    /// The line that fixes it.
    pub fix: String,
}

/// The file itself, with links resolved, so that the checked file is the loaded one; the given path
/// if it does not exist.
pub fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The user, other than root, who may change a library that is loaded, if rtd's user is `uid`: that
/// user. It is nobody if the program has rights by its file, which are not for the user that starts
/// it.
pub fn trusted(uid: u32) -> u32 {
    if process::has_rights_of_its_file() {
        0
    } else {
        uid
    }
}

/// The first of the file and its directories that a user other than root and `uid` may change;
/// missing ones are no fault.
pub fn fault(path: &Path, uid: u32) -> Option<Fault> {
    let mut weaker = None;
    for part in path.ancestors() {
        let Ok(found) = part.metadata() else { continue };
        let (shown, mode) = (part.display(), found.mode());
        if found.uid() != 0 && found.uid() != uid {
            let text = format!("{shown} belongs to uid {}", found.uid());
            return Some(Fault {
                is_open: true,
                text,
                fix: format!("chown root {shown}"),
            });
        }
        // In a sticky directory (/tmp) other users cannot rename or remove the entry.
        if found.is_dir() && mode & STICKY != 0 {
            continue;
        }
        if mode & OTHERS_WRITE != 0 {
            let text = format!(
                "{shown} has mode {:04o}: any user may write it",
                mode & 0o7777
            );
            return Some(Fault {
                is_open: true,
                text,
                fix: format!("chmod go-w {shown}"),
            });
        }
        if mode & GROUP_WRITES != 0 && found.gid() != 0 {
            let text = format!(
                "{shown} has mode {:04o}: group {} may write it",
                mode & 0o7777,
                found.gid()
            );
            weaker.get_or_insert(Fault {
                is_open: false,
                text,
                fix: format!("chmod g-w {shown}"),
            });
        }
    }
    weaker
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_others_may_write_is_open_and_a_group_is_less() {
        let dir = std::env::temp_dir().join(format!("rtd-library-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (library, uid) = (dir.join("libcobalt.so.2"), rtcore::sys::accounts::own_uid());
        std::fs::write(&library, "").unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&dir, 0o755);
        for (mode, open) in [(0o644, None), (0o666, Some(true)), (0o646, Some(true))] {
            set(&library, mode);
            assert_eq!(fault(&library, uid).map(|f| f.is_open), open, "{mode:o}");
        }
        set(&library, 0o644);
        set(&dir, 0o777);
        let found = fault(&library, uid).unwrap();
        assert!(
            found.is_open && found.fix == format!("chmod go-w {}", dir.display()),
            "{found:?}"
        );
        set(&dir, 0o1777);
        assert_eq!(fault(&library, uid), None, "sticky");
        // Nobody has this number: the owner of a file can change it, whatever its mode is.
        set(&dir, 0o755);
        if uid != 0 {
            assert!(
                fault(&library, u32::MAX - 1).is_some_and(|f| f.text.contains("belongs to uid"))
            );
        }
        assert_eq!(fault(Path::new("/nowhere/libcobalt.so.2"), uid), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
