//! Replaces `secure` in a build without TLS. Settings that ask for TLS are refused before this code is reached.

use dflockd_client::{ClientOptions, Endpoint};

use super::report::{Check, Finding};
use super::stream::Stream;
use crate::failure::Failure;

#[derive(Clone)]
pub(super) struct Secure;

/// The result of a handshake.
pub(super) struct Secured {
    pub(super) stream: Box<dyn Stream>,
    pub(super) finding: Finding,
}

impl Secure {
    pub(super) fn of(_: &ClientOptions) -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "with TLS it depends on the settings")]
    pub(super) fn is_encrypted(&self) -> bool {
        false
    }

    /// Leaves the stream as it is.
    pub(super) async fn handshake(&self, stream: Box<dyn Stream>, _: &Endpoint) -> Result<Secured, Failure> {
        let finding = Finding::skip(Check::Tls, "this dflock was built without TLS");
        Ok(Secured { stream, finding })
    }
}
