//! What a test can have go wrong, by environment variables of the process that loads the library.
//!
//! | variable | effect |
//! |---|---|
//! | `RTD_STAND_IN_SPACE=NAME` | processes with the same name share signals, queues and semaphores; `default` |
//! | `RTD_STAND_IN_INIT=exit` | `xenomai_init` prints a line and exits with 1 |
//! | `RTD_STAND_IN_INIT=enosys` | as if there were no Cobalt: `xenomai_init` exits, every other call is ENOSYS |
//! | `RTD_STAND_IN_INIT=eperm` | `xenomai_init` returns, the process stays unbound: every other call is EPERM |
//! | `RTD_STAND_IN_INIT_NOISE=1` | `xenomai_init` first writes what is no text to standard output and standard error, no line ended |
//! | `RTD_STAND_IN_POOL=N` | records for pending signals, at most and by default 128 |
//! | `RTD_STAND_IN_ESRCH=1` | no signal finds its thread |
//! | `RTD_STAND_IN_PROMOTE=ERRNO` | promoting a thread fails with this number |
//! | `RTD_STAND_IN_PROMOTE_OTHERS=ERRNO` | promoting any but the main thread fails with this number |
//! | `RTD_STAND_IN_NO_XDDP=1` | as a core without that protocol: `__cobalt_socket` is Linux's for every family |
//! | `RTD_STAND_IN_RELAX_EVERY=N` | each Nth primary call of a thread leaves it relaxed until its next one |
//! | `RTD_STAND_IN_FOLLOW=1` | a Linux system call leaves a promoted thread relaxed, and is counted: see [`crate::follow`] |

use std::sync::OnceLock;

/// How `xenomai_init` fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// It does not.
    Works,
    /// It exits, with Cobalt there.
    Exits,
    /// It exits, as there is no Cobalt.
    NoCobalt,
    /// It returns and nothing works.
    Unbound,
}

/// The switches of this process.
#[derive(Clone, Debug)]
pub struct Switches {
    /// Name of the space.
    pub space: String,
    /// How `xenomai_init` fails.
    pub init: Init,
    /// It writes what is no text before.
    pub noise: bool,
    /// Records for pending signals.
    pub pool: usize,
    /// No signal finds its thread.
    pub no_thread: bool,
    /// Error number of a promotion, 0 for none.
    pub promote: i32,
    /// The same for all but the main thread.
    pub promote_others: i32,
    /// Which primary call leaves a thread relaxed; 0 for none.
    pub relax_every: u32,
    /// Linux system calls are followed.
    pub follow: bool,
    /// The core has no XDDP.
    pub no_xddp: bool,
}

/// Variable that names the space.
pub const SPACE: &str = "RTD_STAND_IN_SPACE";

/// The switches, read once.
pub fn get() -> &'static Switches {
    static SWITCHES: OnceLock<Switches> = OnceLock::new();
    SWITCHES.get_or_init(|| Switches {
        space: text(SPACE).unwrap_or_else(|| "default".to_owned()),
        init: match text("RTD_STAND_IN_INIT").as_deref() {
            None => Init::Works,
            Some("exit") => Init::Exits,
            Some("enosys") => Init::NoCobalt,
            Some("eperm") => Init::Unbound,
            Some(other) => crate::complain(format_args!(
                "RTD_STAND_IN_INIT={other}: exit, enosys or eperm"
            )),
        },
        noise: text("RTD_STAND_IN_INIT_NOISE").is_some(),
        pool: number("RTD_STAND_IN_POOL")
            .unwrap_or(crate::shared::POOL)
            .min(crate::shared::POOL),
        no_thread: text("RTD_STAND_IN_ESRCH").is_some(),
        promote: number("RTD_STAND_IN_PROMOTE").unwrap_or(0),
        promote_others: number("RTD_STAND_IN_PROMOTE_OTHERS").unwrap_or(0),
        relax_every: number("RTD_STAND_IN_RELAX_EVERY").unwrap_or(0),
        follow: text("RTD_STAND_IN_FOLLOW").is_some(),
        no_xddp: text("RTD_STAND_IN_NO_XDDP").is_some(),
    })
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = text(name)?;
    let Ok(number) = text.parse() else {
        crate::complain(format_args!("{name}={text}: a number is needed"))
    };
    Some(number)
}
