//! The state machine of the sessions: a table of each event in each state, and a model that tries
//! every order.

mod model;
mod table;

use super::event::*;
use super::state::*;
use crate::plan::{ProcessId, RouteId};
use rtcore::lane::peer::PeerState;
use std::collections::BTreeMap;

/// Sends to the receiver: through the daemon in channel 0, directly in channel 1.
const SENDING: ProcessId = 0;
/// Receives in the same channels.
const RECEIVING: ProcessId = 1;
const ROUTE: RouteId = 7;

fn topology(large: bool) -> Topology {
    let to = Receiver::Session(Some(RECEIVING));
    let direct = DirectKind {
        ends: [SENDING, RECEIVING],
        large,
    };
    Topology {
        channels: vec![
            vec![ChannelKind::Routed(vec![to]), ChannelKind::Direct(ROUTE)],
            vec![ChannelKind::Inbound, ChannelKind::DirectInbound],
        ],
        partners: vec![vec![RECEIVING], vec![SENDING]],
        direct: BTreeMap::from([(ROUTE, direct)]),
    }
}

fn changed(process: ProcessId, state: PeerState) -> Event {
    Event::Changed {
        process,
        status: ProcessStatus {
            state,
            pid: 100,
            ending: None,
        },
    }
}
