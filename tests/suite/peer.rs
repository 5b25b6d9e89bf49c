//! The server that a case runs against.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dflockd_client::server::{Release, Server};
use dflockd_client::{ClientBuilder, Key};

use super::api::{Api, Client};
use super::build;
use super::low::Wire;
use crate::support::raw::{Heard, RawConnection};

const SOON: Duration = Duration::from_secs(10);

/// A feature that some servers lack, or that one of the two clients lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    Semaphores,
    Stats,
    Fences,
    /// A lock and a semaphore may have the same name.
    Namespaces,
    Signals,
    /// Dropping the future of a call ends the call.
    DroppedCalls,
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Semaphores => "semaphores",
            Self::Stats => "stats",
            Self::Fences => "fences",
            Self::Namespaces => "separate namespaces",
            Self::Signals => "signals",
            Self::DroppedCalls => "calls that can be dropped",
        })
    }
}

/// The features of the server.
pub struct Abilities(Vec<Ability>);

impl Abilities {
    /// Probes each feature on its own connection, because some servers close a connection after an unknown command.
    pub async fn probe(factory: &PeerFactory) -> Self {
        let peer = factory.make(Api::Async).await;
        let mut abilities = Vec::new();
        if peer.ask_alone("stats\n_\n_\n").await.starts_with("ok {") {
            abilities.push(Ability::Stats);
        }
        if peer
            .ask_alone(&format!("sl\n{}\n0 1 1\n", peer.key("probe")))
            .await
            .starts_with("ok ")
        {
            abilities.push(Ability::Semaphores);
        }
        let key = peer.key("both");
        let mut connection = RawConnection::open(&peer.address).await;
        connection.send(&format!("l\n{key}\n0 1\nsl\n{key}\n0 2 1\n")).await;
        let mut grants = [connection.hear(SOON).await, connection.hear(SOON).await].into_iter();
        if grants.all(|heard| matches!(heard, Heard::Line(grant) if grant.starts_with("ok "))) {
            abilities.push(Ability::Namespaces);
        }
        // This request removes a subscription that does not exist.
        if peer.ask_alone("unlisten\nprobe\n\n").await == "ok" {
            abilities.push(Ability::Signals);
        }
        let key = peer.key("fence");
        let first = peer.ask_alone(&format!("l\n{key}\n0 1\n")).await;
        let second = peer.ask_alone(&format!("l\n{key}\n5 1\n")).await;
        // If the first halves of the tokens were random, they would satisfy this condition about once in 10^13 runs.
        if let (Some(first), Some(second)) = (fence_of(&first), fence_of(&second)) {
            if second > first && second - first < 1_000_000 {
                abilities.push(Ability::Fences);
            }
        }
        Self(abilities)
    }

    /// Returns whether the feature is available to a case with this client. `DroppedCalls` depends on the client, and
    /// all other features depend on the server.
    pub fn has(&self, ability: Ability, api: Api) -> bool {
        match ability {
            Ability::DroppedCalls => api == Api::Async,
            other => self.0.contains(&other),
        }
    }
}

/// Returns the fence of a grant from the server's answer. Some builds send the fence in a third field. In other builds,
/// the first half of the token is the fence.
pub fn fence_of(answer: &str) -> Option<u64> {
    let mut fields = answer.strip_prefix("ok ")?.split(' ');
    let (token, _ttl, fence) = (fields.next()?, fields.next()?, fields.next());
    match fence {
        Some(fence) => fence.parse().ok(),
        None => u64::from_str_radix(token.get(..16)?, 16).ok(),
    }
}

/// Makes a peer for each case.
#[derive(Clone)]
pub struct PeerFactory {
    /// The release that an embedded server imitates.
    release: Release,
    external: Option<String>,
    read_timeout: Duration,
    next: Arc<AtomicU64>,
}

impl PeerFactory {
    /// Returns whether all cases share one running server.
    pub fn is_external(&self) -> bool {
        self.external.is_some()
    }

    /// Returns a factory whose peers are of this release, if they are embedded.
    pub fn imitating(&self, release: Release) -> Self {
        Self {
            release,
            ..self.clone()
        }
    }

    pub fn from_environment() -> Self {
        let read_timeout = std::env::var("DFLOCKD_TEST_READ_TIMEOUT")
            .ok()
            .map(|secs| secs.parse().unwrap());
        let external = std::env::var("DFLOCKD_TEST_SERVER").ok();
        Self {
            read_timeout: Duration::from_secs(read_timeout.unwrap_or(if external.is_some() { 23 } else { 2 })),
            external,
            release: Release::NEWEST,
            next: first_key(),
        }
    }

    /// Returns a factory whose peers share one running server.
    pub fn of(address: &str, read_timeout: Duration) -> Self {
        Self {
            external: Some(address.to_owned()),
            release: Release::NEWEST,
            read_timeout,
            next: first_key(),
        }
    }

    /// Returns a factory whose peers share one server. The server imitates a build that sends the fence of a grant in a
    /// third field.
    pub async fn of_a_build_with_named_fences(&self) -> Self {
        let server = Server::builder().port(0).max_locks(100_000);
        let server = server.read_timeout(self.read_timeout).start().await.unwrap();
        Self::of(&build::start(server).await, self.read_timeout)
    }

    /// Makes a peer with this client.
    pub async fn make(&self, api: Api) -> Peer {
        let embedded = match self.external {
            Some(_) => None,
            None => {
                let server = Server::builder()
                    .release(self.release)
                    .port(0)
                    .max_locks(100_000)
                    .read_timeout(self.read_timeout);
                Some(server.start().await.unwrap())
            }
        };
        Peer {
            address: match (&self.external, &embedded) {
                (Some(address), _) => address.clone(),
                (None, Some(server)) => server.local_addr().to_string(),
                (None, None) => unreachable!(),
            },
            api,
            embedded,
            read_timeout: self.read_timeout,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// Returns the number of the first key. It depends on the time, so that the keys of this run differ from the keys of
/// earlier runs on the same server.
fn first_key() -> Arc<AtomicU64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Arc::new(AtomicU64::new(now.as_millis() as u64 * 100))
}

pub struct Peer {
    pub api: Api,
    pub address: String,
    /// Set if the case has its own server in this process.
    pub embedded: Option<Server>,
    pub read_timeout: Duration,
    number: u64,
}

impl Peer {
    /// Returns a key that only this case uses.
    pub fn key(&self, name: &str) -> Key {
        Key::new(format!("{name}-{:x}", self.number)).unwrap()
    }

    pub fn builder(&self) -> ClientBuilder {
        // The keepalive interval and the reply timeout are together less than the server's read timeout.
        let part = self.read_timeout / 5;
        dflockd_client::Client::builder()
            .servers([&self.address])
            .server_read_timeout(self.read_timeout)
            .keepalive(part)
            .reply_timeout((part * 3).min(Duration::from_secs(10)))
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.api, self.builder()).await
    }

    pub async fn wire(&self) -> Wire {
        Wire::connect(self.api, &self.address).await
    }

    /// Sends a request on a new connection, returns the answer, and closes the connection.
    pub async fn ask_alone(&self, request: &str) -> String {
        let mut connection = RawConnection::open(&self.address).await;
        connection.send(request).await;
        match connection.hear(SOON).await {
            Heard::Line(line) => line,
            Heard::Closed | Heard::Nothing => String::new(),
        }
    }
}
