//! User and group names to ids (getpwnam(3), getgrnam(3)).

use nix::unistd::{Gid, Group, Uid, User};
use std::io;

/// The uid of a user; `None` when there is no such user.
pub fn user_id(name: &str) -> io::Result<Option<u32>> {
    let found = User::from_name(name).map_err(|e| named("user", name, e))?;
    Ok(found.map(|user| user.uid.as_raw()))
}

/// The gid of a group; `None` when there is no such group.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    let found = Group::from_name(name).map_err(|e| named("group", name, e))?;
    Ok(found.map(|group| group.gid.as_raw()))
}

/// The primary group of a user; `None` when there is no such user.
pub fn primary_group(uid: u32) -> io::Result<Option<u32>> {
    let found =
        User::from_uid(Uid::from_raw(uid)).map_err(|e| named("uid", &uid.to_string(), e))?;
    Ok(found.map(|user| user.gid.as_raw()))
}

/// The name of a user, or the uid where it has none.
pub fn user_name(uid: u32) -> String {
    let found = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    found.map_or_else(|| format!("uid {uid}"), |user| user.name)
}

/// The name of a group, or the gid where it has none.
pub fn group_name(gid: u32) -> String {
    let found = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    found.map_or_else(|| format!("gid {gid}"), |group| group.name)
}

/// Real user id of this process.
pub fn own_uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

/// Real group id of this process.
pub fn own_gid() -> u32 {
    nix::unistd::getgid().as_raw()
}

fn named(kind: &str, name: &str, error: nix::errno::Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{kind} `{name}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_zero_and_strangers_are_unknown() {
        assert_eq!(user_id("root").unwrap(), Some(0));
        assert_eq!(group_id("root").unwrap(), Some(0));
        assert_eq!(user_id("no-such-user-here").unwrap(), None);
        assert_eq!(user_id("a\0b").unwrap(), None);
        assert_eq!(primary_group(0).unwrap(), Some(0));
        assert_eq!(primary_group(4_000_000_000).unwrap(), None);
    }
}
