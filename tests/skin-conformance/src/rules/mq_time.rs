//! Message queues and time.

use super::util::*;
use crate::skin::{Ending, Skin};

rules! {
    receive_times_out: "mq: a bounded receive is ETIMEDOUT, not early",
    send_times_out: "mq: a bounded send to a full queue is ETIMEDOUT, not early",
    in_time: "mq: bounded calls that need not wait do not",
    null_time: "mq: what a null time does",
    wakes_receiver: "mq: a message wakes a receiver that waits",
    wakes_sender: "mq: room wakes a sender that waits",
    ended: "mq: a Linux signal ends a receive",
}

fn receive_times_out(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, false)?;
    let at = in_a_while(skin)?;
    let (got, late) = not_early(skin, A_WHILE, || {
        skin.receive_until(queue.mqd, &mut [0; 8], at)
    })?;
    Ok(format!(
        "{}, {late}",
        refused("mq_timedreceive", got, libc::ETIMEDOUT)?
    ))
}

fn send_times_out(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, false)?;
    queue.send(b"1", 0)?;
    let at = in_a_while(skin)?;
    let (sent, late) = not_early(skin, A_WHILE, || skin.send_until(queue.mqd, b"2", at))?;
    Ok(format!(
        "{}, {late}",
        refused("mq_timedsend", sent, libc::ETIMEDOUT)?
    ))
}

fn in_time(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, false)?;
    let at = in_a_while(skin)?;
    skin.send_until(queue.mqd, b"123", at)?;
    same("length", skin.receive_until(queue.mqd, &mut [0; 8], at)?, 3)?;
    Ok(String::new())
}

fn null_time(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, true)?;
    let [sent, got] = skin.null_times(queue.mqd);
    let wanted = skin.facts().null_time;
    if wanted == 0 {
        same("mq_timedsend, mq_timedreceive", (sent.0, got.0), (0, 1))?;
        return Ok("waits for ever".to_owned());
    }
    let wanted = isize::try_from(wanted).map_err(broken)?;
    same("mq_timedsend's value and errno", sent, (wanted, 0))?;
    same("mq_timedreceive's value and errno", got, (wanted, 0))?;
    Ok(format!("returns {wanted}, errno untouched"))
}

fn wakes_receiver(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, false)?;
    let mqd = queue.mqd;
    std::thread::scope(|scope| {
        let sender = beside(scope, skin, move || {
            skin.sleep(A_WHILE, false)?;
            Ok(skin.send(mqd, b"wake", 1)?)
        });
        let got = queue.receive();
        joined(sender)?;
        same("message and priority", got?, (b"wake".to_vec(), 1))?;
        Ok(String::new())
    })
}

fn wakes_sender(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, false)?;
    queue.send(b"1", 0)?;
    let mqd = queue.mqd;
    std::thread::scope(|scope| {
        let receiver = beside(scope, skin, move || {
            skin.sleep(A_WHILE, false)?;
            Ok(skin.receive(mqd, &mut [0; 8])?)
        });
        let sent = queue.send(b"2", 0);
        joined(receiver)?;
        sent?;
        same("message", queue.receive()?.0, b"2".to_vec())?;
        Ok(String::new())
    })
}

fn ended(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, false)?;
    let mqd = queue.mqd;
    interrupted(skin, move || skin.receive(mqd, &mut [0; 8]))
}
