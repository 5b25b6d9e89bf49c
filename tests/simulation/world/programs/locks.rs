//! Programs that hold locks and permits.

use std::time::Duration;

use dflockd_client::{Election, Error, Lease, LockGuard, MultiLockGuard, Result};

use super::super::caller::{Caller, Holder, Operation, Returned, Subject, failure};
use super::super::history::record::{Action, Kind, Name, Outcome};

pub fn lock(number: u64) -> Subject {
    Subject {
        kind: Kind::Lock,
        key: Name::from(format!("k{number}")),
        limit: 1,
    }
}

/// Returns the semaphore with this number. The limit is 2 for even numbers and 3 for odd numbers.
pub fn semaphore_of(number: u64) -> Subject {
    Subject {
        kind: Kind::Semaphore,
        key: Name::from(format!("s{number}")),
        limit: 2 + number % 2,
    }
}

/// Pauses for up to 2 s between two rounds of a program.
pub async fn rest(caller: &mut Caller) {
    let longest = match caller.random.u32(..4) {
        0 => 0,
        1 => 20,
        2 => 300,
        _ => 2_000,
    };
    caller.pause(Duration::from_millis(longest)).await;
}

pub async fn holder(caller: &mut Caller, keys: u64) {
    let subject = lock(caller.random.u64(..keys));
    if let Some((holder, guard)) = acquire_lock(caller, &subject).await {
        hold(caller, &holder, &guard, Duration::from_secs(3)).await;
        release(caller, &subject, holder, guard).await;
    }
    rest(caller).await;
}

async fn acquire_lock(caller: &mut Caller, subject: &Subject) -> Option<(Holder, LockGuard)> {
    let within = caller.process.acquire_timeout + caller.process.request_timeout;
    let lock = caller.lock(subject);
    // One lock in eight does not renew its lease, so the lease may expire while the caller holds the lock.
    let lock = lock.renew(caller.random.u32(..8) > 0);
    let operation = Operation::of(Action::Acquire, subject).within(within);
    let returned = caller.call(operation, lock.acquire()).await;
    granted(caller, subject, returned)
}

/// Records the result of an acquire. Returns the guard and its `Holder` if the key was granted.
pub fn granted<G: std::ops::Deref<Target = Lease>>(
    caller: &mut Caller,
    subject: &Subject,
    returned: Returned<G>,
) -> Option<(Holder, G)> {
    let op = returned.op;
    match returned.result {
        Some(Ok(guard)) => {
            let holder = caller.acquired(op, subject, &guard);
            caller.returned(op, Outcome::Granted, None);
            Some((holder, guard))
        }
        Some(Err(error)) => {
            caller.returned(op, failure(&error), Some(&error));
            None
        }
        None => {
            caller.returned(op, Outcome::Cancelled, None);
            None
        }
    }
}

/// Records uses of the lease for a random time, or until the lease is lost.
pub async fn hold(caller: &mut Caller, holder: &Holder, lease: &Lease, longest: Duration) {
    let longest = match caller.random.u32(..8) {
        0 => Duration::ZERO,
        1 => longest * 5,
        2..=4 => longest / 20,
        _ => longest,
    };
    let work = longest.mul_f64(caller.random.f64());
    let until = caller.process.writer.now() + work.as_nanos() as u64;
    while holder.uses(lease) && caller.process.writer.now() < until && !caller.is_done() {
        caller.pause(Duration::from_millis(400).min(work)).await;
    }
}

/// Drops the guard with a probability of one third. Otherwise releases it.
pub async fn release<G: Released>(caller: &mut Caller, subject: &Subject, holder: Holder, guard: G) {
    if caller.random.u32(..3) == 0 {
        holder.lets_go();
        drop(guard);
        return;
    }
    let mut operation = Operation::of(Action::Release, subject).within(caller.process.request_timeout);
    operation.holder = Some(holder.number);
    let returned = caller.call(operation, guard.release()).await;
    drop(holder);
    caller.ended(&returned);
}

/// A guard that can be released.
pub trait Released {
    fn release(self) -> impl Future<Output = Result<()>> + Send;
}

impl Released for LockGuard {
    async fn release(self) -> Result<()> {
        LockGuard::release(self).await
    }
}

impl Released for dflockd_client::SemaphorePermit {
    async fn release(self) -> Result<()> {
        dflockd_client::SemaphorePermit::release(self).await
    }
}

pub async fn tries(caller: &mut Caller, keys: u64) {
    let subject = lock(caller.random.u64(..keys));
    let lock = caller.lock(&subject);
    let operation = Operation::of(Action::Try, &subject).within(caller.process.request_timeout);
    let Returned { op, result } = caller.call(operation, lock.try_acquire()).await;
    let result = match result {
        Some(Ok(None)) => {
            caller.returned(op, Outcome::Busy, None);
            return rest(caller).await;
        }
        Some(Ok(Some(guard))) => Some(Ok(guard)),
        Some(Err(error)) => Some(Err(error)),
        None => None,
    };
    if let Some((holder, guard)) = granted(caller, &subject, Returned { op, result }) {
        hold(caller, &holder, &guard, Duration::from_secs(1)).await;
        release(caller, &subject, holder, guard).await;
    }
    rest(caller).await;
}

/// A planted bug: leaks the guard, so the client renews a lease that no caller holds.
pub async fn leak(caller: &mut Caller) {
    let subject = lock(0);
    if let Some((holder, guard)) = acquire_lock(caller, &subject).await {
        holder.lets_go();
        std::mem::forget(guard);
    }
    rest(caller).await;
}

/// A planted bug: drops the guard and then records a use of its lease.
pub async fn liar(caller: &mut Caller) {
    let subject = lock(0);
    if let Some((holder, guard)) = acquire_lock(caller, &subject).await {
        drop(guard);
        caller.pause(Duration::from_secs(1)).await;
        holder.claims_use();
    }
}

pub async fn several(caller: &mut Caller, keys: u64) {
    let many = 2 + caller.random.u64(..2);
    let mut numbers: Vec<u64> = (0..many).map(|_| caller.random.u64(..keys)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let subjects: Vec<Subject> = numbers.into_iter().map(lock).collect();
    let Ok(locks) = caller
        .process
        .client
        .lock_all(subjects.iter().map(|subject| &*subject.key))
    else {
        return;
    };
    // After the acquire timeout, `lock_all` still tries each further lock. A try takes at most the request timeout.
    let tries = caller.process.request_timeout * subjects.len() as u32;
    let operation = Operation::new(Action::Acquire).within(caller.process.acquire_timeout + tries);
    let Returned { op, result } = caller.call(operation, locks.acquire()).await;
    let all: MultiLockGuard = match result {
        Some(Ok(all)) => all,
        Some(Err(error)) => {
            caller.returned(op, failure(&error), Some(&error));
            return rest(caller).await;
        }
        None => {
            caller.returned(op, Outcome::Cancelled, None);
            return rest(caller).await;
        }
    };
    let mut holders = Vec::new();
    for guard in all.guards() {
        let subject = Subject {
            kind: Kind::Lock,
            key: Name::from(guard.key().as_str()),
            limit: 1,
        };
        holders.push(caller.acquired(op, &subject, guard));
    }
    caller.returned(op, Outcome::Granted, None);
    let work = caller.random.u64(..2_000);
    let until = caller.process.writer.now() + work * 1_000_000;
    loop {
        let held: Vec<bool> = holders
            .iter()
            .zip(all.guards())
            .map(|(holder, guard)| holder.uses(guard))
            .collect();
        if held.contains(&false) || caller.process.writer.now() >= until || caller.is_done() {
            break;
        }
        caller.pause(Duration::from_millis(work.min(300))).await;
    }
    holders.into_iter().for_each(Holder::lets_go);
    if caller.random.bool() {
        drop(all);
    } else {
        let operation = Operation::new(Action::Other).within(caller.process.request_timeout);
        let returned = caller.call(operation, all.release()).await;
        caller.ended(&returned);
    }
    rest(caller).await;
}

pub async fn election(caller: &mut Caller) {
    let subject = Subject {
        kind: Kind::Lock,
        key: Name::from("leader"),
        limit: 1,
    };
    let lock = caller.lock(&subject);
    let election = Election::new(lock);
    // `Election::campaign` has no timeout.
    let patience = Duration::from_millis(caller.random.u64(100..15_000));
    let campaign = async {
        match tokio::time::timeout(patience, election.campaign()).await {
            Ok(Ok(leadership)) => Ok(Some(leadership)),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(None),
        }
    };
    let operation = Operation::of(Action::Acquire, &subject).within(patience);
    let Returned { op, result } = caller.call(operation, campaign).await;
    let leadership = match result {
        Some(Ok(Some(leadership))) => leadership,
        Some(Err(error)) => {
            caller.returned(op, failure(&error), Some(&error));
            return rest(caller).await;
        }
        Some(Ok(None)) | None => {
            caller.returned(op, Outcome::Cancelled, None);
            return rest(caller).await;
        }
    };
    let guard = leadership.into_guard();
    let holder = caller.acquired(op, &subject, &guard);
    caller.returned(op, Outcome::Granted, None);
    hold(caller, &holder, &guard, Duration::from_secs(6)).await;
    release(caller, &subject, holder, guard).await;
    rest(caller).await;
}

pub async fn semaphore(caller: &mut Caller, keys: u64, longest: Duration) {
    let subject = semaphore_of(caller.random.u64(..keys));
    let Ok(semaphore) = caller.process.client.semaphore(&*subject.key, subject.limit as u32) else {
        return;
    };
    let within = caller.process.acquire_timeout + caller.process.request_timeout;
    let operation = Operation::of(Action::Acquire, &subject).within(within);
    let returned = caller.call(operation, semaphore.acquire()).await;
    if let Some((holder, permit)) = granted(caller, &subject, returned) {
        hold(caller, &holder, &permit, longest).await;
        release(caller, &subject, holder, permit).await;
    }
    rest(caller).await;
}

pub async fn observer(caller: &mut Caller) {
    let client = caller.process.client.clone();
    let operation = Operation::new(Action::Other).within(caller.process.request_timeout);
    let returned: Returned<()> = match caller.random.bool() {
        true => {
            let all = async {
                drop(client.all_stats().await);
                Ok::<(), Error>(())
            };
            caller.call(operation, all).await
        }
        false => caller.call(operation, client.barrier()).await,
    };
    caller.ended(&returned);
    caller.pause(Duration::from_secs(2)).await;
}
