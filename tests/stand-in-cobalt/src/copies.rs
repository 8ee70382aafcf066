//! For tests: where the stand-in is, and copies of it that lack something.
//!
//! A copy is the built file with a few bytes changed, which is what another link would have
//! changed: it needs no second build. All are made beside the built library, under the name that it
//! stands in for.

use std::io;
use std::path::{Path, PathBuf};

/// Which library a test wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What Xenomai 3 exports.
    Stock,
    /// And `pthread_sigqueue_np`.
    WithSigqueueNp,
    /// [`Kind::Stock`] without this symbol.
    Without(&'static str),
    /// [`Kind::Stock`] linked with `-z nodlopen`.
    RefusesDlopen,
}

/// Path of the library; absolute. The name of its directory says what it is.
///
/// Errors: it has not been built, which cannot be where this crate is a dependency of the test; or
/// the directory of the test's executable cannot be written.
pub fn library(kind: Kind) -> io::Result<PathBuf> {
    let built = built()?;
    let directory = built.with_file_name("stand-in").join(match kind {
        Kind::Stock => "stock".to_owned(),
        Kind::WithSigqueueNp => "sigqueue-np".to_owned(),
        Kind::Without(symbol) => format!("without-{symbol}"),
        Kind::RefusesDlopen => "nodlopen".to_owned(),
    });
    let path = directory.join("libcobalt.so.2");
    let mut bytes = std::fs::read(&built)?;
    if kind != Kind::WithSigqueueNp {
        hide(&mut bytes, "pthread_sigqueue_np")?;
    }
    match kind {
        Kind::Without(symbol) => hide(&mut bytes, symbol)?,
        Kind::RefusesDlopen => refuse_dlopen(&mut bytes)?,
        Kind::Stock | Kind::WithSigqueueNp => {}
    }
    // Tests run side by side and may have it loaded: never written in place.
    if std::fs::read(&path).is_ok_and(|there| there == bytes) {
        return Ok(path);
    }
    std::fs::create_dir_all(&directory)?;
    let thread = std::thread::current().id();
    let fresh = directory.join(format!("fresh.{}.{thread:?}", std::process::id()));
    std::fs::write(&fresh, bytes)?;
    std::fs::rename(&fresh, &path)?;
    Ok(path)
}

/// Whether a library is the stand-in, whatever its name.
pub fn is_stand_in(library: &Path) -> io::Result<bool> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", library.display()));
    Ok(find(&std::fs::read(library).map_err(named)?, b"\0rtd_stand_in\0").is_some())
}

/// The library as the compiler made it: beside the test's executable, or in `deps` beneath it.
fn built() -> io::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let near = executable.ancestors().skip(1).take(3);
    let places = near.flat_map(|at| [at.join("deps"), at.to_owned()]);
    let candidates = places.map(|at| at.join("libstand_in_cobalt.so"));
    candidates
        .filter(|path| path.is_file())
        .max_by_key(|path| modified(path))
        .ok_or_else(|| {
            io::Error::other(format!(
                "libstand_in_cobalt.so is not near {}; cargo build -p stand-in-cobalt makes it",
                executable.display()
            ))
        })
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().and_then(|m| m.modified()).ok()
}

/// Renames a symbol, so that the loader does not find it.
fn hide(bytes: &mut [u8], symbol: &str) -> io::Result<()> {
    let name = [b"\0", symbol.as_bytes(), b"\0"].concat();
    let mut found = false;
    let mut from = 0;
    while let Some(at) = find(&bytes[from..], &name) {
        bytes[from + at + 1] = b'~';
        found = true;
        from += at + 1;
    }
    if found {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the stand-in has no symbol {symbol}"
        )))
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    // SAFETY: both lengths are those of the slices.
    let at = unsafe {
        libc::memmem(
            bytes.as_ptr().cast(),
            bytes.len(),
            what.as_ptr().cast(),
            what.len(),
        )
    };
    (!at.is_null()).then(|| at.addr() - bytes.as_ptr().addr())
}

/// Sets DF_1_NOOPEN in the dynamic section (elf(5)), which is what `-z nodlopen` does.
fn refuse_dlopen(bytes: &mut [u8]) -> io::Result<()> {
    const PT_DYNAMIC: u32 = 2;
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    const DF_1_NOOPEN: u8 = 0x40;
    let missing = || io::Error::other("the stand-in is no 64-bit ELF file with a DT_FLAGS_1 entry");
    let word = |bytes: &[u8], at: usize| -> Option<u64> {
        Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    };
    let half = |bytes: &[u8], at: usize| -> Option<usize> {
        Some(usize::from(u16::from_ne_bytes(
            bytes.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let locate = |bytes: &[u8]| -> Option<usize> {
        if bytes.get(..5)? != b"\x7fELF\x02" {
            return None;
        }
        let table = usize::try_from(word(bytes, 32)?).ok()?;
        let (size, count) = (half(bytes, 54)?, half(bytes, 56)?);
        let header = (0..count).map(|n| table + n * size).find(|&at| {
            bytes
                .get(at..at + 4)
                .is_some_and(|kind| kind == PT_DYNAMIC.to_ne_bytes())
        })?;
        let (start, length) = (
            usize::try_from(word(bytes, header + 8)?).ok()?,
            usize::try_from(word(bytes, header + 32)?).ok()?,
        );
        (start..start + length)
            .step_by(16)
            .find(|&at| word(bytes, at) == Some(DT_FLAGS_1))
            .map(|at| at + 8)
    };
    let flags = locate(bytes).ok_or_else(missing)?;
    // The low byte of the value.
    let low = if cfg!(target_endian = "little") {
        flags
    } else {
        flags + 7
    };
    bytes[low] |= DF_1_NOOPEN;
    Ok(())
}
