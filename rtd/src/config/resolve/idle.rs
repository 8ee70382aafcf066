//! `[daemon] cpu_dma_latency`.

use super::Context;
use crate::plan::DmaLatency;
use rtcore::sys::idle::DEVICE;

/// The requested value, and a warning if this process cannot set it.
pub fn resolve(cx: &mut Context<'_, '_, '_>) -> DmaLatency {
    let Some(at) = cx.config.daemon.cpu_dma_latency.at() else {
        return DmaLatency::Unset;
    };
    let Err(why) = &cx.machine.cpu_dma_latency else {
        return DmaLatency::HeldAtUs(i32::try_from(at.value.0).unwrap_or(i32::MAX));
    };
    let message = format!(
        "uid {} cannot open {DEVICE} for writing ({why}): it is not held at {} us, and waking an idle CPU adds to every \
         latency",
        cx.machine.uid, at.value.0
    );
    let fix = "start rtd as root with user = in [daemon]: rtd opens the device before it becomes that user\n\
               a udev rule: KERNEL==\"cpu_dma_latency\", GROUP=\"rtd\", MODE=\"0660\"\n\
               the systemd unit: configs/systemd/rtd-idle.conf (PrivateDevices=no, DeviceAllow=/dev/cpu_dma_latency rw)\n\
               a container: --device /dev/cpu_dma_latency";
    cx.report.warning(&at.place, message, fix);
    DmaLatency::Refused
}
