//! The limit of open files, which the processes that this one starts inherit.

/// Raises it as far as the system allows: many clients open a connection for each worker.
#[cfg(unix)]
pub(crate) fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it some sides fail at many workers, and say why.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(not(unix))]
pub(crate) fn raise_descriptors() {}
