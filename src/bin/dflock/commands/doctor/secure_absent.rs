//! Where the command is built without TLS: settings that ask for it are refused before this is reached.

use dflockd_client::{ClientOptions, Endpoint};

use super::report::{Check, Finding};
use super::stream::Stream;
use crate::failure::Failure;

#[derive(Clone)]
pub(super) struct Secure;

/// What a handshake comes to.
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
