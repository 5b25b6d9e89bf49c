//! `auth`: the auth token, and whether the server answers at all.

use dflockd_client::protocol::functions::{auth, ping, renew};
use dflockd_client::{Error, ErrorKind, Key, Token, Ttl};

use super::cluster::Kind;
use super::report::{Check, Finding};
use super::way::{Connection, Way, hung_up};
use crate::exit::Exit;
use crate::failure::Failure;

/// A key that no client locks.
const NO_KEY: &str = "dflock-doctor-nothing";

/// A token that belongs to no lease.
const NO_TOKEN: &str = "00000000000000000000000000000000";

/// Presents the auth token, if there is one, and sends a first request. A member of a cluster gets a `ping`, which needs
/// no agreement of the members. Another server gets a renewal, which all releases answer.
pub(super) async fn greet(connection: &mut Connection, way: &Way, kind: Kind) -> Result<Finding, Failure> {
    if let Some(token) = &way.token {
        auth(connection, token.clone()).await.map_err(unanswered)?;
    }
    match kind {
        Kind::Cluster => match ping(connection).await {
            Err(error) if !matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Refused) => {
                return Err(unanswered(error));
            }
            _ => {}
        },
        Kind::Single | Kind::Standby => {
            serves_leases(connection).await?;
        }
    }
    let what = match way.token {
        Some(_) => "the auth token is accepted",
        None => "the server requires no auth token",
    };
    let has_auth_token = way.token.is_some();
    let finding = match has_auth_token && way.is_exposed() {
        false => Finding::ok(Check::Auth, what),
        true => Finding::warn(
            Check::Auth,
            format!("{what}, and it crosses the network unencrypted"),
            "let the server serve TLS, and set tls=true here: others can read the auth token on its way",
        ),
    };
    Ok(finding.fact("has_auth_token", has_auth_token))
}

fn unanswered(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Disconnected => hung_up(&error),
        _ => Failure::from(error),
    }
}

/// Renews a lease that does not exist; all releases answer this request. Returns whether the server serves leases: a
/// member of a cluster that does not lead serves none.
///
/// # Errors
///
/// Every error, except that the lease does not exist or that this member does not lead.
pub(super) async fn serves_leases(connection: &mut Connection) -> Result<bool, Failure> {
    renew_nothing(connection)
        .await
        .unwrap_or_else(|error| Err(unanswered(error)))
}

/// Returns whether the connection has ended: then a request gets no answer. The request is a `ping` if the server
/// knows it.
pub(super) async fn has_ended(connection: &mut Connection, knows_ping: bool) -> Result<bool, Failure> {
    let answered = match knows_ping {
        true => ping(connection).await,
        false => renew_nothing(connection).await.map(drop),
    };
    match answered {
        Err(error) if error.kind() == ErrorKind::Disconnected => Ok(true),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(false),
    }
}

/// Renews a lease that does not exist. The outer error is one of the connection or of the protocol.
async fn renew_nothing(connection: &mut Connection) -> Result<Result<bool, Failure>, Error> {
    let (key, token) = (Key::new(NO_KEY)?, Token::new(NO_TOKEN)?);
    match renew(connection, &key, &token, Ttl::from_secs(1)).await {
        Ok(_) => Ok(Err(Failure::new(
            Exit::REFUSED,
            "the peer is not a dflockd server: it renewed a lease that does not exist",
        )
        .remedy("see that the address and the port are those of a dflockd server"))),
        Err(error) => match error.kind() {
            ErrorKind::NotHeld | ErrorKind::LeaseExpired => Ok(Ok(true)),
            ErrorKind::NotLeader => Ok(Ok(false)),
            _ => Err(error),
        },
    }
}
