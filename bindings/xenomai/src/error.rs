//! Errors of loading a library. Each text names the library, its message and the fix.

use std::fmt;

/// Why [`crate::Library::open`] failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// There is no such library.
    Absent {
        /// As it was asked for.
        library: String,
        /// The dynamic linker's message.
        detail: String,
    },
    /// It is there and may only be linked, not loaded.
    RefusesDlopen {
        /// As it was asked for.
        library: String,
        /// The dynamic linker's message.
        detail: String,
    },
    /// It is there and loads, but is not Xenomai 3's: a function that every release exports is
    /// missing.
    MissingSymbol {
        /// As it was asked for.
        library: String,
        /// The function.
        symbol: &'static str,
    },
    /// It is there and does not load for another reason: wrong machine, a missing dependency, no
    /// permission.
    Unusable {
        /// As it was asked for.
        library: String,
        /// The dynamic linker's message.
        detail: String,
    },
    /// This program is linked to libcobalt (feature `link-cobalt`) and cannot take another one.
    Linked {
        /// As it was asked for.
        library: String,
    },
}

#[cfg(not(feature = "link-cobalt"))]
impl LoadError {
    /// Classifies the dynamic linker's message about a library, in the words of glibc and musl.
    pub(crate) fn of_dlopen(library: String, detail: String) -> LoadError {
        const ABSENT: [&str; 2] = ["No such file or directory", "Error loading shared library"];
        // Built to be linked only: DF_1_NOOPEN, or thread-local storage that is fixed at the
        // program's start.
        const LINK_ONLY: [&str; 2] = ["cannot be dlopen()ed", "static TLS block"];
        // A missing dependency is reported in the same words, under its own name.
        let about_itself = detail.contains(&library);
        if LINK_ONLY.iter().any(|words| detail.contains(words)) {
            LoadError::RefusesDlopen { library, detail }
        } else if about_itself && ABSENT.iter().any(|words| detail.contains(words)) {
            LoadError::Absent { library, detail }
        } else {
            LoadError::Unusable { library, detail }
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Absent { library, detail } => {
                write!(
                    f,
                    "{library} was not found ({detail}); install Xenomai 3's libcobalt or name its path"
                )
            }
            LoadError::RefusesDlopen { library, detail } => write!(
                f,
                "{library} may not be loaded at run time ({detail}); configure Xenomai with --enable-dlopen-libs, or \
                 build rtd with --features link-cobalt"
            ),
            LoadError::MissingSymbol { library, symbol } => write!(
                f,
                "{library} does not export {symbol}, which every libcobalt of Xenomai 3.0 to 3.3 does; it is another \
                 library or another version: name the path of the right one"
            ),
            LoadError::Unusable { library, detail } => {
                write!(
                    f,
                    "{library} does not load ({detail}); ldd and file show what it needs and is built for"
                )
            }
            LoadError::Linked { library } => write!(
                f,
                "{library} was asked for, but this program is linked to its libcobalt (feature link-cobalt); leave the \
                 path out, or build without that feature"
            ),
        }
    }
}

impl std::error::Error for LoadError {}

#[cfg(all(test, not(feature = "link-cobalt")))]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_messages_are_distinguished() {
        let of = |detail: &str| LoadError::of_dlopen("libcobalt.so.2".into(), detail.into());
        let absent = "libcobalt.so.2: cannot open shared object file: No such file or directory";
        assert!(matches!(of(absent), LoadError::Absent { .. }));
        let dependency =
            "libmodechk.so.0: cannot open shared object file: No such file or directory";
        assert!(matches!(of(dependency), LoadError::Unusable { .. }));
        for words in [
            "shared object cannot be dlopen()ed",
            "cannot allocate memory in static TLS block",
        ] {
            assert!(matches!(
                of(&format!("libcobalt.so.2: {words}")),
                LoadError::RefusesDlopen { .. }
            ));
        }
        assert!(matches!(
            of("libcobalt.so.2: wrong ELF class: ELFCLASS32"),
            LoadError::Unusable { .. }
        ));
    }

    #[test]
    fn a_text_names_the_library_and_the_fix() {
        let text = LoadError::of_dlopen("/x/libcobalt.so.2".into(), "cannot be dlopen()ed".into())
            .to_string();
        for word in ["/x/libcobalt.so.2", "--enable-dlopen-libs", "link-cobalt"] {
            assert!(text.contains(word), "{text}");
        }
    }
}
