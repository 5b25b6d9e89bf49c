//! Sockets in the file system.

pub(crate) use tokio::net::UnixStream;
