//! Compares the kernel's answers with this module's formulas.

use super::*;
use nix::errno::Errno;
use nix::mqueue::{MQ_OFlag, MqAttr, mq_close, mq_open, mq_unlink};
use nix::sys::resource::setrlimit;
use nix::sys::stat::Mode;
use nix::unistd::{Uid, setuid};

#[test]
fn limits_are_read_and_unlimited_is_not_a_number() {
    for kind in [
        Kind::MsgQueue,
        Kind::MemLock,
        Kind::SigPending,
        Kind::RtPrio,
        Kind::OpenFiles,
    ] {
        let limit = get(kind).unwrap();
        assert!(
            limit.hard.is_none() || limit.soft.is_some(),
            "{kind:?}: soft above hard"
        );
        assert!(limit.admits(0));
    }
    assert!(
        Limit {
            soft: None,
            hard: None
        }
        .admits(u64::MAX)
    );
    assert!(
        !Limit {
            soft: Some(5),
            hard: None
        }
        .admits(6)
    );
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

/// Creates a queue, or returns why not. The name is removed at once.
fn create(name: &str, maxmsg: i64, msgsize: i64) -> Result<nix::mqueue::MqdT, Errno> {
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR | MQ_OFlag::O_CLOEXEC;
    let attributes = MqAttr::new(0, maxmsg, msgsize, 0);
    let queue = mq_open(
        name,
        flags,
        Mode::S_IRUSR | Mode::S_IWUSR,
        Some(&attributes),
    )?;
    let _ = mq_unlink(name);
    Ok(queue)
}

/// Sets the limit to the result of the formula, and to one byte less.
///
/// The limit belongs to the process and counts all queues of the user. So the test runs itself
/// again in a child, under a uid that has no other queue.
#[test]
#[ignore = "needs root, to become a user without message queues, and RLIMIT_MSGQUEUE of 90000 or more"]
fn the_kernel_refuses_at_the_byte_the_formula_names() {
    const CHILD: &str = "RTCORE_TEST_MQ_BYTES_CHILD";
    if std::env::var_os(CHILD).is_some() {
        compare_with_kernel();
        println!("compared");
        return;
    }
    let this = std::env::current_exe().unwrap();
    let run = std::process::Command::new(this)
        .args([
            "--exact",
            "sys::limits::tests::the_kernel_refuses_at_the_byte_the_formula_names",
        ])
        .args(["--nocapture", "--ignored"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    );
    assert!(
        run.status.success() && out.contains("compared"),
        "{out}{err}"
    );
}

/// 61190 is given to no user and no service by convention, and other tests use lower numbers.
const UID_WITHOUT_QUEUES: u32 = 61_190;

fn compare_with_kernel() {
    setuid(Uid::from_raw(UID_WITHOUT_QUEUES)).expect("needs root");
    let (_, hard) = getrlimit(Resource::RLIMIT_MSGQUEUE).unwrap();
    let name = format!("/rtcore-bytes-{}", std::process::id());
    for (maxmsg, msgsize) in [(1_u8, 1_u16), (10, 8192), (10, 100), (7, 333)] {
        let bytes = mq_bytes(u64::from(maxmsg), u64::from(msgsize));
        for (limit, fits) in [(bytes - 1, false), (bytes, true)] {
            assert!(
                limit <= hard,
                "needs RLIMIT_MSGQUEUE of {limit}, the hard limit is {hard}"
            );
            setrlimit(Resource::RLIMIT_MSGQUEUE, limit, hard).unwrap();
            let made = create(&name, i64::from(maxmsg), i64::from(msgsize));
            assert_eq!(
                made.is_ok(),
                fits,
                "{maxmsg} x {msgsize} = {bytes} at {limit}: {made:?}"
            );
            match made {
                Ok(queue) => mq_close(queue).unwrap(),
                Err(e) => assert_eq!(e, Errno::EMFILE),
            }
        }
    }
}

#[test]
fn a_queue_tells_its_size_and_a_missing_one_is_none() {
    let name = format!("/rtcore-size-{}", std::process::id());
    let c_name = CString::new(name.clone()).unwrap();
    assert_eq!(queue(&c_name).unwrap(), None);
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_RDWR | MQ_OFlag::O_CLOEXEC;
    let open = mq_open(
        name.as_str(),
        flags,
        Mode::S_IRUSR | Mode::S_IWUSR,
        Some(&MqAttr::new(0, 3, 40, 0)),
    )
    .unwrap();
    assert_eq!(
        queue(&c_name).unwrap().and_then(|queue| queue.size),
        Some((3, 40))
    );
    mq_close(open).unwrap();
    mq_unlink(name.as_str()).unwrap();
}

#[test]
fn reserved_descriptors_need_no_larger_table() {
    let size = || -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        line.unwrap().trim().parse().unwrap()
    };
    let wanted = size() + 1;
    reserve_descriptors(wanted);
    assert!(size() >= wanted, "{} of {wanted}", size());
    // More than the limit is as much as the limit.
    reserve_descriptors(usize::MAX);
    reserve_descriptors(0);
}
