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
    /// What those that were killed had done.
    records: Vec<(String, Vec<Event>)>,
    /// From when the times of all records count.
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
        self.records.push((self.name(which), record));
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
            records.extend(server.iter().map(|server| (self.name(which), server.events())));
        }
        records
    }

    /// The same as lines of one record.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (name, events) in self.records() {
            lines.extend(started(&name));
            lines.extend(observed::lines(&name, events, self.start));
        }
        lines
    }

    /// No key was held by two at once, at one server or both, and nobody was passed over.
    pub fn judge(&self) -> Counts {
        History::default().with(self.lines()).judge(&Bounds::default()).assert()
    }

    /// Observes what the callers of a client do, for the same record.
    pub fn observer(&self, process: &str) -> Observer {
        Observer::new(process, self.start)
    }

    /// A server's name in the record: another one each time it is started.
    fn name(&self, which: usize) -> String {
        let name = if which == PRIMARY { "primary" } else { "standby" };
        let before = self.records.iter().filter(|(of, _)| of.starts_with(name)).count();
        format!("{name} {}", before + 1)
    }
}

/// A client of one shard that does not wait long before it tries again.
pub fn of(shard: Shard) -> ClientBuilder {
    let pauses = ReconnectPolicy::exponential(Duration::from_millis(5), Duration::from_millis(50));
    Client::builder().shards([shard]).reconnect(pauses)
}

/// A server that was started again takes the place of the one before.
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
