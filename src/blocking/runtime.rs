//! The runtime that all blocking handles of a process share, and the check whether the current thread may block.
//!
//! The runtime starts at the first use and never ends: a process ends without waiting for it. Its threads renew leases
//! while the callers' threads compute.

use std::cell::Cell;
use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

use super::park;
use super::process::Process;
use crate::error::{Error, ErrorKind, Result};

/// The number of threads that drive connections and renewals. One would be enough. With two, a slow logger or callback
/// on one thread does not stop renewals on the other thread.
const WORKERS: usize = 2;

/// The name of the threads.
const THREAD_NAME: &str = "dflockd-blocking";

struct Shared {
    runtime: Runtime,
    /// The process in which the threads run. After a fork, the child has this value, but no threads.
    process: Process,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

thread_local! {
    static ALLOWED: Cell<bool> = const { Cell::new(false) };
}

/// Blocks this thread until the future that `make` returns is ready. Every blocking call uses this.
///
/// On a thread that must not block, this returns an error and drops `make` without a call.
pub(crate) fn block_on<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output> {
    may_block()?;
    let runtime = runtime()?;
    // The future needs the context for its timers and tasks.
    let _context = runtime.enter();
    Ok(park::block_on(make()))
}

/// Runs `work` inside the runtime, so that it can start background tasks. `work` must not wait.
pub(super) fn enter<T>(work: impl FnOnce() -> T) -> Result<T> {
    let _context = runtime()?.enter();
    Ok(work())
}

/// Runs a future in the background.
pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Result<tokio::task::AbortHandle> {
    Ok(runtime()?.spawn(future).abort_handle())
}

/// Runs `work` and allows blocking calls in it, although this thread belongs to an async runtime.
///
/// Without this function, a blocking call inside a runtime fails with [`ErrorKind::Misuse`], because it would stop the
/// other tasks of its thread, and deadlock if it waits for one of them. The threads of `spawn_blocking` may block, but
/// this crate cannot recognize them. Use this function there. In an async task, a blocking call in `work` blocks the
/// executor.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let address = server.local_addr().to_string();
/// use dflockd_client::blocking::{self, Client};
///
/// let work = move || {
///     let client = Client::builder().servers([address]).connect_blocking()?;
///     client.lock("orders/42")?.acquire()?.release()
/// };
/// tokio::task::spawn_blocking(|| blocking::allow_in_runtime(work)).await??;
/// # Ok(())
/// # }
/// ```
pub fn allow_in_runtime<T>(work: impl FnOnce() -> T) -> T {
    /// Restores the previous value, even if `work` panics.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            // If the thread-local value is destroyed already, there is nothing to restore: blocking is not allowed.
            let _ = ALLOWED.try_with(|allowed| allowed.set(self.0));
        }
    }
    let _before = Before(ALLOWED.try_with(|allowed| allowed.replace(true)).unwrap_or(false));
    work()
}

fn may_block() -> Result<()> {
    match Handle::try_current() {
        Ok(_) if ALLOWED.try_with(Cell::get).unwrap_or(false) => Ok(()),
        Ok(_) => Err(Error::new(
            ErrorKind::Misuse,
            "a blocking call inside an async runtime would stop its other tasks: use the async client there; on a thread \
             that may block (spawn_blocking), wrap the call in dflockd_client::blocking::allow_in_runtime",
        )),
        Err(error) if error.is_thread_local_destroyed() => Err(Error::new(
            ErrorKind::Misuse,
            "this thread is ending: blocking calls are no longer possible, but guards that are dropped are still released",
        )),
        Err(_) => Ok(()),
    }
}

fn runtime() -> Result<&'static Runtime> {
    let shared = match SHARED.get() {
        Some(shared) => shared,
        None => start()?,
    };
    shared.check(Process::current())?;
    Ok(&shared.runtime)
}

/// Two threads may run this at once. The second runtime is then dropped without use.
fn start() -> Result<&'static Shared> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name(THREAD_NAME)
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| not_started().caused_by(error))?;
    let shared = Shared {
        runtime,
        process: Process::current(),
    };
    if let Err(unused) = SHARED.set(shared) {
        unused.runtime.shutdown_background();
    }
    SHARED.get().ok_or_else(not_started)
}

fn not_started() -> Error {
    Error::new(
        ErrorKind::Connect,
        "the background threads of the blocking client cannot be started",
    )
}

impl Shared {
    /// Checks that the background threads run in this process.
    fn check(&self, now: Process) -> Result<()> {
        if now == self.process {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Misuse,
            "this process was forked from a process that used the blocking client: the client's background threads, \
             connections, leases and tickets stayed with the parent; start another program (exec), or fork before the first use",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn a_forked_child_gets_an_error_that_says_so() {
        runtime().unwrap();
        let shared = SHARED.get().unwrap();
        assert!(shared.check(Process::current()).is_ok());
        let error = shared.check(Process::other()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert!(error.to_string().contains("forked"), "{error}");
    }

    #[test]
    fn blocking_inside_a_runtime_is_refused_unless_it_is_declared_allowed() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let error = block_on(|| async { 1 }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert!(error.to_string().contains("allow_in_runtime"), "{error}");
        assert_eq!(allow_in_runtime(|| block_on(|| async { 1 }).ok()), Some(1));
        let panicked = std::panic::catch_unwind(|| allow_in_runtime(|| std::panic::resume_unwind(Box::new(()))));
        assert!(panicked.is_err());
        assert!(
            block_on(|| async { 1 }).is_err(),
            "blocking is allowed only inside allow_in_runtime"
        );
    }

    #[test]
    fn timers_work_on_a_thread_without_a_runtime() {
        let late = block_on(|| tokio::time::timeout(std::time::Duration::from_millis(5), std::future::pending::<()>()));
        assert!(late.unwrap().is_err());
    }

    #[test]
    fn many_threads_that_begin_at_once_share_one_runtime() {
        let start = Arc::new(Barrier::new(16));
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let start = Arc::clone(&start);
                std::thread::spawn(move || {
                    start.wait();
                    block_on(|| async { Handle::current().id() }).unwrap()
                })
            })
            .collect();
        let ids: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]));
    }
}
