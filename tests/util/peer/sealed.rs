//! A sealed thread that sends to itself: what it allocates is counted.

use super::super::order::{Answer, Sealed};
use super::receive::give_up_ns;
use rtcore::client::{Inbox, Incoming, Sender};
use rtcore::seal;
use rtcore::sys::clock::monotonic_ns;

/// That the count counts.
pub fn leak() -> u64 {
    let before = seal::breaches();
    seal::seal();
    drop(std::hint::black_box(Box::new(1)));
    seal::unseal();
    seal::breaches() - before
}

/// Sends from one end and receives at the other in every way there is.
pub fn there_and_back(
    sender: &mut Sender,
    inbox: &mut Inbox,
    count: u64,
) -> anyhow::Result<Answer> {
    let before = seal::breaches();
    let mut came = 0;
    seal::seal();
    let done = ping(sender, inbox, count, &mut came);
    seal::unseal();
    done.map_err(|e| anyhow::anyhow!("{e}"))?;
    let breaches = seal::breaches() - before;
    Ok(Answer::Sealed(Sealed { breaches, came }))
}

/// One message after the other, each in another way; the error is static, for nothing here may
/// allocate.
fn ping(
    sender: &mut Sender,
    inbox: &mut Inbox,
    count: u64,
    came: &mut u64,
) -> Result<(), &'static str> {
    for n in 0..count {
        let sent = match n % 5 {
            0 => sender.try_send(&n.to_ne_bytes()),
            1 => sender.send_at(monotonic_ns(), &n.to_ne_bytes()),
            2 => sender.send_value(&n),
            3 => sender.loan(8).and_then(|mut loan| {
                loan.copy_from_slice(&n.to_ne_bytes());
                loan.commit()
            }),
            _ => {
                let bytes = n.to_ne_bytes();
                let batch = sender.send_batch([&bytes[..]]);
                batch.error.map_or(Ok(batch.sequence), Err)
            }
        };
        sent.map_err(|_| "not sent")?;
        loop {
            let got = match n % 3 {
                0 => inbox.recv().map(Some),
                1 => inbox.recv_deadline(give_up_ns()),
                _ => inbox.try_recv(),
            };
            match got.map_err(|_| "not received")? {
                Some(Incoming::Message(message)) if message.value() == Some(n) => break,
                Some(Incoming::Message(_)) => return Err("another one came"),
                Some(Incoming::Event(_)) => {}
                None if n % 3 == 1 => return Err("nothing came"),
                None => std::thread::yield_now(),
            }
        }
        *came += 1;
    }
    Ok(())
}
