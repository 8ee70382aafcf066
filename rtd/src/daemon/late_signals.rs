//! Signals that arrive while rtd ends. A lane that has stopped takes no more of them, and the
//! kernel discards pending signals with the process. Their number is therefore logged as late as
//! possible.

use crate::endpoint::EndpointKind;
use crate::log;
use crate::plan::Plan;
use crate::words::counted;
use rtcore::sys::rtsignal::{self, SignalSet};

/// Limit of the counted signals of one endpoint: a sender that never stops must not keep rtd from
/// ending.
const COUNT_MAX: usize = 262_144;

/// The signals that routes read, by endpoint.
#[derive(Debug)]
pub struct LateSignals(Vec<(String, i32)>);

impl LateSignals {
    /// The signals of this plan. Signals in a namespace of a skin's own are never pending here.
    pub fn of(plan: &Plan) -> LateSignals {
        let is_read = |id| plan.routes.iter().any(|route| route.from == id);
        let mut signals = Vec::new();
        for (id, endpoint) in plan.endpoints.iter().enumerate() {
            if let EndpointKind::Signal(signal) = &endpoint.kind
                && is_read(id)
            {
                signals.push((endpoint.name.clone(), signal.signo));
            }
        }
        LateSignals(signals)
    }

    /// Takes the pending signals, and logs their number: nobody will get them.
    pub fn report(&self) {
        for (endpoint, signo) in &self.0 {
            let set = SignalSet::of([*signo]);
            let lost = (0..COUNT_MAX)
                .take_while(|_| rtsignal::try_wait(&set).is_ok())
                .count();
            if lost > 0 {
                log::warning(format_args!(
                    "endpoint {endpoint}: {} arrived after its lane had stopped: lost",
                    counted(lost, "signal")
                ));
            }
        }
    }
}
