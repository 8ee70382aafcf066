//! The kernel's own answers against what this module says they will be.

use super::*;
use nix::errno::Errno;
use nix::mqueue::{MQ_OFlag, MqAttr, mq_close, mq_open, mq_unlink};
use nix::sys::resource::setrlimit;
use nix::sys::stat::Mode;

#[test]
fn limits_are_read_and_unlimited_is_not_a_number() {
    for kind in [Kind::MsgQueue, Kind::MemLock, Kind::SigPending, Kind::RtPrio, Kind::OpenFiles] {
        let limit = get(kind).unwrap();
        assert!(limit.hard.is_none() || limit.soft.is_some(), "{kind:?}: soft above hard");
        assert!(limit.admits(0));
    }
    assert!(Limit { soft: None, hard: None }.admits(u64::MAX));
    assert!(!Limit { soft: Some(5), hard: None }.admits(6));
}

#[test]
fn the_formula_is_the_manuals() {
    // getrlimit(2), since Linux 3.5: 48 bytes a message and 48 a priority on a 64-bit machine.
    if size_of::<usize>() == 8 {
        assert_eq!(mq_bytes(10, 8192), 10 * 8192 + 10 * 48 + 10 * 48);
        assert_eq!(mq_bytes(65_536, 1), 65_536 + 65_536 * 48 + 32_768 * 48);
    }
    assert_eq!(mq_bytes(u64::MAX, u64::MAX), u64::MAX);
}

/// Creates a queue, or says why not. The name is removed at once.
fn create(name: &str, maxmsg: i64, msgsize: i64) -> Result<nix::mqueue::MqdT, Errno> {
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR | MQ_OFlag::O_CLOEXEC;
    let attributes = MqAttr::new(0, maxmsg, msgsize, 0);
    let queue = mq_open(name, flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&attributes))?;
    let _ = mq_unlink(name);
    Ok(queue)
}

/// The limit is put exactly at, and one byte under, what the formula says, until the user's other
/// queues (which count too) are found not to matter.
///
/// The limit is the process's: the test runs itself again in a child of its own so that no other test
/// in this process meets the lowered limit.
#[test]
fn the_kernel_refuses_at_the_byte_the_formula_names() {
    const CHILD: &str = "RTCORE_TEST_MQ_BYTES_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return compare_with_kernel();
    }
    let this = std::env::current_exe().unwrap();
    let run = std::process::Command::new(this)
        .args(["--exact", "sys::limits::tests::the_kernel_refuses_at_the_byte_the_formula_names"])
        .args(["--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&run.stdout));
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

fn compare_with_kernel() {
    let (_, hard) = getrlimit(Resource::RLIMIT_MSGQUEUE).unwrap();
    let name = format!("/rtcore-bytes-{}", std::process::id());
    for (maxmsg, msgsize) in [(1_u8, 1_u16), (10, 8192), (10, 100), (7, 333)] {
        let bytes = mq_bytes(u64::from(maxmsg), u64::from(msgsize));
        let mut verdicts = Vec::new();
        for (limit, fits) in [(bytes - 1, false), (bytes, true)] {
            if limit > hard {
                println!("skipped: needs RLIMIT_MSGQUEUE of {limit}, the hard limit is {hard}");
                return;
            }
            setrlimit(Resource::RLIMIT_MSGQUEUE, limit, hard).unwrap();
            match create(&name, i64::from(maxmsg), i64::from(msgsize)) {
                Ok(queue) => {
                    mq_close(queue).unwrap();
                    verdicts.push((fits, true));
                }
                Err(Errno::EMFILE) => verdicts.push((fits, false)),
                Err(e @ (Errno::ENOSYS | Errno::ENOSPC | Errno::EINVAL)) => {
                    println!("skipped: needs mq_open of {maxmsg} x {msgsize}: {e}");
                    return;
                }
                Err(e) => panic!("mq_open: {e}"),
            }
        }
        if verdicts == [(false, false), (true, false)] {
            println!("skipped: needs a user without other message queues (the limit counts all of them)");
            return;
        }
        assert_eq!(verdicts, [(false, false), (true, true)], "{maxmsg} x {msgsize} = {bytes}");
    }
}

#[test]
fn a_queue_tells_its_size_and_a_missing_one_is_none() {
    let name = format!("/rtcore-size-{}", std::process::id());
    let c_name = CString::new(name.clone()).unwrap();
    assert_eq!(queue(&c_name).unwrap(), None);
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_RDWR | MQ_OFlag::O_CLOEXEC;
    let open = mq_open(name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&MqAttr::new(0, 3, 40, 0)))
        .unwrap();
    assert_eq!(queue(&c_name).unwrap().and_then(|queue| queue.size), Some((3, 40)));
    mq_close(open).unwrap();
    mq_unlink(name.as_str()).unwrap();
}
