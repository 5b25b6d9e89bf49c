//! Two servers that know nothing of each other, the second of which is in reserve.

use std::time::Duration;

use dflockd_client::server::{Event, EventKind, Server, ServerBuilder};
use dflockd_client::{Client, ClientBuilder, ErrorKind, ReconnectPolicy, Shard};
use tokio::time::Instant;

use super::checker::Checker;

pub const PRIMARY: usize = 0;
pub const STANDBY: usize = 1;

pub struct Pair {
    pub addresses: [String; 2],
    options: ServerBuilder,
    servers: [Option<Server>; 2],
    /// What those that were killed had done.
    records: Vec<(String, Vec<Event>)>,
}

impl Pair {
    pub async fn start() -> Self {
        Self::start_with(Server::builder()).await
    }

    pub async fn start_with(options: ServerBuilder) -> Self {
        let options = options.record_events(true).port(0);
        let start = async || options.clone().start().await.unwrap();
        let servers = [start().await, start().await];
        Self {
            addresses: servers.each_ref().map(|server| server.local_addr().to_string()),
            servers: servers.map(Some),
            options,
            records: Vec::new(),
        }
    }

    pub fn shard(&self) -> Shard {
        Shard::standby(self.addresses.clone())
    }

    /// A client of the pair alone.
    pub fn builder(&self) -> ClientBuilder {
        of(self.shard())
    }

    pub fn server(&self, which: usize) -> &Server {
        self.servers[which].as_ref().expect("it was not killed")
    }

    /// Kills one; the time at which it was there for the last time.
    pub async fn kill(&mut self, which: usize) -> Instant {
        let server = self.servers[which].take().expect("it was not killed before");
        let was_there = Instant::now();
        let record = server.kill().await;
        self.records.push((name(which), record));
        was_there
    }

    /// Starts a server anew, which has forgotten everything, where one was killed.
    pub async fn restart(&mut self, which: usize) {
        let port = self.addresses[which].rsplit(':').next().unwrap().parse().unwrap();
        let restarted = loop {
            match self.options.clone().port(port).start().await {
                Ok(server) => break server,
                // Somebody else may have been given the port for a connection.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Connect, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.servers[which] = Some(restarted);
    }

    /// What a server that runs has granted since it was started.
    pub fn grants(&self, which: usize) -> Vec<Event> {
        let events = self.server(which).events().into_iter();
        events.filter(|event| event.kind == EventKind::Granted).collect()
    }

    /// All records, those of the killed included.
    pub fn records(&self) -> Vec<(String, Vec<Event>)> {
        let mut records = self.records.clone();
        for (which, server) in self.servers.iter().enumerate() {
            records.extend(server.iter().map(|server| (name(which), server.events())));
        }
        records
    }

    /// Has all records judged together.
    pub fn checker(&self) -> Checker {
        let all = self.records().into_iter();
        all.fold(Checker::default(), |checker, (name, events)| {
            checker.record(&name, events)
        })
    }
}

/// A client of one shard that does not wait long before it tries again.
pub fn of(shard: Shard) -> ClientBuilder {
    let pauses = ReconnectPolicy::exponential(Duration::from_millis(5), Duration::from_millis(50));
    Client::builder().shards([shard]).reconnect(pauses)
}

fn name(which: usize) -> String {
    if which == PRIMARY { "primary" } else { "standby" }.to_owned()
}
