//! Reads the sections key by key.

use super::{
    Config, Daemon, ENDPOINTS_MAX, Endpoint, GROUPS_MAX, Group, LANES_MAX, Lane, PROCESSES_MAX,
    Process, ROUTES_MAX, Route,
};
use crate::config::diagnostic::{Place, Report};
use crate::config::known::Known;
use crate::config::reader::{self, Field, Reader};
use crate::config::suggest;
use crate::config::values::{KindText, quoted};
use crate::endpoint::Keys;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

impl Config {
    /// Reads every section; all problems go to the report.
    pub fn read(report: &mut Report<'_>, root: &DeTable<'_>) -> Config {
        const SECTIONS: [&str; 6] = ["daemon", "lane", "process", "endpoint", "group", "route"];
        for (key, value) in root
            .iter()
            .filter(|(key, _)| !SECTIONS.contains(&key.get_ref().as_ref()))
        {
            unknown_section(report, key, value, &SECTIONS);
        }
        let known = &Known::collect(root);
        Config {
            daemon: Daemon::read(report, root, known),
            lane: read_all(report, root, known, "lane", LANES_MAX, Lane::read),
            process: read_all(report, root, known, "process", PROCESSES_MAX, Process::read),
            endpoint: read_all(
                report,
                root,
                known,
                "endpoint",
                ENDPOINTS_MAX,
                Endpoint::read,
            ),
            group: read_all(report, root, known, "group", GROUPS_MAX, Group::read),
            route: read_all(report, root, known, "route", ROUTES_MAX, Route::read),
        }
    }
}

fn unknown_section(
    report: &mut Report<'_>,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    known: &[&str],
) {
    let name: &str = key.get_ref();
    let place = Place {
        span: key.span(),
        key: name.to_owned(),
    };
    if value.get_ref().is_table() || value.get_ref().is_array() {
        let near = suggest::nearest(name, known.iter().copied());
        let header = |near: &str| {
            if near == "daemon" {
                "[daemon]".into()
            } else {
                format!("[[{near}]]")
            }
        };
        let fix = near.map_or_else(
            || {
                format!(
                    "remove it; known sections: {}",
                    suggest::list(known.iter().copied())
                )
            },
            |near| format!("write {}", header(near)),
        );
        report.error(&place, format!("unknown section `{name}`"), fix);
    } else {
        report.error(
            &place,
            format!("key `{name}` is outside any section"),
            "put it below its section's header",
        );
    }
}

fn read_all<T>(
    report: &mut Report<'_>,
    root: &DeTable<'_>,
    known: &Known,
    section: &'static str,
    count_max: usize,
    read: fn(&mut Reader<'_, '_, '_>) -> T,
) -> Vec<T> {
    let entries = reader::entries(report, root, section, count_max);
    let mut all = Vec::with_capacity(entries.len());
    for (index, (table, header)) in entries.into_iter().enumerate() {
        let mut reader = Reader::new(report, table, known, header, format!("{section}[{index}]"));
        all.push(read(&mut reader));
        reader.finish();
    }
    all
}

impl Daemon {
    fn read(report: &mut Report<'_>, root: &DeTable<'_>, known: &Known) -> Daemon {
        let Some((key, value)) = root.get_key_value("daemon") else {
            return Daemon::default();
        };
        let Some(table) = value.get_ref().as_table() else {
            let place = Place {
                span: key.span(),
                key: "daemon".to_owned(),
            };
            let message = format!("`daemon` is one table, not {}", value.get_ref().type_str());
            report.error(&place, message, "[daemon]");
            return Daemon::default();
        };
        let mut reader = Reader::new(report, table, known, value.span(), "daemon".to_owned());
        let daemon = Daemon::read_keys(&mut reader);
        reader.finish();
        daemon
    }

    /// Reads its keys.
    pub fn read_keys(r: &mut Reader<'_, '_, '_>) -> Daemon {
        Daemon {
            place: Some(r.header()),
            name: r.optional("name"),
            user: r.optional("user"),
            group: r.optional("group"),
            socket: r.optional("socket"),
            keep_queues: r.optional("keep_queues"),
            drain: r.optional("drain"),
            rejoin: r.optional("rejoin"),
            skin: r.optional("skin"),
            cobalt_library: r.optional("cobalt_library"),
            watchdog: r.optional("watchdog"),
            duty_window: r.optional("duty_window"),
            on_runaway: r.optional("on_runaway"),
            on_tampering: r.optional("on_tampering"),
            rttime: r.optional("rttime"),
            cpu_dma_latency: r.optional("cpu_dma_latency"),
        }
    }
}

impl Lane {
    /// Reads its keys.
    pub fn read(r: &mut Reader<'_, '_, '_>) -> Lane {
        Lane {
            place: r.header(),
            name: r.required("name", &r.known.free_name("control")),
            priority: r.required("priority", &r.known.priority()),
            cpu: r.required("cpu", "0"),
            wait: r.optional("wait"),
            unisolated: r.optional("unisolated"),
            capacity: r.optional("capacity"),
            overflow: r.optional("overflow"),
            deadline: r.optional("deadline"),
            stall: r.optional("stall"),
            duty: r.optional("duty"),
        }
    }
}

impl Process {
    /// Reads its keys.
    pub fn read(r: &mut Reader<'_, '_, '_>) -> Process {
        Process {
            place: r.header(),
            name: r.required("name", &r.known.free_name("drive")),
            user: r.optional("user"),
            group: r.optional("group"),
            exe: r.optional("exe"),
            above_ceiling: r.optional("above_ceiling"),
        }
    }
}

impl Endpoint {
    /// Reads its keys.
    pub fn read(r: &mut Reader<'_, '_, '_>) -> Endpoint {
        let name = r.required("name", &r.known.free_name("drive.commands"));
        let kind: Field<KindText> = r.required("kind", &quoted(Keys::meant(r)));
        let owner = r.reference("owner", &r.known.processes);
        let keys = Keys::read(r, kind.get().map(|kind| kind.0));
        Endpoint {
            place: r.header(),
            name,
            kind,
            owner,
            keys,
        }
    }
}

impl Group {
    /// Reads its keys.
    pub fn read(r: &mut Reader<'_, '_, '_>) -> Group {
        Group {
            place: r.header(),
            name: r.required("name", &r.known.free_name("drives")),
            members: r.list("members", &r.known.sink()),
            mode: r.optional("mode"),
            process_group_of: r.reference("process_group_of", &r.known.processes),
            session_of: r.reference("session_of", &r.known.processes),
        }
    }
}

impl Route {
    /// Reads its keys.
    pub fn read(r: &mut Reader<'_, '_, '_>) -> Route {
        Route {
            place: r.header(),
            name: r.optional("name"),
            from: r.required_reference("from", &r.known.endpoints, &r.known.source()),
            to: r.list("to", &r.known.sink()),
            lane: r.required_reference("lane", &r.known.lanes, &r.known.lane()),
            path: r.optional("path"),
            ttl: r.optional("ttl"),
            deadline: r.optional("deadline"),
            rate_hz: r.optional("rate_hz"),
            burst: r.optional("burst"),
            payload: r.optional("payload"),
            truncate: r.optional("truncate"),
            capacity: r.optional("capacity"),
            overflow: r.optional("overflow"),
            rejoin: r.optional("rejoin"),
            mq_priority: r.optional("mq_priority"),
            accept_claimed: r.optional("accept_claimed"),
        }
    }
}
