//! The runtime on which the tasks of a client run.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};
use crate::unwind::catch;

/// Returns the current runtime, on which `what` will run. If `opens_sockets`, the runtime must have I/O enabled.
///
/// # Errors
///
/// `InvalidInput` if there is no runtime, or if it lacks timers or the I/O that is needed: without this check, each
/// task would panic. tokio reports a missing driver only by a panic, which this function catches.
pub(crate) fn current(what: &str, opens_sockets: bool) -> Result<Handle> {
    let Ok(runtime) = Handle::try_current() else {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "{what} needs a tokio runtime: create it inside a runtime (`#[tokio::main]`, or `runtime.enter()`)"
            ),
        ));
    };
    let missing = match (has_timers(), !opens_sockets || has_sockets()) {
        (true, true) => return Ok(runtime),
        (false, true) => "timers: build it with `enable_time`, or `enable_all`",
        (true, false) => "sockets: build it with `enable_io`, or `enable_all`",
        (false, false) => "timers and sockets: build it with `enable_all`",
    };
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("{what} needs a tokio runtime with {missing}"),
    ))
}

fn has_timers() -> bool {
    catch(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok()
}

/// Only a panic means that I/O is missing. An error of the system says nothing about the runtime.
#[cfg(unix)]
fn has_sockets() -> bool {
    catch(|| drop(tokio::net::UnixDatagram::unbound())).is_ok()
}

/// Not checked on these systems. Without I/O, the first attempt to connect fails.
#[cfg(not(unix))]
fn has_sockets() -> bool {
    true
}
