//! The commands of `rtlat`.

#![forbid(unsafe_code)]

pub use super::compare::{CompareArgs, compare};

use super::args::{BadOption, MeasureArgs, Place, Roles, given_cpus};
use super::mech::{self, Kind, Mechanism};
use super::pair::Work;
use super::route::{LaneArgs, OwnRoute, RoutePath, config, find};
use super::rt_tests::forced_timeout;
use super::run::{Conditions, single};
use anyhow::{Context as _, bail};
use rtd::daemon::own::{self, OwnDaemon};

/// Senders and receivers of routes, below the lane's 80.
pub const ROUTE_PRIORITY: u8 = 70;

/// Runs `rtlat timer` and returns its exit code.
pub fn timer(args: &MeasureArgs) -> anyhow::Result<u8> {
    if args.directions() > 1 {
        bail!(BadOption(
            "--round-trip, --sync: a timer has no partner that answers".to_owned()
        ));
    }
    if args.fork.is_some() {
        bail!(BadOption("-f: a timer has no second process".to_owned()));
    }
    let conditions = Conditions::of(args)?;
    single(args, Roles::One, 0, conditions, &mut |_, _| Ok(Work::Timer))
}

/// `rtlat mq` and the other mechanisms.
pub fn raw(kind: Kind, args: &MeasureArgs) -> anyhow::Result<u8> {
    if let (Kind::Mq, Some(seconds)) =
        (kind, args.fork.as_deref().filter(|value| !value.is_empty()))
    {
        bail!(forced_timeout(seconds));
    }
    let is_signaltest = kind == Kind::Signal && args.round_trip && args.interval == 0;
    if is_signaltest && (args.threads != 1 || args.smp) {
        rtd::log::print(format_args!(
            "rtlat: note: -t: each pair of threads sends a signal back and forth, whereas \
             signaltest passes one signal around all threads"
        ));
    }
    let conditions = Conditions::of(args)?;
    let bytes = args.payload_bytes()?;
    single(args, Roles::Two, 0, conditions, &mut |number, _| {
        args.work(|direction| mech::of(kind, bytes, args.directions() * number + direction))
    })
}

/// `rtlat route`.
#[derive(clap::Args, Clone, Debug)]
pub struct RouteArgs {
    /// Measure a route of this kind, in a daemon that is started for it
    #[arg(value_enum, conflicts_with = "from")]
    path: Option<RoutePath>,
    /// Send into this endpoint of a running daemon; rtlat registers as the process that owns it
    #[arg(long, value_name = "ENDPOINT", requires = "to")]
    from: Option<String>,
    /// Receive from this endpoint of the same daemon; rtlat registers as the process that owns it
    #[arg(long, value_name = "ENDPOINT", requires = "from")]
    to: Option<String>,
    /// Instance of the running daemon: `name` in the [daemon] section of its configuration
    /// [default: the only one that runs]
    #[arg(long, env = "RTD_INSTANCE")]
    instance: Option<String>,
    #[command(flatten)]
    lane: LaneArgs,
    #[command(flatten)]
    measure: MeasureArgs,
}

/// Measures a route, of a daemon of its own or of a running one.
pub fn route(args: &RouteArgs) -> anyhow::Result<u8> {
    let mut conditions = Conditions::of(&args.measure)?;
    let bytes = args.measure.payload_bytes()?;
    if let (Some(from), Some(to)) = (&args.from, &args.to) {
        if args.measure.directions() > 1 || args.measure.smp || args.measure.threads != 1 {
            let slip = "--round-trip, --sync, -S and -t: through a running daemon one pair is measured, one way";
            bail!(BadOption(slip.to_owned()));
        }
        let instance = args
            .instance
            .clone()
            .map_or_else(rtd::ctl::page::default_instance, Ok)?;
        return single(
            &args.measure,
            Roles::Two,
            ROUTE_PRIORITY,
            conditions,
            &mut |_, _| {
                Ok(Work::OneWay(Box::new(find(
                    &instance,
                    from,
                    to,
                    args.measure.size.map(|_| bytes),
                )?)))
            },
        );
    }
    let Some(path) = args.path else {
        // `-f lane` has taken it for the value of -f.
        let taken = args
            .measure
            .fork
            .as_deref()
            .filter(|value| !value.is_empty());
        let taken = taken.map_or_else(String::new, |word| format!("; write {word} in front of -f"));
        let paths = "mq-mq, mq-signal, signal-signal, lane, direct, or --from and --to";
        bail!(BadOption(format!("<PATH> is missing: {paths}{taken}")));
    };
    let places = args.measure.places(Roles::Two, ROUTE_PRIORITY)?;
    let directions = args.measure.directions();
    let routes = (0..places.len() * directions)
        .map(|number| OwnRoute::new(path, number, bytes))
        .collect::<anyhow::Result<Vec<_>>>()?;
    conditions
        .daemons
        .push(start(&args.lane, &places, &routes)?);
    single(
        &args.measure,
        Roles::Two,
        ROUTE_PRIORITY,
        conditions,
        &mut |number, daemon| {
            let daemon = daemon.context("a route without a daemon")?;
            args.measure.work(|direction| {
                Ok(
                    Box::new(routes[directions * number + direction].mechanism(daemon)?)
                        as Box<dyn Mechanism>,
                )
            })
        },
    )
}

/// A daemon with these routes, its lane where the first sender runs.
pub fn start(lane: &LaneArgs, places: &[Place], routes: &[OwnRoute]) -> anyhow::Result<OwnDaemon> {
    let given = given_cpus()?;
    let cpu = lane
        .lane_cpu
        .or_else(|| places.first()?.sender.cpu)
        .or_else(|| given.last().copied());
    let (instance, socket) = own::names("rtlat");
    let text = config(
        &instance,
        &socket,
        lane,
        cpu.context("no CPU is allowed")?,
        routes,
    );
    let queues = routes
        .iter()
        .map(|route| route.queues(&instance))
        .collect::<anyhow::Result<Vec<_>>>()?;
    OwnDaemon::start(&text, &instance, socket, queues.concat())
}
