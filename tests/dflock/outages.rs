//! Servers that are stopped, killed and replaced, as real processes: the state of the command when its key is granted
//! to the next holder.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::loss::{AT_ONCE, ROUNDS, STUBBORN, TIMES, run, run_with_a_long_grace};
use crate::server_process::ServerProcess;
use crate::support::process::free_port;
use crate::tool::{Group, Running, dflock};

/// The TTL of [`TIMES`].
const TTL: Duration = Duration::from_secs(6);

/// Runs many rounds, [`AT_ONCE`] of them at the same time, each with servers of its own.
fn rounds(round: impl Fn(&str) + Sync) {
    for first in (0..ROUNDS).step_by(AT_ONCE) {
        std::thread::scope(|scope| {
            for number in first..first + AT_ONCE {
                let round = &round;
                scope.spawn(move || round(&format!("key-{number}")));
            }
        });
    }
}

/// Starts another command, which waits for the key up to 60 s.
fn next(servers: &str, key: &str) -> Running {
    let mut command = dflock();
    command
        .args(["run", key, "--servers", servers, "--timeout", "60s"])
        .args(TIMES)
        .args(["--", "true"]);
    Running::start(&mut command)
}

/// The server continues at the moment at which the lease ends, with the next holder in the queue. It grants the key at
/// once, however late the command ends.
#[test]
fn a_server_that_was_stopped_grants_the_key_when_the_command_is_dead() {
    rounds(|key| {
        let mut server = ServerProcess::start(0, None);
        let mut holder = run(&server.address, key, STUBBORN);
        server.watch(key, Group::read(&holder.line()));
        let mut next = next(&server.address, key);
        server.event(&format!("queued {key}"));
        let (renewed, _) = server.event(&format!("renewed {key}"));
        server.signal(Signal::STOP);
        std::thread::sleep((renewed + TTL).saturating_duration_since(Instant::now()));
        server.signal(Signal::CONT);
        assert_eq!(server.event(&format!("granted {key} ")).1, "[]");
        assert_eq!(holder.code(), 79);
        let said = holder.errors();
        assert!(
            said.contains("was lost, and the command was stopped: it could not be renewed in time"),
            "{said}"
        );
        assert_eq!(next.code(), 0, "{}", next.errors());
    });
}

/// A server that starts again knows no leases, and grants the key to the first client that asks. No client can promise
/// that the command is dead by then. But `dflock` kills it at once and without grace, and ends only when it is dead.
fn replaced(by: Signal, reason: &str) {
    let late = AtomicUsize::new(0);
    rounds(|key| {
        let port = free_port();
        let mut server = ServerProcess::start(port, None);
        let mut holder = run_with_a_long_grace(&server.address, key);
        let group = Group::read(&holder.line());
        server.signal(by);
        server.wait();
        let server = ServerProcess::start(port, Some((key, group)));
        let mut next = next(&server.address, key);
        if server.event(&format!("granted {key} ")).1 != "[]" {
            late.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(holder.code(), 79);
        assert!(group.alive().is_empty());
        assert_eq!(holder.rest(), "", "it was asked to end first");
        let said = holder.errors();
        assert!(said.contains(reason), "{said}");
        assert_eq!(next.code(), 0, "{}", next.errors());
    });
    println!("alive at the grant of the new server: {late:?} of {ROUNDS}");
}

#[test]
fn a_server_that_is_killed_and_started_anew_ends_the_command_without_its_grace() {
    replaced(Signal::KILL, "the connection that owned it was lost");
}

#[test]
fn a_server_that_is_shut_down_and_replaced_ends_the_command_without_its_grace() {
    replaced(Signal::TERM, "was lost, and the command was stopped");
}

/// No client uses the standby during the takeover delay, which is longer than the lease.
#[test]
fn a_standby_grants_the_key_of_a_killed_server_when_the_command_is_dead() {
    rounds(|key| {
        let server = ServerProcess::start(0, None);
        let mut standby = ServerProcess::start(0, None);
        let both = format!("{};{}", server.address, standby.address);
        let mut holder = run(&both, key, STUBBORN);
        standby.watch(key, Group::read(&holder.line()));
        server.signal(Signal::KILL);
        let mut next = next(&both, key);
        assert_eq!(standby.event(&format!("granted {key} ")).1, "[]");
        assert_eq!(holder.code(), 79);
        let said = holder.errors();
        assert!(said.contains("the connection that owned it was lost"), "{said}");
        assert_eq!(next.code(), 0, "{}", next.errors());
    });
}
