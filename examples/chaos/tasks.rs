//! The tasks of a client process. Each task uses the client and records what it does and observes.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dflockd_client::{Client, Election, Enqueued, Lock, SignalEvent};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::history::record::{Action, Extent, Gap, Kind, Name, Outcome, Received, Subscribed, Subscription, What};
use crate::job::{LONG_TTL, REQUEST_TIMEOUT, Record, TTL};
use crate::resource::{Added, Resource};
use crate::witness::{Asked, Call, Guard, Held, SeveralHeld, Witness};

const SLOTS: u32 = 2;

#[derive(Clone)]
pub(crate) struct Worker {
    witness: Arc<Witness>,
    resource: Arc<Resource>,
    /// The file of the acknowledged writes to the resource, one per line.
    acknowledged: Arc<Mutex<File>>,
    /// The number of the next attempt to write to the resource.
    attempts: Arc<AtomicU64>,
    locks: Client,
    signals: Client,
    end: CancellationToken,
    /// The number of this task in the record.
    caller: u64,
}

impl Worker {
    pub(crate) fn new(
        witness: &Arc<Witness>,
        resource: Resource,
        record: &Record,
        [locks, signals]: [&Client; 2],
        end: &CancellationToken,
    ) -> Result<Self, Box<dyn Error>> {
        let file = record.directory.join(format!("{}.acknowledged", record.name));
        Ok(Self {
            witness: Arc::clone(witness),
            resource: Arc::new(resource),
            acknowledged: Arc::new(Mutex::new(OpenOptions::new().create(true).append(true).open(file)?)),
            attempts: Arc::default(),
            locks: locks.clone(),
            signals: signals.clone(),
            end: end.clone(),
            caller: 0,
        })
    }

    pub(crate) fn spawn_all(&self, tasks: &mut JoinSet<()>) {
        let mut caller = 0;
        let mut next = || {
            caller += 1;
            Self { caller, ..self.clone() }
        };
        for _ in 0..5 {
            tasks.spawn(next().count());
        }
        for _ in 0..2 {
            tasks.spawn(next().keep());
            tasks.spawn(next().take_slots());
            tasks.spawn(next().take_tickets());
            tasks.spawn(next().drop_acquires());
        }
        tasks.spawn(next().take_several());
        tasks.spawn(next().lead());
        tasks.spawn(next().try_only());
        tasks.spawn(next().emit());
        tasks.spawn(next().listen("news.*"));
        tasks.spawn(next().listen("news.>"));
    }

    fn goes_on(&self) -> bool {
        !self.end.is_cancelled()
    }

    /// Pauses for a random time of at most `millis` milliseconds. The end of the run ends the pause.
    async fn pause(&self, millis: u64) {
        tokio::select! {
            () = sleep(Duration::from_micros(fastrand::u64(0..=millis * 1000))) => {}
            () = self.end.cancelled() => {}
        }
    }

    /// Returns a handle of a lock, and how the record describes an acquire with this handle.
    fn lock(&self, key: &str, ttl: Duration) -> Option<(Lock, Asked)> {
        let patience = Duration::from_millis(fastrand::u64(200..6_000));
        let lock = self.locks.lock(key).ok()?.acquire_timeout(patience);
        let lock = lock.lease_ttl(ttl);
        Some((
            lock,
            Asked {
                kind: Some(Kind::Lock),
                key: Some(key.into()),
                limit: Some(1),
                timeout: Some(patience),
                ttl: Some(ttl),
                ..Asked::default()
            },
        ))
    }

    async fn acquire(&self, key: &str, is_watched: bool) -> Option<Held> {
        // If `is_watched`, the caller watches for the loss of the lease. The TTL must then exceed the time in which the
        // client must notice a lost connection (3 s).
        let ttl = if is_watched { LONG_TTL } else { TTL };
        let (lock, asked) = self.lock(key, ttl)?;
        let call = self.witness.call(self.caller, Action::Acquire, asked);
        let acquired = lock.acquire().await;
        self.was_acquired(call, acquired, 1, is_watched).await
    }

    async fn was_acquired<G: Into<Guard>>(
        &self,
        call: Call<'_>,
        acquired: dflockd_client::Result<G>,
        limit: u64,
        is_watched: bool,
    ) -> Option<Held> {
        match acquired {
            Ok(guard) => Some(call.granted(&self.witness, guard.into(), limit, is_watched)),
            Err(error) => {
                call.failed(&error);
                self.pause(100).await;
                None
            }
        }
    }

    /// Releases the guard. In one of four cases, drops the guard instead.
    async fn give_back(&self, held: Held) {
        match fastrand::u8(..4) {
            0 => drop(held),
            _ => drop(held.release(self.caller).await),
        }
    }

    /// Acquires the lock of a random key, and adds to the counter of that key.
    async fn count(self) {
        let mut old: Option<(String, u64)> = None;
        while self.goes_on() {
            if let Some(held) = self.acquire(&self.pick("n", 2), false).await {
                for _ in 0..fastrand::u8(1..=4) {
                    if !held.is_held() {
                        break;
                    }
                    // The lease may end in this pause. Then the fence protects the resource.
                    if fastrand::u8(..8) == 0 {
                        self.pause(300).await;
                    }
                    if let Some((key, fence)) = held.shown() {
                        self.add(key, fence).await;
                    }
                    self.pause(20).await;
                }
                if fastrand::u8(..8) == 0 {
                    old = held.shown();
                }
                self.give_back(held).await;
            }
            // This acts like a late holder: it writes with an old fence and does not check the lease.
            if let Some((key, fence)) = old.take_if(|_| fastrand::u8(..4) == 0) {
                self.add(key, fence).await;
            }
            self.pause(100).await;
        }
    }

    /// Tries to add one to a counter of the resource. If the process is killed meanwhile, the outcome is not recorded.
    async fn add(&self, key: String, fence: u64) {
        let number = self.attempts.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}/{number}", self.witness.process);
        let asked = Asked {
            key: Some(key.as_str().into()),
            ..Asked::default()
        };
        let call = self.witness.call(self.caller, Action::Other, asked);
        let (resource, acknowledged) = (Arc::clone(&self.resource), Arc::clone(&self.acknowledged));
        // Sometimes the acknowledgement is written late, so that a kill of this process may come first.
        let slow = (fastrand::u8(..8) == 0).then(|| Duration::from_millis(fastrand::u64(..200)));
        let adding = spawn_blocking(move || {
            let added = resource.add(&key, fence, &id);
            if matches!(added, Ok(Added::Acknowledged)) {
                std::thread::sleep(slow.unwrap_or_default());
                let line = format!("{id}\t{key}\t{fence}\n");
                let mut file = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all(line.as_bytes())
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            }
            added
        });
        call.returned(match adding.await {
            Ok(Ok(Added::Acknowledged)) => Outcome::Done,
            Ok(Ok(Added::Stale)) => Outcome::Busy,
            Ok(Err(_)) | Err(_) => Outcome::Failed,
        });
    }

    /// Returns a random key of a random shard.
    fn pick(&self, name: &str, numbers: u32) -> String {
        let server = ['a', 'b', 'c'][fastrand::usize(..3)];
        format!("{server}/{name}{}", fastrand::u32(..numbers))
    }

    /// Holds a lock for a random time of 0.5 to 15 s, or until its loss is reported.
    async fn keep(self) {
        while self.goes_on() {
            let Some(held) = self.acquire(&self.pick("kept", 1), true).await else {
                continue;
            };
            let Some(lost) = held.lost() else {
                continue;
            };
            tokio::pin!(lost);
            let enough = sleep(Duration::from_millis(fastrand::u64(500..15_000)));
            tokio::pin!(enough);
            loop {
                tokio::select! {
                    reason = &mut lost => {
                        held.was_lost(reason);
                        break;
                    }
                    () = &mut enough => break,
                    () = self.end.cancelled() => break,
                    () = sleep(Duration::from_millis(50)) => {
                        held.is_held();
                    }
                }
            }
            self.give_back(held).await;
            self.pause(500).await;
        }
    }

    async fn take_slots(self) {
        while self.goes_on() {
            let key = self.pick("slots", 1);
            let patience = Duration::from_millis(fastrand::u64(200..6_000));
            let Ok(slots) = self.locks.semaphore(&key, SLOTS) else {
                return;
            };
            let asked = Asked {
                kind: Some(Kind::Semaphore),
                key: Some(key.into()),
                limit: Some(SLOTS.into()),
                timeout: Some(patience),
                ttl: Some(TTL),
                ..Asked::default()
            };
            let call = self.witness.call(self.caller, Action::Acquire, asked);
            let acquired = slots.acquire_timeout(patience).acquire().await;
            if let Some(held) = self.was_acquired(call, acquired, SLOTS.into(), false).await {
                self.use_for(&held, fastrand::u32(1..30)).await;
                self.give_back(held).await;
            }
            self.pause(200).await;
        }
    }

    /// Checks repeatedly whether the lease is held, at most `times` times.
    async fn use_for(&self, held: &Held, times: u32) {
        for _ in 0..times {
            if !held.is_held() || !self.goes_on() {
                return;
            }
            self.pause(40).await;
        }
    }

    /// Enqueues, then waits with the ticket or drops it.
    async fn take_tickets(self) {
        while self.goes_on() {
            let Some((lock, asked)) = self.lock(&self.pick("turn", 1), TTL) else {
                return;
            };
            let call = self.witness.call(
                self.caller,
                Action::Enqueue,
                Asked {
                    timeout: Some(REQUEST_TIMEOUT),
                    ..asked.clone()
                },
            );
            let op = call.op;
            let held = match lock.enqueue().await {
                Ok(Enqueued::Acquired(guard)) => Some(call.granted(&self.witness, guard.into(), 1, false)),
                Ok(Enqueued::Queued(ticket)) => {
                    call.returned(Outcome::Queued);
                    self.pause(300).await;
                    if fastrand::u8(..5) == 0 {
                        self.witness.left_queue(op);
                        drop(ticket);
                        continue;
                    }
                    let patience = asked.timeout.unwrap_or_default();
                    let asked = Asked {
                        ticket: Some(op),
                        ..asked
                    };
                    let call = self.witness.call(self.caller, Action::Wait, asked);
                    let waited = ticket.wait(patience).await;
                    self.was_acquired(call, waited, 1, false).await
                }
                Err(error) => {
                    call.failed(&error);
                    self.pause(100).await;
                    None
                }
            };
            if let Some(held) = held {
                self.use_for(&held, fastrand::u32(1..10)).await;
                self.give_back(held).await;
            }
            self.pause(200).await;
        }
    }

    /// Acquires a key. If this takes longer than a random time of at most 400 ms, the future is dropped.
    async fn drop_acquires(self) {
        while self.goes_on() {
            let patience = Duration::from_micros(fastrand::u64(0..400_000));
            let acquired = timeout(patience, self.acquire(&self.pick("n", 2), false)).await;
            if let Ok(Some(held)) = acquired {
                self.use_for(&held, 3).await;
                self.give_back(held).await;
            }
            self.pause(150).await;
        }
    }

    async fn take_several(self) {
        while self.goes_on() {
            let patience = Duration::from_millis(fastrand::u64(500..6_000));
            let keys = [self.pick("n", 2), self.pick("n", 2)];
            let Ok(locks) = self.locks.lock_all(keys) else {
                return;
            };
            let asked = Asked {
                kind: Some(Kind::Lock),
                timeout: Some(patience),
                ttl: Some(TTL),
                ..Asked::default()
            };
            let call = self.witness.call(self.caller, Action::Acquire, asked);
            match locks.acquire_timeout(patience).acquire().await {
                Ok(guards) => {
                    let held = SeveralHeld::new(&self.witness, call.op, guards);
                    call.returned(Outcome::Granted);
                    for _ in 0..fastrand::u8(1..10) {
                        if !held.are_held() {
                            break;
                        }
                        self.pause(30).await;
                    }
                    held.release(self.caller).await;
                }
                Err(error) => call.failed(&error),
            }
            self.pause(400).await;
        }
    }

    async fn lead(self) {
        while self.goes_on() {
            let Some((lock, asked)) = self.lock(&self.pick("leader", 1), LONG_TTL) else {
                return;
            };
            // A campaign has no timeout.
            let asked = Asked { timeout: None, ..asked };
            let call = self.witness.call(self.caller, Action::Acquire, asked);
            let election = Election::new(lock);
            let elected = tokio::select! {
                elected = election.campaign() => elected,
                () = self.end.cancelled() => return,
            };
            let elected = elected.map(dflockd_client::Leadership::into_guard);
            if let Some(held) = self.was_acquired(call, elected, 1, false).await {
                self.use_for(&held, fastrand::u32(1..100)).await;
                self.give_back(held).await;
            }
            self.pause(300).await;
        }
    }

    /// Tries keys without waiting, and does not renew the leases.
    async fn try_only(self) {
        while self.goes_on() {
            let Some((lock, asked)) = self.lock(&self.pick("n", 2), TTL) else {
                return;
            };
            let asked = Asked {
                timeout: Some(REQUEST_TIMEOUT),
                ..asked
            };
            let call = self.witness.call(self.caller, Action::Try, asked);
            match lock.renew(false).try_acquire().await {
                Ok(Some(guard)) => {
                    let held = call.granted(&self.witness, guard.into(), 1, false);
                    self.use_for(&held, fastrand::u32(1..150)).await;
                    self.give_back(held).await;
                }
                Ok(None) => call.returned(Outcome::Busy),
                Err(error) => call.failed(&error),
            }
            self.pause(300).await;
        }
    }

    async fn emit(self) {
        for number in 0_u64.. {
            if !self.goes_on() {
                return;
            }
            let channel = format!("news.{}", self.witness.process);
            let payload = number.to_string();
            let asked = Asked {
                channel: Some(channel.as_str().into()),
                payload: Some(payload.as_str().into()),
                timeout: Some(REQUEST_TIMEOUT),
                ..Asked::default()
            };
            let call = self.witness.call(self.caller, Action::Emit, asked);
            call.done(&self.signals.emit(&channel, &payload).await);
            self.pause(200).await;
        }
    }

    /// Subscribes and listens for a random time of 1 to 60 s, again and again.
    async fn listen(self, pattern: &'static str) {
        while self.goes_on() {
            let asked = Asked {
                channel: Some(pattern.into()),
                timeout: Some(REQUEST_TIMEOUT),
                ..Asked::default()
            };
            let call = self.witness.call(self.caller, Action::Listen, asked);
            let subscribed = self.signals.subscribe(pattern).await;
            call.done(&subscribed);
            let Ok(mut conn) = subscribed else {
                self.pause(500).await;
                continue;
            };
            let process = self.witness.process.clone();
            let subscription = self.witness.writer.next_id();
            self.witness.writer.note(What::Subscribed(Subscribed {
                process: process.clone(),
                subscription,
                pattern: pattern.into(),
                group: None,
            }));
            let until = sleep(Duration::from_millis(fastrand::u64(1_000..60_000)));
            tokio::pin!(until);
            loop {
                let event = tokio::select! {
                    event = conn.next_event() => event,
                    () = &mut until => break,
                    () = self.end.cancelled() => break,
                };
                let noted = match event {
                    Some(SignalEvent::Signal(signal)) => What::Received(Received {
                        process: process.clone(),
                        subscription,
                        channel: Name::from(signal.channel()),
                        payload: Name::from(signal.payload()),
                    }),
                    Some(event) => What::Gap(Gap {
                        process: process.clone(),
                        subscription,
                        extent: match event {
                            SignalEvent::Lost { .. } => Extent::Begins,
                            SignalEvent::Restored { .. } => Extent::Ends,
                            _ => Extent::Here,
                        },
                    }),
                    None => break,
                };
                self.witness.writer.note(noted);
            }
            self.witness
                .writer
                .note(What::Unsubscribed(Subscription { process, subscription }));
        }
    }
}
