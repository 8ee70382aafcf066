//! The demo's configuration, embedded. The same grammar as any deployment's.

/// Names that depend on who runs the demo, so that two users do not meet.
#[derive(Clone, Debug)]
pub struct Setup {
    pub instance: String,
    /// Path of the control socket.
    pub socket: String,
    /// CPU of all lanes.
    pub cpu: usize,
}

impl Setup {
    /// The configuration's text.
    pub fn toml(&self) -> String {
        let Setup {
            instance,
            socket,
            cpu,
        } = self;
        format!(
            r#"# A machine with an e-stop button, a controller, a drive and a logger.
[daemon]
name = "{instance}"
socket = "{socket}"
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
overflow = "block:100ms" # the flood waits in the queue, and none of it is lost

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

# The button calls only sigqueue(3): SIGRTMIN+1 to rtd, the press time as its value.
[[endpoint]]
name = "button.press"
kind = "signal"
owner = "button"
signal = "SIGRTMIN+1"

# The others link rtcore: their messages are in shared memory, the press included.
[[endpoint]]
name = "drive.stop"
kind = "lane"
owner = "drive"
msgsize = 64

[[endpoint]]
name = "controller.cmd"
kind = "lane"
owner = "controller"
msgsize = 64

[[endpoint]]
name = "drive.cmd"
kind = "lane"
owner = "drive"
msgsize = 64

[[endpoint]]
name = "sensors.data"
kind = "lane"
owner = "sensors"
maxmsg = 256
msgsize = 64

[[endpoint]]
name = "logger.data"
kind = "lane"
owner = "logger"
maxmsg = 256
msgsize = 64

[[route]]
name = "estop"
from = "button.press"
to = ["drive.stop"]
lane = "estop"
accept_claimed = true # sigqueue(3) lets any sender write any pid; rtd requires the owner's

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
