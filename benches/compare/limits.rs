//! The limit of open files, which child processes inherit.

/// Raises the limit of open files to the highest value that the system allows this process. Some sides need many files,
/// because their clients open one connection for each worker.
#[cfg(unix)]
pub(crate) fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If this fails, some sides fail with many workers. Their errors say why.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(not(unix))]
pub(crate) fn raise_descriptors() {}
