//! Turns the written sections into a plan: names to indices, the rules between sections, the
//! machine's limits.
//!
//! Every step makes an entry for every entry of the file, with a placeholder for a refused value,
//! so that indices stay those of the file and the next step can continue. The result is valid only
//! if the report has no error.

mod account;
mod direct;
mod endpoints;
mod flow;
mod groups;
mod idle;
mod lanes;
pub mod library;
mod names;
mod payload;
mod processes;
mod resources;
mod routes;
mod skin;
mod stale;
mod watch;

use super::diagnostic::{Place, Report};
use super::machine::Machine;
use super::reader::At;
use super::sections::Config;
use super::values::{SECOND_NS, quoted};
use super::{CheckOptions, suggest};
use crate::endpoint;
use crate::plan::{DaemonPlan, Plan};
use names::Names;
use std::path::PathBuf;

/// The data that all steps use.
pub struct Context<'c, 'r, 't> {
    pub config: &'c Config,
    pub machine: &'c Machine,
    /// Shortcomings that the caller allows.
    pub options: CheckOptions,
    /// The report of problems.
    pub report: &'r mut Report<'t>,
    /// The names of the file.
    pub names: Names,
}

/// Default of the time in which a stop still delivers messages.
const DRAIN_NS: u64 = SECOND_NS / 2;
const REJOIN_NS: u64 = 2 * SECOND_NS;

/// Longest path of a Unix socket (unix(7): 108 bytes with the closing 0).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Makes the plan; all problems go to the report.
pub fn plan(
    config: &Config,
    machine: &Machine,
    options: CheckOptions,
    report: &mut Report<'_>,
) -> Plan {
    let names = Names::collect(config, report);
    let mut cx = Context {
        config,
        machine,
        options,
        report,
        names,
    };
    let daemon = daemon(&mut cx);
    let lanes = lanes::resolve(&mut cx);
    let processes = processes::resolve(&mut cx);
    let mut endpoints = endpoints::resolve(&mut cx);
    let routes = routes::resolve(&mut cx, &lanes, &endpoints);
    stale::default_maxmsg(&cx, &mut endpoints, &routes);
    direct::check_sources(&mut cx, &routes);
    let sources = flow::sources(&mut cx, &routes);
    let mut plan = Plan {
        daemon,
        lanes,
        processes,
        endpoints,
        routes,
        sources,
    };
    watch::check(&mut cx, &mut plan);
    flow::check(&mut cx, &plan);
    account::check(&mut cx, &plan);
    skin::check(&mut cx, &plan);
    endpoint::check(&mut cx, &plan);
    stale::check(&mut cx, &plan);
    lanes::check_sources(&mut cx, &plan);
    flow::unused(&mut cx, &plan);
    resources::check(&mut cx, &plan);
    plan
}

fn daemon(cx: &mut Context<'_, '_, '_>) -> DaemonPlan {
    let daemon = &cx.config.daemon;
    let name = daemon.name.get().map_or_else(
        || crate::config::DEFAULT_INSTANCE.to_owned(),
        |name| name.0.clone(),
    );
    let default = cx.machine.default_socket(&name);
    let mut socket = default.clone();
    if let Some(at) = daemon.socket.at() {
        socket = PathBuf::from(&at.value);
        let fix = format!("socket = {}", quoted(&default.display().to_string()));
        if !socket.is_absolute() || at.value.contains('\0') || at.value.ends_with('/') {
            cx.report.error(
                &at.place,
                format!(
                    "`{}` is not an absolute socket path",
                    at.value.escape_debug()
                ),
                fix,
            );
        } else if at.value.len() > SOCKET_PATH_BYTES_MAX {
            let message = format!(
                "the path has {} bytes; a socket path has at most {SOCKET_PATH_BYTES_MAX}",
                at.value.len()
            );
            cx.report.error(&at.place, message, fix);
        }
    } else if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let place = daemon.place.clone().unwrap_or_else(whole_file);
        let message = format!(
            "the default socket `{}` is longer than {SOCKET_PATH_BYTES_MAX} bytes",
            socket.display()
        );
        cx.report
            .error(&place, message, format!("socket = \"/tmp/{name}.sock\""));
    }
    let keep_queues = daemon.keep_queues.get().copied().unwrap_or(true);
    let drain_ns = daemon.drain.get().map_or(DRAIN_NS, |time| time.0);
    let account = account::resolve(cx);
    let watch = watch::daemon(cx);
    let cpu_dma_latency = idle::resolve(cx);
    DaemonPlan {
        name,
        account,
        socket,
        keep_queues,
        drain_ns,
        skin: skin::choose(cx, account),
        watch,
        cpu_dma_latency,
    }
}

/// The place of a problem of the whole file.
fn whole_file() -> Place {
    Place {
        span: 0..0,
        key: String::new(),
    }
}

impl Context<'_, '_, '_> {
    /// Reports an unknown name. After broken syntax, the author may nevertheless have written it.
    ///
    /// `known` are the valid names, and `write` makes the line with one of them.
    fn unknown_name(
        &mut self,
        place: &Place,
        what: &str,
        name: &str,
        known: &[String],
        write: impl Fn(&str) -> String,
    ) {
        if self.report.has_broken_lines() {
            return;
        }
        let shown = name.escape_debug();
        let known = || known.iter().map(String::as_str);
        match suggest::nearest(name, known()) {
            Some(near) => {
                let message = format!("no {what} is named `{shown}`; did you mean `{near}`?");
                self.report.error(place, message, write(near));
            }
            None => {
                let others = match known().next() {
                    Some(_) => format!("there are: {}", suggest::list(known())),
                    None => "the configuration has none that fits here".to_owned(),
                };
                let message = format!("no {what} is named `{shown}`; {others}");
                let article = if what.starts_with(['a', 'e']) {
                    "an"
                } else {
                    "a"
                };
                self.report.error(
                    place,
                    message,
                    format!("add {article} {what} with name = {}", quoted(name)),
                );
            }
        }
    }

    /// The same for a key with one name.
    fn unknown_value(
        &mut self,
        place: &Place,
        key: &str,
        what: &str,
        name: &str,
        known: &[String],
    ) {
        self.unknown_name(place, what, name, known, |near| {
            format!("{key} = {}", quoted(near))
        });
    }

    /// The line that names an owner, or that adds a process if there is none.
    pub fn owner_line(&self) -> String {
        match self
            .config
            .process
            .iter()
            .find_map(|process| process.name.get())
        {
            Some(name) => format!("owner = {}", quoted(&name.0)),
            None => "add a process with name = \"drive\", and here owner = \"drive\"".to_owned(),
        }
    }
}

/// The line of a list with one of its names replaced.
fn list_with(key: &str, items: &[At<String>], old: &Place, new: &str) -> String {
    let names = items.iter().map(|at| {
        if at.place == *old {
            new
        } else {
            at.value.as_str()
        }
    });
    suggest::list_line(key, names)
}

/// The line of a list without one of its items; none if the list would be empty.
fn list_without(key: &str, items: &[At<String>], old: &Place) -> Option<String> {
    let names: Vec<&str> = items
        .iter()
        .filter(|at| at.place != *old)
        .map(|at| at.value.as_str())
        .collect();
    (!names.is_empty()).then(|| suggest::list_line(key, names))
}
