//! Message queues.

use super::util::*;
use crate::skin::{Attributes, Ending, Skin};

rules! {
    in_order: "mq: highest priority first, first in first out inside one",
    full: "mq: a full queue opened with O_NONBLOCK is EAGAIN",
    empty: "mq: an empty one is EAGAIN",
    too_long: "mq: a message longer than the queue's is EMSGSIZE",
    too_short: "mq: a buffer shorter than the queue's messages is EMSGSIZE",
    zero_bytes: "mq: a message of no bytes arrives",
    attributes: "mq: size and fill can be read",
    exists: "mq: O_EXCL on a name that is there is EEXIST",
    absent: "mq: a name that is not there, or no more, is ENOENT",
    long_name: "mq: a name that is too long is refused",
    closed: "mq: a closed descriptor is EBADF",
    survives: "mq: messages outlive the descriptor that they were sent through",
    polls: "mq: whether a descriptor can be polled",
    apart: "mq: whether the names are Linux's",
    notify: "mq: mq_notify signals once, when an empty queue gets a message",
}

fn in_order(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 8, 64, true)?;
    for (message, priority) in [(b"a1", 1), (b"c1", 9), (b"a2", 1), (b"b1", 5), (b"c2", 9)] {
        queue.send(message, priority)?;
    }
    for (message, priority) in [(b"c1", 9), (b"c2", 9), (b"b1", 5), (b"a1", 1), (b"a2", 1)] {
        same(
            "message and priority",
            queue.receive()?,
            (message.to_vec(), priority),
        )?;
    }
    Ok(String::new())
}

fn full(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 2, 8, true)?;
    queue.send(b"1", 0)?;
    queue.send(b"2", 0)?;
    refused("the third of two", queue.send(b"3", 31), libc::EAGAIN)
}

fn empty(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 2, 8, true)?;
    refused("mq_receive", queue.receive(), libc::EAGAIN)
}

fn too_long(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 2, 8, true)?;
    queue.send(&[0; 8], 0)?;
    refused(
        "nine bytes of eight",
        queue.send(&[0; 9], 0),
        libc::EMSGSIZE,
    )
}

fn too_short(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 2, 8, true)?;
    queue.send(b"1", 0)?;
    let refusal = refused(
        "seven bytes for eight",
        skin.receive(queue.mqd, &mut [0; 7]),
        libc::EMSGSIZE,
    )?;
    queue.receive()?;
    Ok(refusal)
}

fn zero_bytes(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 2, 8, true)?;
    queue.send(b"", 3)?;
    same("message and priority", queue.receive()?, (Vec::new(), 3))?;
    Ok(String::new())
}

fn attributes(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 5, 48, true)?;
    queue.send(b"1", 0)?;
    same(
        "attributes",
        skin.attributes(queue.mqd)?,
        Attributes {
            maxmsg: 5,
            msgsize: 48,
            curmsgs: 1,
        },
    )?;
    Ok(String::new())
}

fn exists(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, true)?;
    refused(
        "a second one of the name",
        skin.create_queue(&queue.name, 1, 8, true),
        libc::EEXIST,
    )
}

fn absent(skin: &dyn Skin) -> Ending {
    refused(
        "mq_open",
        skin.open_queue(&fresh_name(), true),
        libc::ENOENT,
    )?;
    let queue = Queue::create(skin, 1, 8, true)?;
    skin.unlink_queue(&queue.name)?;
    refused(
        "mq_open after mq_unlink",
        skin.open_queue(&queue.name, true),
        libc::ENOENT,
    )?;
    refused(
        "mq_unlink after mq_unlink",
        skin.unlink_queue(&queue.name),
        libc::ENOENT,
    )
}

fn long_name(skin: &dyn Skin) -> Ending {
    let name = std::ffi::CString::new(format!("/{}", "n".repeat(300))).map_err(broken)?;
    let refusal = refused(
        "mq_open",
        skin.create_queue(&name, 1, 8, true),
        libc::ENAMETOOLONG,
    );
    let _ = skin.unlink_queue(&name);
    refusal
}

fn closed(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, true)?;
    let second = skin.open_queue(&queue.name, true)?;
    skin.close_queue(second)?;
    refused("mq_send", skin.send(second, b"1", 0), libc::EBADF)
}

fn survives(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, true)?;
    let second = skin.open_queue(&queue.name, true)?;
    skin.send(second, b"kept", 2)?;
    skin.close_queue(second)?;
    same(
        "message and priority",
        queue.receive()?,
        (b"kept".to_vec(), 2),
    )?;
    Ok(String::new())
}

fn polls(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, true)?;
    queue.send(b"1", 0)?;
    let mut asked = libc::pollfd {
        fd: queue.mqd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, ours to write; it does not wait.
    unsafe { libc::poll(&raw mut asked, 1, 0) };
    let wanted = if skin.facts().pollable_mq {
        libc::POLLIN
    } else {
        libc::POLLERR
    };
    if asked.revents & wanted == 0 {
        return Err(broken(format!(
            "revents {:#x} for a queue that is not empty, not {wanted:#x}",
            asked.revents
        )));
    }
    Ok(if wanted == libc::POLLIN {
        "it can"
    } else {
        "it cannot: POLLERR"
    }
    .to_owned())
}

fn apart(skin: &dyn Skin) -> Ending {
    let queue = Queue::create(skin, 1, 8, true)?;
    same(
        "Linux has it",
        linux_has_queue(&queue.name),
        skin.facts().shared_namespace,
    )?;
    Ok(if skin.facts().shared_namespace {
        "they are"
    } else {
        "they are not"
    }
    .to_owned())
}

fn notify(skin: &dyn Skin) -> Ending {
    if skin.facts().shared_namespace {
        return Err(skipped("here it signals the process, not the thread"));
    }
    let queue = Queue::create(skin, 4, 8, true)?;
    skin.notify(queue.mqd, SECOND)?;
    queue.send(b"1", 0)?;
    queue.send(b"2", 0)?;
    let got = skin.wait_within(&[SECOND], A_WHILE)?;
    same(
        "si_code and value",
        (got.code, got.value),
        (libc::SI_MESGQ, 7),
    )?;
    refused(
        "a second signal",
        skin.wait_within(&[SECOND], std::time::Duration::ZERO),
        libc::EAGAIN,
    )?;
    Ok(String::new())
}
