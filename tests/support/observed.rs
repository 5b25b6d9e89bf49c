//! Converts the events of embedded servers and the calls of a client's callers to lines of a record.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use dflockd_client::server::{Event, EventKind};
use dflockd_client::{Error, ErrorKind, Key, Lease, LockGuard, LostReason, Result, SemaphorePermit};
use tokio::time::Instant;

use super::history::History;
use super::history::bounds::{Bounds, nanoseconds};
use super::history::record::{
    Acquired, Action, Entry, Invoke, Kind, LetGo, Line, Lost, Name, Outcome, Return, Token, What,
};
use super::history::verdict::Counts;
use super::history::writer::Writer;

/// Returns the lines of a server's events.
pub fn lines(server: &str, events: impl IntoIterator<Item = Event>, start: Instant) -> Vec<Line> {
    let server = Name::from(server);
    let events = events.into_iter();
    events.filter_map(|event| line(&server, &event, start)).collect()
}

/// Judges the record of one server.
pub fn judge(events: Vec<Event>) -> Counts {
    let start = events.first().map_or_else(Instant::now, |first| first.at);
    let history = History::default().with(lines("server", events, start));
    history.judge(&Bounds::default()).assert()
}

/// Returns the line of an event. `None` if a record has no lines for events of this kind.
pub fn line(server: &Name, event: &Event, start: Instant) -> Option<Line> {
    let since_start = |at: Instant| nanoseconds(at.saturating_duration_since(start));
    let entry = Entry {
        server: server.clone(),
        connection: event.connection,
        kind: kind(event.namespace),
        key: Name::from(event.key.as_str()),
        limit: event.limit,
        token: event.token.as_ref().map(token),
        fence: event.fence.map(|fence| fence.0),
        place: event.place,
        ends: event.ends.map(since_start),
    };
    let what = match event.kind {
        EventKind::Queued => What::Queued(entry),
        EventKind::Left => What::Left(entry),
        EventKind::Granted => What::Granted(entry),
        EventKind::Renewed => What::Renewed(entry),
        EventKind::Released => What::Released(entry),
        EventKind::Disconnected => What::Disconnected(entry),
        EventKind::Expired => What::Expired(entry),
        EventKind::Orphaned => What::Orphaned(entry),
        EventKind::Reclaimed => What::Reclaimed(entry),
        EventKind::Forgotten => What::Forgotten(entry),
        EventKind::Collected => What::Collected(entry),
        EventKind::RenewalRefused => What::RenewalRefused(entry),
        _ => return None,
    };
    let at = since_start(event.at);
    Some(Line { at, what })
}

fn kind(kind: dflockd_client::Kind) -> Kind {
    match kind {
        dflockd_client::Kind::Lock => Kind::Lock,
        dflockd_client::Kind::Semaphore => Kind::Semaphore,
    }
}

fn token(token: &dflockd_client::Token) -> Token {
    token.as_str().parse().unwrap()
}

/// Records what the callers of a client process do.
#[derive(Clone)]
pub struct Observer {
    writer: Arc<Writer>,
    process: Name,
    start: Instant,
}

/// A guard or a permit.
pub enum Held {
    Lock(LockGuard),
    /// A permit, and the limit of its semaphore.
    Slot(SemaphorePermit, u32),
}

impl Deref for Held {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        match self {
            Self::Lock(guard) => guard,
            Self::Slot(permit, _) => permit,
        }
    }
}

/// What a caller requests.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub kind: Kind,
    pub key: &'a str,
    pub limit: u32,
    pub timeout: Option<Duration>,
    /// Whether the caller waits for the loss of the lease.
    pub watched: bool,
}

impl<'a> Asked<'a> {
    pub fn lock(key: &'a str) -> Self {
        Self {
            kind: Kind::Lock,
            key,
            limit: 1,
            timeout: None,
            watched: false,
        }
    }

    pub fn slot(key: &'a str, limit: u32) -> Self {
        Self {
            kind: Kind::Semaphore,
            key,
            limit,
            timeout: None,
            watched: false,
        }
    }

    pub fn within(self, timeout: Duration) -> Self {
        let timeout = Some(timeout);
        Self { timeout, ..self }
    }

    pub fn watched(self) -> Self {
        Self { watched: true, ..self }
    }
}

impl Observer {
    /// Times count from `start`, as in [`lines`].
    pub fn new(process: &str, start: Instant) -> Self {
        let clock = move || nanoseconds(start.elapsed());
        Self {
            writer: Arc::new(Writer::in_memory(clock)),
            process: Name::from(process),
            start,
        }
    }

    /// Returns an observer of another process. It writes to the same record.
    pub fn another(&self, process: &str) -> Self {
        Self {
            process: Name::from(process),
            ..self.clone()
        }
    }

    /// Takes the lines that have been recorded.
    pub fn finish(&self) -> Vec<Line> {
        self.writer.finish().unwrap()
    }

    /// Runs `acquire`. Records the invocation, the holder and the return.
    pub async fn acquire(
        &self,
        caller: u64,
        asked: Asked<'_>,
        acquire: impl Future<Output = Result<Held>>,
    ) -> Result<Observed> {
        let call = self.invoke(Invoke {
            kind: Some(asked.kind),
            key: Some(Name::from(asked.key)),
            limit: Some(asked.limit.into()),
            timeout: asked.timeout.map(nanoseconds),
            ..self.call(caller, Action::Acquire)
        });
        match acquire.await {
            Ok(held) => {
                let holder = self.acquired(call.op, &held, asked.watched);
                call.ended(Outcome::Granted, None);
                Ok(Observed {
                    observer: self.clone(),
                    caller,
                    holder,
                    held: Some(held),
                })
            }
            Err(error) => {
                call.failed(&error);
                Err(error)
            }
        }
    }

    fn acquired(&self, op: u64, held: &Held, watched: bool) -> u64 {
        let limit = match held {
            Held::Lock(_) => 1,
            Held::Slot(_, limit) => u64::from(*limit),
        };
        let holder = self.writer.next_id();
        self.writer.note(What::Acquired(Acquired {
            process: self.process.clone(),
            holder,
            op,
            kind: kind(held.kind()),
            key: name(held.key()),
            limit,
            token: token(held.token()),
            fence: held.fence().map(|fence| fence.0),
            watched,
        }));
        holder
    }

    fn call(&self, caller: u64, action: Action) -> Invoke {
        Invoke {
            process: self.process.clone(),
            caller,
            op: self.writer.next_id(),
            action,
            kind: None,
            key: None,
            limit: None,
            timeout: None,
            ttl: None,
            holder: None,
            ticket: None,
            channel: None,
            payload: None,
        }
    }

    fn invoke(&self, invoke: Invoke) -> Call {
        let op = invoke.op;
        self.writer.note(What::Invoke(invoke));
        Call {
            observer: self.clone(),
            op,
            ended: false,
        }
    }
}

/// An operation under way. If this is dropped before the return was recorded, the operation was cancelled.
struct Call {
    observer: Observer,
    op: u64,
    ended: bool,
}

impl Call {
    fn ended(mut self, outcome: Outcome, error: Option<String>) {
        self.ended = true;
        self.note(outcome, error);
    }

    fn failed(self, error: &Error) {
        let outcome = match error.kind() {
            ErrorKind::Timeout => Outcome::TimedOut,
            _ => Outcome::Failed,
        };
        self.ended(outcome, Some(error.to_string()));
    }

    fn note(&self, outcome: Outcome, error: Option<String>) {
        self.observer.writer.note(What::Return(Return {
            process: self.observer.process.clone(),
            op: self.op,
            outcome,
            token: None,
            fence: None,
            error,
        }));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.note(Outcome::Cancelled, None);
        }
    }
}

/// A guard or a permit whose caller is observed.
pub struct Observed {
    observer: Observer,
    caller: u64,
    holder: u64,
    held: Option<Held>,
}

impl Observed {
    pub fn lease(&self) -> &Lease {
        self.held.as_ref().expect("it is held until it is released")
    }

    /// Returns whether the lease is held. Records the result.
    pub fn is_held(&self) -> bool {
        let lease = self.lease();
        self.observer
            .writer
            .note_use(&self.observer.process, self.holder, || lease.is_held())
    }

    /// Records that the caller learnt of the loss at the time `at`.
    pub fn was_lost(&self, why: LostReason, at: Instant) {
        let at = nanoseconds(at.saturating_duration_since(self.observer.start));
        let lost = Lost {
            process: self.observer.process.clone(),
            holder: self.holder,
            reason: Name::from(why.as_str()),
        };
        self.observer.writer.note_at(at, What::Lost(lost));
    }

    pub async fn release(mut self) -> Result<()> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let call = self.observer.invoke(Invoke {
            holder: Some(self.holder),
            ..self.observer.call(self.caller, Action::Release)
        });
        let released = match held {
            Held::Lock(guard) => guard.release().await,
            Held::Slot(permit, _) => permit.release().await,
        };
        match &released {
            Ok(()) => call.ended(Outcome::Done, None),
            Err(error) => call.failed(error),
        }
        released
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if self.held.is_none() {
            return;
        }
        self.observer.writer.note(What::LetGo(LetGo {
            process: self.observer.process.clone(),
            holder: Some(self.holder),
            ticket: None,
        }));
    }
}

fn name(key: &Key) -> Name {
    Name::from(key.as_str())
}
