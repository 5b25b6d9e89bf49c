//! A caller: a task that calls the client, and records each operation and its outcome.

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

/// The state that all callers of a process share.
pub struct Process {
    pub name: Name,
    pub client: Client,
    pub writer: Arc<Writer>,
    /// The time at which the programs end.
    pub stops_at: Time,
    /// On average, one in this many calls has a limit: a random number of polls or a random time. The call is dropped
    /// if it has not returned by then. With 0, no call is dropped.
    pub cancels_one_in: u32,
    pub acquire_timeout: Duration,
    pub request_timeout: Duration,
    pub operations: Arc<AtomicU64>,
    /// Whether the client has been shut down, so that the programs must end.
    pub is_over: AtomicBool,
}

pub struct Caller {
    pub process: Arc<Process>,
    number: u64,
    pub random: Rng,
}

/// The operation that a call requests, as the history records it.
pub struct Operation {
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

impl Operation {
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

/// The end of an operation.
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

    /// Returns the client's handle for the key of `subject`.
    pub fn lock(&self, subject: &Subject) -> Lock {
        let client = &self.process.client;
        client.lock(&*subject.key).expect("the simulation's keys are valid")
    }

    /// Sleeps for a random time of at most `at_most`.
    pub async fn pause(&mut self, at_most: Duration) {
        let pause = at_most.mul_f64(self.random.f64());
        tokio::time::sleep(pause).await;
    }

    /// Records the start of an operation, and awaits its future `call`. Sometimes drops `call` before it returns. The
    /// caller of this function must record the outcome.
    pub async fn call<T>(&mut self, operation: Operation, call: impl Future<Output = Result<T, Error>>) -> Returned<T> {
        let process = &self.process;
        let op = process.writer.next_id();
        process.operations.fetch_add(1, Ordering::Relaxed);
        self.note(What::Invoke(Invoke {
            process: process.name.clone(),
            caller: self.number,
            op,
            action: operation.action,
            kind: operation.kind,
            key: operation.key,
            limit: operation.limit,
            timeout: operation.timeout.map(|timeout| timeout.as_nanos() as u64),
            ttl: None,
            holder: operation.holder,
            ticket: operation.ticket,
            channel: operation.channel,
            payload: operation.payload,
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

    /// Records the end of an operation whose result is no lease.
    pub fn ended<T>(&self, returned: &Returned<T>) {
        let (outcome, error) = match &returned.result {
            None => (Outcome::Cancelled, None),
            Some(Ok(_)) => (Outcome::Done, None),
            Some(Err(error)) => (failure(error), Some(error)),
        };
        self.returned(returned.op, outcome, error);
    }

    /// Records that the caller has got a guard or a permit with this lease. In half of the cases, a task waits for the
    /// loss of the lease and records it.
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

/// Records how a caller uses and drops a guard or a permit, and when its lease is lost. Call [`lets_go`](Self::lets_go)
/// just before you drop the guard or permit. If you release the guard or permit instead, drop the `Holder` after the
/// release.
pub struct Holder {
    process: Arc<Process>,
    pub number: u64,
    watch: Option<tokio::task::JoinHandle<()>>,
}

impl Holder {
    /// Records a use of the lease. Returns whether the client reports the lease as held.
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

    /// Records a use as if `is_held` had returned true. Does not call `is_held`.
    pub fn claims_use(&self) {
        let process = self.process.name.clone();
        let holder = self.number;
        self.process.writer.note(What::Use(Use {
            process,
            holder,
            held: true,
        }));
    }

    /// Records that the caller is about to drop the guard or permit.
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

/// A future that polls `call` at most `left` times. It returns `None` if the call has not returned by then.
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
