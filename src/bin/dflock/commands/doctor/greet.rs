//! `auth`: the secret, and whether the server answers at all. A member of a cluster shows here whether it leads.

use dflockd_client::protocol::functions::{auth, renew};
use dflockd_client::{Error, ErrorKind, Key, Token, Ttl};

use super::report::{Check, Finding};
use super::way::{Connection, Way, hung_up};
use crate::failure::Failure;

/// A key that no client locks.
const NO_KEY: &str = "dflock-doctor-nothing";

/// A token of no lease.
const NO_TOKEN: &str = "00000000000000000000000000000000";

/// Presents the secret, if there is one, and asks a first question. Returns whether the server serves leases: a member of a cluster that
/// does not lead serves none.
pub(super) async fn greet(connection: &mut Connection, way: &Way) -> Result<(Finding, bool), Failure> {
    if let Some(token) = &way.token {
        auth(connection, token.clone()).await.map_err(unanswered)?;
    }
    let serves = serves_leases(connection).await.map_err(unanswered)?;
    let what = match way.token {
        Some(_) => "the secret is accepted",
        None => "the server asks for no secret",
    };
    let finding = Finding::ok(Check::Auth, what).fact("secret", way.token.is_some());
    Ok((finding, serves))
}

fn unanswered(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Disconnected => hung_up(&error),
        _ => Failure::from(error),
    }
}

/// Renews a lease that does not exist, which all releases answer.
///
/// # Errors
///
/// Any but those that say that there is no such lease, or that this member does not lead.
pub(super) async fn serves_leases(connection: &mut Connection) -> Result<bool, Error> {
    let (key, token) = (Key::new(NO_KEY)?, Token::new(NO_TOKEN)?);
    match renew(connection, &key, &token, Ttl::from_secs(1)).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::NotHeld | ErrorKind::LeaseExpired => Ok(true),
            ErrorKind::NotLeader => Ok(false),
            _ => Err(error),
        },
    }
}
