//! The log's texts about lost messages: the receiver, the limit with its value, and the fix.

use super::Names;
use crate::endpoint::EndpointKind;
use crate::plan::{EndpointId, Path, Plan, RoutePlan};
use crate::words::{show_time, start_as};
use rtcore::lane::policy::Overflow;
use rtcore::message::{Reject, SIGNAL_VALUE_BYTES};
use rtcore::stats::loss::Loss;
use rtcore::sys::Errno;

/// Advice for a receiver that the signal would end now.
const NOT_READY: &str = "let its program block or handle the signal before it registers";
/// Limit of the receivers that a line names.
const NAMED_MAX: usize = 3;

/// A loss of one route: the ends at fault, and why the kernel refused the message there.
pub struct Case<'a> {
    pub plan: &'a Plan,
    /// Index of the route.
    pub route: usize,
    /// The kind of the loss.
    pub loss: Loss,
    /// Ends at fault; empty if no receiver is.
    pub ends: &'a [usize],
    /// The last refusal by the kernel.
    pub errno: Option<Errno>,
    /// Whether the owner of an endpoint is not ready for its signal now.
    pub not_ready: &'a dyn Fn(EndpointId) -> bool,
}

impl Case<'_> {
    /// The sentence for the log.
    pub fn why(&self) -> String {
        let route = self.rules();
        let at = format!("in [[route]] \"{}\"", route.name);
        match self.loss {
            Loss::Expired => {
                let ttl = show_time(route.ttl_ns.unwrap_or(0));
                let who = self.receivers();
                let first = if self.waits_for_readiness() { NOT_READY } else { "make it read faster" };
                format!("{who} did not take them within ttl = \"{ttl}\": {first}, or raise ttl {at}")
            }
            Loss::Displaced => format!(
                "{} is full and overflow = \"{}\" {at} makes room for newer messages",
                self.receivers(),
                policy(route.overflow)
            ),
            Loss::PeerDead => self.peer_dead(),
            Loss::Rejected(Reject::Full) => self.full(&at),
            Loss::Rejected(Reject::TooLarge) => self.too_large(&at),
            Loss::Rejected(Reject::Rate) => route.rate.map_or_else(String::new, |rate| {
                format!(
                    "they came faster than rate_hz = {} with burst = {}: send slower, or raise them {at}",
                    rate.per_second, rate.burst
                )
            }),
            Loss::Rejected(Reject::Origin) => self.origin(&at),
            Loss::Rejected(Reject::Error) => self.error(),
            Loss::Rejected(Reject::Ignored) => format!(
                "the owner of {} ignores the signal (SIG_IGN): let the program block or handle it",
                self.receivers()
            ),
            Loss::Rejected(Reject::Stopped) if route.path == Path::Direct => {
                "rtd was away, or refused the sender's session, and the sender had no ring: send again after Event::Up".into()
            }
            Loss::Rejected(Reject::Stopped) => {
                let drain = show_time(self.plan.daemon.drain_ns);
                let who = self.receivers();
                format!("rtd stopped before they were handed to {who}: [daemon] drain = \"{drain}\"")
            }
        }
    }

    fn rules(&self) -> &RoutePlan {
        &self.plan.routes[self.route]
    }

    /// Endpoints at fault.
    fn endpoints(&self) -> Vec<EndpointId> {
        let names = Names::new(self.plan);
        self.ends
            .iter()
            .filter_map(|&end| names.endpoint(self.route, end))
            .collect()
    }

    /// Whether every end at fault waits for its program to block or handle the signal: faster
    /// reading would not help.
    fn waits_for_readiness(&self) -> bool {
        let ends = self.endpoints();
        !ends.is_empty() && ends.iter().all(|&end| (self.not_ready)(end))
    }

    /// Names of the ends at fault, or of the route's targets if no end is at fault.
    fn receivers(&self) -> String {
        let ends = self.endpoints();
        if ends.is_empty() {
            return Names::new(self.plan).targets(self.rules());
        }
        let named: Vec<&str> = ends
            .iter()
            .take(NAMED_MAX)
            .map(|&end| self.plan.endpoints[end].name.as_str())
            .collect();
        match ends.len() - named.len() {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }

    fn full(&self, at: &str) -> String {
        let (who, route) = (self.receivers(), self.rules());
        if self.waits_for_readiness() {
            return format!(
                "{who} is not ready and capacity = {} {at} is used up, overflow = \"{}\": {NOT_READY}, or raise capacity",
                route.capacity,
                policy(route.overflow)
            );
        }
        let (capacity, overflow) = (route.capacity, policy(route.overflow));
        let Some(holds) = self
            .endpoints()
            .first()
            .map(|&end| self.plan.endpoints[end].kind.policy().room_name())
        else {
            // A group of which no single member is at fault.
            return format!(
                "{who} is full: capacity = {capacity} {at} is used up, overflow = \"{overflow}\": make the receivers read \
                 faster, or raise capacity"
            );
        };
        if route.path == Path::Direct {
            return format!(
                "{who} is full ({holds}) and its sender was refused: make it read faster, or raise maxmsg"
            );
        }
        format!(
            "{who} is full: {holds} and capacity = {capacity} {at} are used up, overflow = \"{overflow}\": make it read \
             faster, or raise capacity"
        )
    }

    fn too_large(&self, at: &str) -> String {
        let payload_max = self.rules().payload_bytes_max;
        let Some(&end) = self.endpoints().first() else {
            return format!(
                "they are longer than payload = {payload_max} bytes {at}: send less, or raise it"
            );
        };
        let endpoint = &self.plan.endpoints[end];
        match &endpoint.kind {
            EndpointKind::Signal(_) => format!(
                "{} takes {SIGNAL_VALUE_BYTES} bytes while its owner has no session: send less, \
                 set truncate = true {at}, or \
                 give [[endpoint]] \"{}\" a msgsize and its owner a session",
                endpoint.name, endpoint.name
            ),
            kind => format!(
                "they are longer than msgsize = {} of {}: send less, or raise msgsize in [[endpoint]] \"{}\"",
                kind.policy().msgsize().unwrap_or(SIGNAL_VALUE_BYTES),
                endpoint.name,
                endpoint.name
            ),
        }
    }

    fn peer_dead(&self) -> String {
        let ends = self.endpoints();
        let owner = |&end: &EndpointId| {
            let endpoint = &self.plan.endpoints[end];
            let owner = endpoint
                .owner
                .map(|owner| self.plan.processes[owner].name.as_str());
            (endpoint, owner.unwrap_or("?"))
        };
        match ends.first().map(owner) {
            None => format!(
                "no process of {} is registered: start one of them",
                self.receivers()
            ),
            Some((endpoint, owner)) if matches!(endpoint.kind, EndpointKind::Ring(_)) => {
                format!(
                    "nobody receives at {}: process {owner} has no session; start it",
                    self.receivers()
                )
            }
            Some((endpoint, owner)) if matches!(&endpoint.kind, EndpointKind::Signal(signal) if signal.to_thread()) =>
            {
                format!(
                    "nobody receives at {}: process {owner} is not registered, or it has ended, or its registered thread \
                     has; start it ({}), or register a thread that lives (rtctl register)",
                    self.receivers(),
                    start_as(owner)
                )
            }
            Some((_, owner)) => format!(
                "nobody receives at {}: process {owner} is not registered or has ended; start it ({})",
                self.receivers(),
                start_as(owner)
            ),
        }
    }

    fn origin(&self, at: &str) -> String {
        let route = self.rules();
        let source = &self.plan.endpoints[route.from];
        let claimed = if route.accept_claimed {
            String::new()
        } else {
            format!("; accept_claimed = true {at} takes a pid that sigqueue(3) only claims")
        };
        match source
            .owner
            .map(|owner| self.plan.processes[owner].name.as_str())
        {
            Some(owner) => format!(
                "only process {owner}, the owner of {}, may send it: register the sender ({}), or remove \
                 owner from [[endpoint]] \"{}\"{claimed}",
                source.name,
                start_as(owner),
                source.name
            ),
            None => format!("the sender of {} is not verified{claimed}", source.name),
        }
    }

    fn error(&self) -> String {
        let who = self.receivers();
        match self.errno {
            Some(errno) => format!(
                "{who} does not take messages: {errno} ({errno:?}){}",
                hint(errno)
            ),
            None => format!("{who} closed a ring because its sender wrote invalid data"),
        }
    }
}

/// The fix for an errno of a send.
pub fn hint(errno: Errno) -> &'static str {
    if errno == Errno::PERM {
        "; signals to another user need CAP_KILL (systemd: AmbientCapabilities=CAP_KILL) or the same user"
    } else {
        ""
    }
}

/// The policy as it is written in the configuration.
fn policy(overflow: Overflow) -> String {
    match overflow {
        Overflow::Reject => "reject".to_owned(),
        Overflow::DisplaceOldest => "displace-oldest".to_owned(),
        Overflow::DisplaceNewest => "displace-newest".to_owned(),
        Overflow::Conflate => "conflate".to_owned(),
        Overflow::Block { limit_ns } => format!("block:{}", show_time(limit_ns)),
    }
}
