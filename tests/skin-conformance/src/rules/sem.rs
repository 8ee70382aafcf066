//! Semaphores, which ring a thread where there is no futex.

use super::util::*;
use crate::skin::{Ending, Errno, Sem, Skin};
use libc::sem_t;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

rules! {
    counts: "sem: as many waits return as were posted, and start at the value it was made with",
    times_out: "sem: a bounded wait is ETIMEDOUT, not early",
    in_time: "sem: a bounded wait that need not wait does not",
    wakes: "sem: a post wakes a thread that waits",
    ended: "sem: a Linux signal ends a wait",
    named: "sem: one of a name is the same wherever it is opened",
    tried: "sem: one that is there is taken at once, else it is EAGAIN",
    exclusive: "sem: a name is made once, and opened only where it is",
    unlinked: "sem: who has it open goes on with it when its name is gone, beside a new one of that name",
}

/// A semaphore on the heap, gone with its owner.
struct Semaphore<'a> {
    skin: &'a dyn Skin,
    memory: Box<UnsafeCell<MaybeUninit<sem_t>>>,
}

// SAFETY: the memory is the skin's, whose calls are made for several threads.
unsafe impl Sync for Semaphore<'_> {}

impl<'a> Semaphore<'a> {
    fn new(skin: &'a dyn Skin, value: u32) -> Result<Semaphore<'a>, Errno> {
        let semaphore = Semaphore {
            skin,
            memory: Box::new(UnsafeCell::new(MaybeUninit::zeroed())),
        };
        skin.init_semaphore(semaphore.raw(), value)?;
        Ok(semaphore)
    }

    fn raw(&self) -> Sem {
        Sem(self.memory.get().cast())
    }

    fn take_in_a_while(&self) -> Result<(), Errno> {
        self.skin.take_until(self.raw(), in_a_while(self.skin)?)
    }
}

impl Drop for Semaphore<'_> {
    fn drop(&mut self) {
        let _ = self.skin.destroy_semaphore(self.raw());
    }
}

fn counts(skin: &dyn Skin) -> Ending {
    let semaphore = Semaphore::new(skin, 2)?;
    skin.post(semaphore.raw())?;
    for _ in 0..3 {
        skin.take(semaphore.raw())?;
    }
    refused(
        "the fourth of three",
        semaphore.take_in_a_while(),
        libc::ETIMEDOUT,
    )?;
    Ok(String::new())
}

fn times_out(skin: &dyn Skin) -> Ending {
    let semaphore = Semaphore::new(skin, 0)?;
    let (taken, late) = not_early(skin, A_WHILE, || semaphore.take_in_a_while())?;
    Ok(format!(
        "{}, {late}",
        refused("sem_timedwait", taken, libc::ETIMEDOUT)?
    ))
}

fn in_time(skin: &dyn Skin) -> Ending {
    let semaphore = Semaphore::new(skin, 1)?;
    semaphore.take_in_a_while()?;
    Ok(String::new())
}

fn wakes(skin: &dyn Skin) -> Ending {
    let semaphore = &Semaphore::new(skin, 0)?;
    std::thread::scope(|scope| {
        let poster = beside(scope, skin, move || {
            skin.sleep(A_WHILE, false)?;
            Ok(skin.post(semaphore.raw())?)
        });
        let taken = skin.take(semaphore.raw());
        joined(poster)?;
        taken?;
        Ok(String::new())
    })
}

fn ended(skin: &dyn Skin) -> Ending {
    let semaphore = &Semaphore::new(skin, 0)?;
    interrupted(skin, move || skin.take(semaphore.raw()))
}

fn named(skin: &dyn Skin) -> Ending {
    let name = fresh_name();
    let first = skin.open_semaphore(&name, 0)?;
    let second = skin.open_semaphore(&name, 5);
    let gone = skin.unlink_semaphore(&name);
    let second = second?;
    gone?;
    skin.post(second)?;
    skin.take(first)?;
    skin.close_semaphore(second)?;
    skin.close_semaphore(first)?;
    refused(
        "sem_unlink after sem_unlink",
        skin.unlink_semaphore(&name),
        libc::ENOENT,
    )?;
    Ok(String::new())
}

fn tried(skin: &dyn Skin) -> Ending {
    let semaphore = Semaphore::new(skin, 1)?;
    skin.try_take(semaphore.raw())?;
    refused(
        "the second of one",
        skin.try_take(semaphore.raw()),
        libc::EAGAIN,
    )
}

fn exclusive(skin: &dyn Skin) -> Ending {
    let name = fresh_name();
    let absent = refused(
        "opening none",
        skin.open_semaphore_as(&name, false),
        libc::ENOENT,
    )?;
    let made = skin.open_semaphore_as(&name, true)?;
    let again = skin.open_semaphore_as(&name, true);
    skin.unlink_semaphore(&name)?;
    skin.close_semaphore(made)?;
    Ok(format!(
        "{absent}; {}",
        refused("making it again", again, libc::EEXIST)?
    ))
}

fn unlinked(skin: &dyn Skin) -> Ending {
    let name = fresh_name();
    let old = skin.open_semaphore_as(&name, true)?;
    skin.unlink_semaphore(&name)?;
    let new = skin.open_semaphore_as(&name, true)?;
    skin.unlink_semaphore(&name)?;
    skin.post(old)?;
    refused(
        "one posted to the old one",
        skin.try_take(new),
        libc::EAGAIN,
    )?;
    skin.take(old)?;
    skin.close_semaphore(new)?;
    skin.close_semaphore(old)?;
    Ok(String::new())
}
