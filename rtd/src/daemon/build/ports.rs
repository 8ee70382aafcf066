//! The xddp ports of a plan while workers are made: each is bound once, and its source and sinks share it.

use crate::plan::XddpPlan;
use rtcore::skin::Skin;
use rtcore::skin::xddp::{Port, PortSpec};
use std::io;
use std::sync::Arc;

/// By number. Lane threads keep what they use.
#[derive(Debug, Default)]
pub struct Ports {
    open: Vec<(i16, Arc<Port>)>,
}

impl Ports {
    /// The port, bound at the first call.
    pub(super) fn open(&mut self, skin: &Skin, plan: &XddpPlan) -> io::Result<Arc<Port>> {
        if let Some((_, port)) = self.open.iter().find(|(number, _)| *number == plan.port) {
            return Ok(Arc::clone(port));
        }
        // The check saw the calls in a child of its own.
        let calls =
            skin.xddp.ok_or_else(|| io::Error::other(format!("the skin {} has no xddp", skin.name)))?;
        let spec = PortSpec { port: plan.port, label: plan.label.clone(), pool_bytes: plan.pool_bytes() };
        let port = Arc::new(Port::open(calls, &spec)?);
        self.open.push((plan.port, Arc::clone(&port)));
        Ok(port)
    }
}
