//! A task of a user: it calls the client, and records each operation and its outcome.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use dflockd_client::{Client, Error, Lease, Lock};
use fastrand::Rng;

use super::history::record::{Acquired, Action, Invoke, Kind, LetGo, Lost, Name, Outcome, Return, Use, What};
use super::history::writer::Writer;
use super::net::Time;

/// The state that the tasks of a process share.
pub struct Process {
    pub name: Name,
    pub client: Client,
    pub writer: Arc<Writer>,
    /// The time at which its programs end.
    pub stops_at: Time,
    /// One call in this number is dropped after a few polls or a random time, unless it has returned by then; with 0,
    /// no call is dropped.
    pub cancels_one_in: u32,
    /// The acquire timeout of handles, and the request timeout of the client.
    pub acquire_timeout: Duration,
    pub request_timeout: Duration,
    pub operations: Arc<AtomicU64>,
    /// The client was shut down: programs must end.
    pub is_over: AtomicBool,
}

/// A task that calls the client.
pub struct Caller {
    pub process: Arc<Process>,
    number: u64,
    pub random: Rng,
}

/// The operation of a call.
pub struct Asked {
    pub action: Action,
    pub kind: Option<Kind>,
    pub key: Option<Name>,
    pub limit: Option<u64>,
    pub timeout: Option<Duration>,
    pub holder: Option<u64>,
    pub ticket: Option<u64>,
    pub channel: Option<Name>,
    pub payload: Option<Name>,
}

impl Asked {
    pub fn new(action: Action) -> Self {
        Self {
            action,
            kind: None,
            key: None,
            limit: None,
            timeout: None,
            holder: None,
            ticket: None,
            channel: None,
            payload: None,
        }
    }

    pub fn of(action: Action, subject: &Subject) -> Self {
        Self {
            kind: Some(subject.kind),
            key: Some(subject.key.clone()),
            limit: Some(subject.limit),
            ..Self::new(action)
        }
    }

    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// A lock or a semaphore.
#[derive(Clone, Debug)]
pub struct Subject {
    pub kind: Kind,
    pub key: Name,
    pub limit: u64,
}

/// An operation that has returned.
pub struct Returned<T> {
    pub op: u64,
    /// `None` if the call was dropped.
    pub result: Option<Result<T, Error>>,
}

impl Caller {
    pub fn new(process: &Arc<Process>, number: u64, random: Rng) -> Self {
        Self {
            process: Arc::clone(process),
            number,
            random,
        }
    }

    pub fn is_done(&self) -> bool {
        self.process.is_over.load(Ordering::Relaxed) || self.process.writer.now() >= self.process.stops_at
    }

    pub fn note(&self, what: What) {
        self.process.writer.note(what);
    }

    /// Returns the client's lock of that key.
    pub fn lock(&self, subject: &Subject) -> Lock {
        let client = &self.process.client;
        client.lock(&*subject.key).expect("the simulation's keys are valid")
    }

    /// Sleeps for at most this long.
    pub async fn pause(&mut self, at_most: Duration) {
        let pause = at_most.mul_f64(self.random.f64());
        tokio::time::sleep(pause).await;
    }

    /// Calls, and sometimes drops the call before it returns. The caller of this function records the outcome.
    pub async fn call<T>(&mut self, asked: Asked, call: impl Future<Output = Result<T, Error>>) -> Returned<T> {
        let process = &self.process;
        let op = process.writer.next_id();
        process.operations.fetch_add(1, Ordering::Relaxed);
        self.note(What::Invoke(Invoke {
            process: process.name.clone(),
            caller: self.number,
            op,
            action: asked.action,
            kind: asked.kind,
            key: asked.key,
            limit: asked.limit,
            timeout: asked.timeout.map(|timeout| timeout.as_nanos() as u64),
            ttl: None,
            holder: asked.holder,
            ticket: asked.ticket,
            channel: asked.channel,
            payload: asked.payload,
        }));
        let cancels = process.cancels_one_in;
        let result = match cancels > 0 && self.random.u32(..cancels) == 0 {
            false => Some(call.await),
            true if self.random.bool() => {
                let polls = self.random.u32(..6);
                Polled {
                    call: Box::pin(call),
                    left: polls,
                }
                .await
            }
            true => {
                let patience = Duration::from_millis(self.random.u64(..3_000));
                tokio::time::timeout(patience, call).await.ok()
            }
        };
        let error = result.as_ref().and_then(|result| result.as_ref().err());
        if error.is_some_and(|error| error.kind() == dflockd_client::ErrorKind::Shutdown) {
            process.is_over.store(true, Ordering::Relaxed);
        }
        Returned { op, result }
    }

    /// Records that an operation has returned.
    pub fn returned(&self, op: u64, outcome: Outcome, error: Option<&Error>) {
        let error = error.map(|error| format!("{:?}: {error}", error.kind()));
        self.note(What::Return(Return {
            process: self.process.name.clone(),
            op,
            outcome,
            token: None,
            fence: None,
            error,
        }));
    }

    /// Records the end of an operation that returns nothing, or an error.
    pub fn ended<T>(&self, returned: &Returned<T>) {
        let (outcome, error) = match &returned.result {
            None => (Outcome::Cancelled, None),
            Some(Ok(_)) => (Outcome::Done, None),
            Some(Err(error)) => (failure(error), Some(error)),
        };
        self.returned(returned.op, outcome, error);
    }

    /// Records that the caller has a guard or a permit. If it is watched, the caller waits for its loss.
    pub fn acquired(&mut self, op: u64, subject: &Subject, lease: &Lease) -> Holder {
        let process = &self.process;
        let holder = process.writer.next_id();
        let watched = self.random.bool();
        self.note(What::Acquired(Acquired {
            process: process.name.clone(),
            holder,
            op,
            kind: subject.kind,
            key: subject.key.clone(),
            limit: subject.limit,
            token: lease.token().as_str().parse().unwrap(),
            fence: lease.fence().map(|fence| fence.0),
            watched,
        }));
        let watch = watched.then(|| {
            let (process, lost) = (Arc::clone(process), lease.lost());
            tokio::spawn(async move {
                let reason = format!("{:?}", lost.await).to_lowercase();
                process.writer.note(What::Lost(Lost {
                    process: process.name.clone(),
                    holder,
                    reason: Name::from(reason),
                }));
            })
        });
        Holder {
            process: Arc::clone(process),
            number: holder,
            watch,
        }
    }
}

/// Returns the outcome of a failed operation.
pub fn failure(error: &Error) -> Outcome {
    match error.kind() {
        dflockd_client::ErrorKind::Timeout => Outcome::TimedOut,
        _ => Outcome::Failed,
    }
}

/// Records how a caller's guard or permit is used, lost and let go. Drop it just before the guard or permit.
pub struct Holder {
    process: Arc<Process>,
    pub number: u64,
    watch: Option<tokio::task::JoinHandle<()>>,
}

impl Holder {
    /// Records a use; returns whether the lease is held.
    pub fn uses(&self, lease: &Lease) -> bool {
        let at = self.process.writer.now();
        let held = lease.is_held();
        let process = self.process.name.clone();
        let holder = self.number;
        self.process
            .writer
            .note_at(at, What::Use(Use { process, holder, held }));
        held
    }

    /// Records a use, whether the lease is held or not.
    pub fn pretends(&self) {
        let process = self.process.name.clone();
        let holder = self.number;
        self.process.writer.note(What::Use(Use {
            process,
            holder,
            held: true,
        }));
    }

    /// Records that the guard is about to be dropped.
    pub fn lets_go(self) {
        self.process.writer.note(What::LetGo(LetGo {
            process: self.process.name.clone(),
            holder: Some(self.number),
            ticket: None,
        }));
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
    }
}

/// A call that is dropped after a number of polls.
struct Polled<F> {
    call: Pin<Box<F>>,
    left: u32,
}

impl<F: Future> Future for Polled<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        let polled = self.call.as_mut().poll(cx).map(Some);
        if polled.is_pending() && self.left == 0 {
            return Poll::Ready(None);
        }
        polled
    }
}
