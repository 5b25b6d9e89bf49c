//! Two independent servers, the second of which is a standby.

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
    /// The records of the servers that were killed.
    records: Vec<(String, Vec<Event>)>,
    /// The origin of the times in all records.
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

    /// Configures a client of this pair only.
    pub fn builder(&self) -> ClientBuilder {
        of(self.shard())
    }

    pub fn server(&self, which: usize) -> &Server {
        self.servers[which].as_ref().expect("the server is running")
    }

    /// Kills a server; returns the last time at which it was running.
    pub async fn kill(&mut self, which: usize) -> Instant {
        let server = self.servers[which].take().expect("the server is running");
        let was_there = Instant::now();
        let record = server.kill().await;
        self.records.push((self.name(which), record));
        was_there
    }

    /// Starts a new, empty server at the address of a killed one.
    pub async fn restart(&mut self, which: usize) {
        let port = self.addresses[which].rsplit(':').next().unwrap().parse().unwrap();
        let restarted = loop {
            match self.options.clone().port(port).start().await {
                Ok(server) => break server,
                // Another process may have been given the port for a connection.
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

    /// Returns all records, including those of killed servers.
    pub fn records(&self) -> Vec<(String, Vec<Event>)> {
        let mut records = self.records.clone();
        for (which, server) in self.servers.iter().enumerate() {
            records.extend(server.iter().map(|server| (self.name(which), server.events())));
        }
        records
    }

    /// Returns all records as the lines of one record.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (name, events) in self.records() {
            lines.extend(started(&name));
            lines.extend(observed::lines(&name, events, self.start));
        }
        lines
    }

    /// Asserts that no key had two holders at once, at one server or both, and that no waiter was overtaken.
    pub fn judge(&self) -> Counts {
        History::default().with(self.lines()).judge(&Bounds::default()).assert()
    }

    /// Observes the callers of a client, for the same record.
    pub fn observer(&self, process: &str) -> Observer {
        Observer::new(process, self.start)
    }

    /// Returns the name of a server in the record, which is new after each start.
    fn name(&self, which: usize) -> String {
        let name = if which == PRIMARY { "primary" } else { "standby" };
        let before = self.records.iter().filter(|(of, _)| of.starts_with(name)).count();
        format!("{name} {}", before + 1)
    }
}

/// Configures a client of one shard that reconnects soon.
pub fn of(shard: Shard) -> ClientBuilder {
    let pauses = ReconnectPolicy::exponential(Duration::from_millis(5), Duration::from_millis(50));
    Client::builder().shards([shard]).reconnect(pauses)
}

/// A restarted server takes the place of the previous one.
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
