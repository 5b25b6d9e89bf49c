//! The tasks that use the clients. Each task repeats one kind of work until the run ends.

use std::sync::Arc;
use std::time::Duration;

use dflockd_client::{Client, Election, Enqueued, Error, LockGuard};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::load::{of_locks, of_signals};
use crate::meter::{Meter, Timed};
use crate::servers::Addresses;

#[derive(Clone)]
pub(crate) struct Worker {
    client: Client,
    signals: Client,
    addresses: Arc<Addresses>,
    meter: Arc<Meter>,
    end: CancellationToken,
    pace: f64,
}

impl Worker {
    pub(crate) fn new(
        client: Client,
        signals: Client,
        addresses: Addresses,
        meter: &Arc<Meter>,
        end: &CancellationToken,
        pace: f64,
    ) -> Self {
        Self {
            client,
            signals,
            addresses: Arc::new(addresses),
            meter: Arc::clone(meter),
            end: end.clone(),
            pace,
        }
    }

    /// Pauses for 0.5 to 1.5 times `millis`, multiplied by `--pace`. The end of the run ends the pause.
    async fn pause(&self, millis: u64) {
        let long = Duration::from_millis(millis).mul_f64(self.pace * (0.5 + fastrand::f64()));
        tokio::select! {
            () = sleep(long) => {}
            () = self.end.cancelled() => {}
        }
    }

    fn goes_on(&self) -> bool {
        !self.end.is_cancelled()
    }

    /// Holds many leases all the time. About every 100 ms, the task releases a random lease and acquires a new key.
    /// It also acquires a new key for each lost lease. Each key is used once, so that memory grows if the state of keys
    /// is never freed.
    pub(crate) async fn hold(self, number: usize, many: usize) {
        let mut held: Vec<LockGuard> = Vec::with_capacity(many);
        let mut next = 0;
        while self.goes_on() {
            held.retain(|guard| guard.is_held());
            if held.len() == many && many > 0 {
                let one = held.swap_remove(fastrand::usize(..many));
                self.meter.count("held: release", &one.release().await);
            }
            while held.len() < many && self.goes_on() {
                next += 1;
                let key = format!("{}/held/{number}/{next}", shard(next));
                match self.acquire("held: acquire", &key).await {
                    Ok(guard) => held.push(guard),
                    Err(_) => self.pause(20).await,
                }
            }
            self.pause(100).await;
        }
    }

    async fn acquire(&self, what: &'static str, key: &str) -> Result<LockGuard, Error> {
        let acquired = match self.client.lock(key) {
            Ok(lock) => lock.acquire().await,
            Err(error) => Err(error),
        };
        self.meter.count(what, &acquired);
        acquired
    }

    /// Acquires and releases keys that no other task uses.
    pub(crate) async fn pairs(self, number: usize) {
        for round in 0_usize.. {
            if !self.goes_on() {
                return;
            }
            let key = format!("{}/pair/{number}/{}", shard(round), round % 100);
            let pair = async { self.client.lock(&key)?.acquire().await?.release().await };
            if self.meter.time(Timed::Pair, "pair", pair).await.is_err() {
                self.pause(50).await;
            }
            self.pause(10).await;
        }
    }

    /// Acquires and releases a key for which other tasks compete.
    pub(crate) async fn wait_turns(self, number: usize) {
        let key = format!("{}/turns/{}", shard(number), number % 4);
        while self.goes_on() {
            let acquired = async { self.client.lock(&key)?.acquire().await };
            match self.meter.time(Timed::Wait, "wait", acquired).await {
                Ok(guard) => {
                    self.pause(5).await;
                    self.meter.count("wait: release", &guard.release().await);
                }
                Err(_) => self.pause(50).await,
            }
        }
    }

    pub(crate) async fn slots(self) {
        for round in 0_usize.. {
            if !self.goes_on() {
                return;
            }
            let turn = async {
                let permit = self
                    .client
                    .semaphore(format!("{}/slots", shard(round)), 3)?
                    .acquire()
                    .await?;
                self.pause(5).await;
                permit.release().await
            };
            let turn = turn.await;
            self.meter.count("slot", &turn);
            self.pause(20).await;
        }
    }

    /// Acquires a key. If this takes longer than a random time of at most 20 ms, the future is dropped.
    pub(crate) async fn drop_futures(self) {
        for round in 0_usize.. {
            if !self.goes_on() {
                return;
            }
            let key = format!("{}/turns/{}", shard(round), fastrand::u32(..4));
            let patience = Duration::from_micros(fastrand::u64(..20_000));
            let acquired = async { self.client.lock(&key)?.acquire().await };
            match timeout(patience, acquired).await {
                Ok(acquired) => self.meter.count("not dropped", &acquired),
                Err(_) => self.meter.did("dropped"),
            }
            self.pause(20).await;
        }
    }

    /// Enqueues, then waits with the ticket or drops it.
    pub(crate) async fn tickets(self) {
        for round in 0_usize.. {
            if !self.goes_on() {
                return;
            }
            let turn = async {
                let lock = self.client.lock(format!("{}/tickets", shard(round)))?;
                let guard = match lock.enqueue().await? {
                    Enqueued::Acquired(guard) => guard,
                    Enqueued::Queued(_given_up) if fastrand::u8(..4) == 0 => return Ok(()),
                    Enqueued::Queued(ticket) => {
                        self.pause(5).await;
                        ticket.wait(Duration::from_secs(5)).await?
                    }
                };
                self.pause(5).await;
                guard.release().await
            };
            let turn = turn.await;
            self.meter.count("ticket", &turn);
            self.pause(30).await;
        }
    }

    pub(crate) async fn take_several(self) {
        for round in 0_usize.. {
            if !self.goes_on() {
                return;
            }
            let turn = async {
                let keys = (0..3).map(|_| format!("{}/several/{}", shard(round), fastrand::u32(..6)));
                let guards = self.client.lock_all(keys)?.acquire().await?;
                self.pause(5).await;
                guards.release().await
            };
            let turn = turn.await;
            self.meter.count("several", &turn);
            self.pause(50).await;
        }
    }

    pub(crate) async fn lead(self) {
        for round in 0_usize.. {
            if !self.goes_on() {
                return;
            }
            let term = async {
                let lock = self.client.lock(format!("{}/leader", shard(round)))?;
                let leadership = tokio::select! {
                    leadership = async { Election::new(lock).campaign().await } => leadership?,
                    () = self.end.cancelled() => return Ok(()),
                };
                self.pause(100).await;
                leadership.resign().await
            };
            let term = term.await;
            self.meter.count("leadership", &term);
            self.pause(50).await;
        }
    }

    pub(crate) async fn emit(self) {
        for round in 0_usize.. {
            if !self.goes_on() {
                return;
            }
            let emitted = self
                .signals
                .emit(format!("soak.{}", round % 8), round.to_string())
                .await;
            self.meter.count("emit", &emitted);
            self.pause(10).await;
        }
    }

    /// Subscribes and listens for about 20 s, again and again.
    pub(crate) async fn subscribe(self, number: usize) {
        while self.goes_on() {
            let mut conn = match self.signals.subscribe("soak.*").await {
                Ok(conn) => conn,
                Err(error) => {
                    self.meter.count::<()>("subscribe", &Err(error));
                    self.pause(100).await;
                    continue;
                }
            };
            self.meter.did("subscribe");
            let also = conn.listen(format!("soak.{number}"), "workers").await;
            self.meter.count("listen", &also);
            let until = sleep(Duration::from_secs(20 + number as u64));
            tokio::pin!(until);
            loop {
                tokio::select! {
                    event = conn.next_event() => match event {
                        Some(_) => self.meter.did("signal"),
                        None => break,
                    },
                    () = &mut until => break,
                    () = self.end.cancelled() => break,
                }
            }
        }
    }

    /// Uses a new client in each round. In even rounds it shuts the client down. In odd rounds it drops the client and
    /// all guards.
    pub(crate) async fn come_and_go(self) {
        for round in 0_usize.. {
            if !self.goes_on() {
                return;
            }
            let outcome = self.use_new_client(round).await;
            self.meter.count("client", &outcome);
            self.pause(2_000).await;
        }
    }

    async fn use_new_client(&self, round: usize) -> Result<(), Error> {
        let client = of_locks(&self.addresses).connect().await?;
        let conn = of_signals(&self.addresses).build()?.subscribe("soak.*").await?;
        let mut guards = Vec::new();
        for number in 0..20 {
            guards.push(
                client
                    .lock(format!("{}/short/{number}", shard(number)))?
                    .acquire()
                    .await?,
            );
        }
        if round % 2 == 0 {
            conn.close().await;
            client.shutdown(Duration::from_secs(2)).await;
        }
        Ok(())
    }

    pub(crate) async fn read_stats(self) {
        while self.goes_on() {
            for outcome in self.client.all_stats().await {
                self.meter.count("stats", &outcome);
            }
            self.pause(5_000).await;
        }
    }
}

/// Returns the first letter of a key, which selects its shard. Even numbers select the single server, odd numbers the
/// cluster.
fn shard(number: usize) -> char {
    match number % 2 {
        0 => 's',
        _ => 'c',
    }
}
