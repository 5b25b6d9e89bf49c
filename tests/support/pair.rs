//! A primary and its standby: two independent servers of one shard.

use std::time::Duration;

use dflockd_client::server::{Event, EventKind, Server, ServerBuilder};
use dflockd_client::{Client, ClientBuilder, ErrorKind, ReconnectPolicy, Shard};
use tokio::time::Instant;

use super::history::History;
use super::history::bounds::Bounds;
use super::history::record::{Line, ServerStarted, What};
use super::history::verdict::Counts;
use super::observed::{self, Observer};

pub const PRIMARY: usize = 0;
pub const STANDBY: usize = 1;

pub struct Pair {
    pub addresses: [String; 2],
    options: ServerBuilder,
    servers: [Option<Server>; 2],
    /// The name and the events of each server that was killed.
    records: Vec<(String, Vec<Event>)>,
    /// The time from which all records count.
    start: Instant,
}

impl Pair {
    pub async fn start() -> Self {
        Self::start_with(Server::builder()).await
    }

    pub async fn start_with(options: ServerBuilder) -> Self {
        let since = Instant::now();
        let options = options.record_events(true).port(0);
        let start = async || options.clone().start().await.unwrap();
        let servers = [start().await, start().await];
        Self {
            addresses: servers.each_ref().map(|server| server.local_addr().to_string()),
            servers: servers.map(Some),
            options,
            records: Vec::new(),
            start: since,
        }
    }

    pub fn shard(&self) -> Shard {
        Shard::standby(self.addresses.clone())
    }

    /// Configures a client for which this pair is the only shard.
    pub fn builder(&self) -> ClientBuilder {
        of(self.shard())
    }

    pub fn server(&self, which: usize) -> &Server {
        self.servers[which].as_ref().expect("the server is running")
    }

    /// Kills a server. Returns the time shortly before the kill.
    pub async fn kill(&mut self, which: usize) -> Instant {
        let server = self.servers[which].take().expect("the server is running");
        let was_there = Instant::now();
        let record = server.kill().await;
        self.records.push((self.name(which), record));
        was_there
    }

    /// Starts a new server, without state, at the address of a killed server.
    pub async fn restart(&mut self, which: usize) {
        let port = self.addresses[which].rsplit(':').next().unwrap().parse().unwrap();
        let restarted = loop {
            match self.options.clone().port(port).start().await {
                Ok(server) => break server,
                // The port may be in use, because the system gave it to a connection of another process.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Connect, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.servers[which] = Some(restarted);
    }

    /// Returns the grants of a running server since its start.
    pub fn grants(&self, which: usize) -> Vec<Event> {
        let events = self.server(which).events().into_iter();
        events.filter(|event| event.kind == EventKind::Granted).collect()
    }

    /// Returns the name and the events of each server, including killed servers.
    pub fn records(&self) -> Vec<(String, Vec<Event>)> {
        let mut records = self.records.clone();
        for (which, server) in self.servers.iter().enumerate() {
            records.extend(server.iter().map(|server| (self.name(which), server.events())));
        }
        records
    }

    /// Returns one record with the lines of all servers.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (name, events) in self.records() {
            lines.extend(started(&name));
            lines.extend(observed::lines(&name, events, self.start));
        }
        lines
    }

    /// Asserts that the lines of both servers keep all rules: for example, no key had too many holders, and no waiter
    /// was overtaken.
    pub fn judge(&self) -> Counts {
        History::default().with(self.lines()).judge(&Bounds::default()).assert()
    }

    /// Returns an observer of a client's callers. Its times count from the same start as the servers' records.
    pub fn observer(&self, process: &str) -> Observer {
        Observer::new(process, self.start)
    }

    /// Returns the name of a running server in the record. A server that is started again has a new name.
    fn name(&self, which: usize) -> String {
        let name = if which == PRIMARY { "primary" } else { "standby" };
        let before = self.records.iter().filter(|(of, _)| of.starts_with(name)).count();
        format!("{name} {}", before + 1)
    }
}

/// Configures a client of one shard that reconnects after short pauses.
pub fn of(shard: Shard) -> ClientBuilder {
    let pauses = ReconnectPolicy::exponential(Duration::from_millis(5), Duration::from_millis(50));
    Client::builder().shards([shard]).reconnect(pauses)
}

/// Returns the `server_started` line of a server. A restarted server succeeds the previous server at the same address.
fn started(name: &str) -> Option<Line> {
    let (which, number) = name.split_once(' ')?;
    let before = number.parse::<u32>().ok()? - 1;
    let started = ServerStarted {
        server: name.into(),
        succeeds: (before > 0).then(|| format!("{which} {before}").as_str().into()),
    };
    let what = What::ServerStarted(started);
    Some(Line { at: 0, what })
}
