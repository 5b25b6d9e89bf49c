//! The network of a run: one proxy between each client and each server.

#[path = "../../tests/support/proxy.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]
mod proxy;

pub(crate) use self::proxy::{Cut, Proxy, Treatment, Way};
use crate::job::Ways;

/// The addresses of the servers themselves, not of their proxies.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) singles: Vec<String>,
    pub(crate) members: Vec<String>,
    pub(crate) signals: String,
}

/// The proxies of all clients.
pub(crate) struct Network {
    /// For each client, in this order: the proxies of the standalone servers for locks, of the cluster's members, and
    /// of the server for signals.
    clients: Vec<Vec<Proxy>>,
    singles: usize,
    members: usize,
}

impl Network {
    pub(crate) async fn start(clients: usize, addresses: &Addresses) -> Self {
        let mut all = Vec::new();
        for _ in 0..clients {
            let mut ways = Vec::new();
            let servers = addresses.singles.iter().chain(&addresses.members);
            for server in servers.chain([&addresses.signals]) {
                ways.push(Proxy::start(server).await);
            }
            all.push(ways);
        }
        Self {
            clients: all,
            singles: addresses.singles.len(),
            members: addresses.members.len(),
        }
    }

    pub(crate) fn ways_of(&self, client: usize) -> Ways {
        let addresses: Vec<String> = self.clients[client].iter().map(|proxy| proxy.address.clone()).collect();
        let (singles, rest) = addresses.split_at(self.singles);
        let (members, signals) = rest.split_at(self.members);
        Ways {
            singles: singles.to_vec(),
            members: members.to_vec(),
            signals: signals.concat(),
        }
    }

    /// Returns how many proxies each client has.
    pub(crate) fn each(&self) -> usize {
        self.singles + self.members + 1
    }

    /// Returns the proxy between a client and a server.
    pub(crate) fn way(&self, client: usize, server: usize) -> &Proxy {
        &self.clients[client][server]
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }
}
