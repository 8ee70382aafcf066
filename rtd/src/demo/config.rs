//! The demo's configuration, embedded. The same grammar as any deployment's.

/// Names that depend on who runs the demo, so that two users do not meet.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Instance name; also the prefix of the queues.
    pub instance: String,
    /// Control socket.
    pub socket: String,
    /// CPU of all lanes.
    pub cpu: usize,
}

impl Setup {
    /// Queue of an endpoint.
    pub fn queue(&self, endpoint: &str) -> String {
        format!("/rtd-{}.{endpoint}", self.instance)
    }

    /// All queues, in the order of the endpoints.
    pub fn queues(&self) -> [String; 4] {
        ["cmd.in", "cmd.out", "data.in", "data.out"].map(|endpoint| self.queue(endpoint))
    }

    /// The configuration's text.
    pub fn toml(&self) -> String {
        let Setup { instance, socket, cpu } = self;
        let [cmd_in, cmd_out, data_in, data_out] = self.queues();
        format!(
            r#"# A machine with an e-stop button, a controller, a drive and a logger.
[daemon]
name = "{instance}"
socket = "{socket}"
keep_queues = false
drain = "200ms"

[[lane]]
name = "estop"
priority = 90
cpu = {cpu}
deadline = "1ms"

[[lane]]
name = "control"
priority = 70
cpu = {cpu}
deadline = "2ms"

[[lane]]
name = "telemetry"
priority = 30
cpu = {cpu}
capacity = 64
overflow = "displace-oldest"

[[process]]
name = "button"

[[process]]
name = "controller"

[[process]]
name = "drive"

[[process]]
name = "sensors"

[[process]]
name = "logger"

# The button knows nothing but sigqueue(3): SIGRTMIN+1 to rtd, the press time as its value.
[[endpoint]]
name = "button.press"
kind = "signal"
owner = "button"
signal = "SIGRTMIN+1"

# The drive takes it with sigwaitinfo(2).
[[endpoint]]
name = "drive.stop"
kind = "signal"
owner = "drive"
signal = "SIGRTMIN+2"

[[endpoint]]
name = "controller.cmd"
kind = "mqueue"
owner = "controller"
queue = "{cmd_in}"
maxmsg = 8
msgsize = 64

[[endpoint]]
name = "drive.cmd"
kind = "mqueue"
owner = "drive"
queue = "{cmd_out}"
maxmsg = 8
msgsize = 64

[[endpoint]]
name = "sensors.data"
kind = "mqueue"
owner = "sensors"
queue = "{data_in}"
maxmsg = 10
msgsize = 64

[[endpoint]]
name = "logger.data"
kind = "mqueue"
owner = "logger"
queue = "{data_out}"
maxmsg = 10
msgsize = 64

[[route]]
name = "estop"
from = "button.press"
to = ["drive.stop"]
lane = "estop"
accept_claimed = true # sigqueue's pid is what the sender wrote; the button's own signal number is its pass

[[route]]
name = "command"
from = "controller.cmd"
to = ["drive.cmd"]
lane = "control"
ttl = "5ms"

[[route]]
name = "telemetry"
from = "sensors.data"
to = ["logger.data"]
lane = "telemetry"
"#
        )
    }
}
