//! The limit of open files, which child processes inherit.

/// Raises the limit of open files as far as the system allows: many clients open one connection for each worker.
#[cfg(unix)]
pub(crate) fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If this fails, some sides fail with many workers, and report why.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(not(unix))]
pub(crate) fn raise_descriptors() {}
