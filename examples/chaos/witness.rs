//! Records what the callers of a client process do and observe. The judge checks these records after the run.

use std::fs::File;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use dflockd_client::{Error, ErrorKind, Lease, LockGuard, LostReason, MultiLockGuard, SemaphorePermit};

use crate::history::record::{
    Acquired, Action, Invoke, Kind, LetGo, Lost, Name, Outcome, Process, Return, Token, Use, What,
};
use crate::history::writer::Writer;
use crate::job::{REQUEST_TIMEOUT, Record};

/// Returns the time of the monotonic clock in nanoseconds. All processes of the machine share this clock.
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (secs, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    secs.unwrap_or_default() * 1_000_000_000 + nanos.unwrap_or_default()
}

/// Creates the file for the record of a process. If the process is killed, at most the last line of the record is lost.
pub(crate) fn record(to: &Record) -> io::Result<Writer> {
    let file = File::create(to.directory.join(format!("{}.jsonl", to.name)))?;
    Ok(Writer::to(file, now))
}

/// The record of one client process.
pub(crate) struct Witness {
    pub(crate) writer: Writer,
    pub(crate) process: Name,
}

/// The arguments of an operation, as the record shows them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) kind: Option<Kind>,
    pub(crate) key: Option<Name>,
    pub(crate) limit: Option<u64>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) holder: Option<u64>,
    pub(crate) ticket: Option<u64>,
    pub(crate) channel: Option<Name>,
    pub(crate) payload: Option<Name>,
}

impl Witness {
    pub(crate) fn open(to: &Record) -> io::Result<Arc<Self>> {
        let witness = Self {
            writer: record(to)?,
            process: Name::from(&to.name),
        };
        Ok(Arc::new(witness))
    }

    pub(crate) fn begins(&self) {
        self.writer.note(What::ProcessStarted(self.itself()));
    }

    pub(crate) fn ends(&self) {
        self.writer.note(What::ProcessEnded(self.itself()));
    }

    fn itself(&self) -> Process {
        Process {
            process: self.process.clone(),
        }
    }

    /// Records that an operation begins. If the returned call is dropped without an outcome, the record shows the
    /// operation as cancelled.
    pub(crate) fn call(&self, caller: u64, action: Action, asked: Asked) -> Call<'_> {
        let op = self.writer.next_id();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.writer.note(What::Invoke(Invoke {
            process: self.process.clone(),
            caller,
            op,
            action,
            kind: asked.kind,
            key: asked.key,
            limit: asked.limit,
            timeout: asked.timeout.map(nanos),
            ttl: asked.ttl.map(nanos),
            holder: asked.holder,
            ticket: asked.ticket,
            channel: asked.channel,
            payload: asked.payload,
        }));
        Call {
            witness: self,
            op,
            is_open: true,
        }
    }
}

/// An operation that has begun. It is open until its outcome is recorded.
pub(crate) struct Call<'w> {
    witness: &'w Witness,
    /// The number of the operation.
    pub(crate) op: u64,
    is_open: bool,
}

impl Call<'_> {
    pub(crate) fn returned(mut self, outcome: Outcome) {
        self.note(outcome, None, None);
    }

    pub(crate) fn failed(mut self, error: &Error) {
        let outcome = match error.kind() {
            ErrorKind::Timeout => Outcome::TimedOut,
            _ => Outcome::Failed,
        };
        self.note(outcome, Some(format!("{:?}: {error}", error.kind())), None);
    }

    /// Records whether the operation succeeded or failed.
    pub(crate) fn done<T>(self, outcome: &Result<T, Error>) {
        match outcome {
            Ok(_) => self.returned(Outcome::Done),
            Err(error) => self.failed(error),
        }
    }

    /// Records that the operation has acquired a lease.
    pub(crate) fn granted(mut self, witness: &Arc<Witness>, guard: Guard, limit: u64, is_watched: bool) -> Held {
        let held = Held::new(witness, self.op, guard, limit, is_watched);
        let lease = held.lease();
        let token = lease.map(token_of);
        self.note(Outcome::Granted, None, token);
        held
    }

    fn note(&mut self, outcome: Outcome, error: Option<String>, token: Option<Token>) {
        self.is_open = false;
        self.witness.writer.note(What::Return(Return {
            process: self.witness.process.clone(),
            op: self.op,
            outcome,
            token,
            fence: None,
            error,
        }));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.note(Outcome::Cancelled, None, None);
        }
    }
}

pub(crate) enum Guard {
    Lock(LockGuard),
    Slot(SemaphorePermit),
}

impl From<LockGuard> for Guard {
    fn from(guard: LockGuard) -> Self {
        Self::Lock(guard)
    }
}

impl From<SemaphorePermit> for Guard {
    fn from(permit: SemaphorePermit) -> Self {
        Self::Slot(permit)
    }
}

impl Guard {
    fn lease(&self) -> &Lease {
        match self {
            Self::Lock(guard) => guard,
            Self::Slot(permit) => permit,
        }
    }
}

fn token_of(lease: &Lease) -> Token {
    // The type of the lease's token guarantees 32 hexadecimal digits.
    lease.token().as_str().parse().unwrap_or(Token(0))
}

fn kind_of(lease: &Lease) -> Kind {
    match lease.kind() {
        dflockd_client::Kind::Lock => Kind::Lock,
        dflockd_client::Kind::Semaphore => Kind::Semaphore,
    }
}

/// A guard of a caller. Its checks, its loss and its end are recorded.
pub(crate) struct Held {
    witness: Arc<Witness>,
    pub(crate) holder: u64,
    guard: Option<Guard>,
}

impl Witness {
    /// Records that a caller has acquired a lease. Returns the number of the holder.
    fn acquired(&self, op: u64, lease: &Lease, limit: u64, watched: bool) -> u64 {
        let holder = self.writer.next_id();
        self.writer.note(What::Acquired(Acquired {
            process: self.process.clone(),
            holder,
            op,
            kind: kind_of(lease),
            key: Name::from(lease.key()),
            limit,
            token: token_of(lease),
            fence: lease.fence().map(|fence| fence.0),
            watched,
        }));
        holder
    }

    /// Checks whether a lease is held, and records the result, because the caller acts on it.
    fn looked(&self, holder: u64, is_held: impl FnOnce() -> bool) -> bool {
        let before = self.writer.now();
        let held = is_held();
        let at = if held { before } else { self.writer.now() };
        let process = self.process.clone();
        self.writer.note_at(at, What::Use(Use { process, holder, held }));
        held
    }

    /// Records that the release of a lease begins.
    fn releases(&self, caller: u64, holder: u64, lease: &Lease) -> Call<'_> {
        let asked = Asked {
            holder: Some(holder),
            kind: Some(kind_of(lease)),
            key: Some(Name::from(lease.key())),
            timeout: Some(REQUEST_TIMEOUT),
            ..Asked::default()
        };
        self.call(caller, Action::Release, asked)
    }

    fn let_go(&self, holder: u64) {
        self.writer.note(What::LetGo(LetGo {
            process: self.process.clone(),
            holder: Some(holder),
            ticket: None,
        }));
    }

    /// Records that the caller drops a ticket.
    pub(crate) fn left_queue(&self, ticket: u64) {
        self.writer.note(What::LetGo(LetGo {
            process: self.process.clone(),
            holder: None,
            ticket: Some(ticket),
        }));
    }
}

impl Held {
    pub(crate) fn new(witness: &Arc<Witness>, op: u64, guard: Guard, limit: u64, is_watched: bool) -> Self {
        Self {
            holder: witness.acquired(op, guard.lease(), limit, is_watched),
            witness: Arc::clone(witness),
            guard: Some(guard),
        }
    }

    fn lease(&self) -> Option<&Lease> {
        self.guard.as_ref().map(Guard::lease)
    }

    /// Returns whether the client reports the lease as held. The caller acts on the result.
    pub(crate) fn is_held(&self) -> bool {
        self.witness
            .looked(self.holder, || self.lease().is_some_and(Lease::is_held))
    }

    /// Returns the key and the fence that the caller shows to the resource.
    pub(crate) fn shown(&self) -> Option<(String, u64)> {
        let lease = self.lease()?;
        Some((lease.key().to_string(), lease.fence()?.0))
    }

    /// Returns a future that resolves when the lease is lost.
    pub(crate) fn lost(&self) -> Option<impl Future<Output = LostReason> + use<>> {
        self.lease().map(Lease::lost)
    }

    /// Records that the caller learned of the loss.
    pub(crate) fn was_lost(&self, reason: LostReason) {
        self.witness.writer.note(What::Lost(Lost {
            process: self.witness.process.clone(),
            holder: self.holder,
            reason: format!("{reason:?}").to_lowercase().into(),
        }));
    }

    pub(crate) async fn release(mut self, caller: u64) -> Result<(), Error> {
        let Some(guard) = self.guard.take() else {
            return Ok(());
        };
        let call = self.witness.releases(caller, self.holder, guard.lease());
        let outcome = match guard {
            Guard::Lock(guard) => guard.release().await,
            Guard::Slot(permit) => permit.release().await,
        };
        call.done(&outcome);
        outcome
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.guard.is_some() {
            self.witness.let_go(self.holder);
        }
    }
}

/// Several locks that a caller holds, from one `acquire`.
pub(crate) struct SeveralHeld {
    witness: Arc<Witness>,
    holders: Vec<u64>,
    guards: MultiLockGuard,
}

impl SeveralHeld {
    pub(crate) fn new(witness: &Arc<Witness>, op: u64, guards: MultiLockGuard) -> Self {
        let holders = guards
            .guards()
            .iter()
            .map(|guard| witness.acquired(op, guard, 1, false));
        Self {
            holders: holders.collect(),
            witness: Arc::clone(witness),
            guards,
        }
    }

    /// Checks each lock. Returns whether all are held.
    pub(crate) fn are_held(&self) -> bool {
        let all = self.holders.iter().zip(self.guards.guards());
        all.fold(true, |held, (holder, guard)| {
            self.witness.looked(*holder, || guard.is_held()) && held
        })
    }

    pub(crate) async fn release(self, caller: u64) {
        let all = self.holders.iter().zip(self.guards.guards());
        let calls = all.map(|(holder, guard)| self.witness.releases(caller, *holder, guard));
        let calls: Vec<Call<'_>> = calls.collect();
        // The error does not name a lock, so the record gives each release the same outcome.
        let outcome = self.guards.release().await;
        for call in calls {
            call.done(&outcome);
        }
    }
}
