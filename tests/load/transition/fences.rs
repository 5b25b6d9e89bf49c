//! Tests the rule by which a resource checks the fences of a key that moves. `docs/guide/src/sharding.md`
//! defines the rule and the steps 1 to 3.

use dflockd_client::{Client, LockGuard};

use super::fleet::{Fleet, MOVES};

/// The fences that a writer sends to the resource.
#[derive(Clone, Copy, Debug)]
struct Fences {
    previous: Option<u64>,
    current: Option<u64>,
}

impl Fences {
    fn of(guard: &LockGuard, step: usize) -> Option<Self> {
        let one = guard.fence().map(|fence| fence.0);
        match step {
            1 => Some(Self {
                previous: Some(one?),
                current: None,
            }),
            2 => guard.transition_fences().map(|both| Self {
                previous: Some(both.previous.0),
                current: Some(both.current.0),
            }),
            _ => Some(Self {
                previous: None,
                current: Some(one?),
            }),
        }
    }
}

/// The fences that a resource stores for a key.
#[derive(Default)]
struct Resource {
    previous: u64,
    current: u64,
    saw_step_3: bool,
}

impl Resource {
    fn accepts(&mut self, fences: Fences) -> bool {
        let is_fresh = match fences {
            Fences {
                previous: Some(previous),
                current: None,
            } => previous >= self.previous && !self.saw_step_3,
            Fences { previous, current } => {
                previous.is_none_or(|previous| previous >= self.previous)
                    && current.is_some_and(|current| current >= self.current)
            }
        };
        if is_fresh {
            self.previous = self.previous.max(fences.previous.unwrap_or(0));
            self.current = self.current.max(fences.current.unwrap_or(0));
            self.saw_step_3 |= fences.previous.is_none();
        }
        is_fresh
    }
}

/// Holders get the key one after the other. A holder may write while it holds the key, and may write late. The resource
/// accepts each write of the current holder. It refuses a late write if a later holder has already written.
#[test]
fn a_resource_refuses_former_holders_and_accepts_the_current_one() {
    for seed in 0..2000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut previous, mut current) = (random.u64(0..50), random.u64(0..50));
        let (mut resource, mut last_written) = (Resource::default(), None);
        let mut holders: Vec<Fences> = Vec::new();
        let grants = random.usize(1..12);
        let turn = random.usize(0..grants);
        for number in 0..grants {
            // Before `turn` the fleet has clients of steps 1 and 2, and from `turn` on clients of steps 2 and 3.
            let step = usize::from(number >= turn) + random.usize(1..=2);
            let fences = Fences {
                previous: (step < 3).then(|| {
                    previous += random.u64(1..9);
                    previous
                }),
                current: (step > 1).then(|| {
                    current += random.u64(1..9);
                    current
                }),
            };
            holders.push(fences);
            if random.bool() {
                assert!(resource.accepts(fences), "seed {seed}: {number} of {holders:?}");
                last_written = Some(number);
            }
            let late = random.usize(0..=number);
            let taken = resource.accepts(holders[late]);
            let is_past = last_written.is_some_and(|last| late < last);
            assert!(
                !(taken && is_past),
                "seed {seed}: {late}, after {last_written:?}, of {holders:?}"
            );
            if taken {
                last_written = last_written.max(Some(late));
            }
        }
    }
}

/// The same rule with real clients and servers. The resource accepts a write of each holder. After that, it
/// refuses a second write of every earlier holder.
#[tokio::test]
async fn a_resource_refuses_former_holders_of_all_generations() {
    let fleet = Fleet::start().await;
    let clients = fleet.clients().await;
    let (mut resource, mut past) = (Resource::default(), Vec::new());
    for step in [1, 1, 2, 1, 2, 2, 3, 2, 3, 3] {
        let fences = granted(&clients[step - 1], step).await;
        assert!(resource.accepts(fences), "{step}: {fences:?}");
        for before in &past {
            assert!(!resource.accepts(*before), "{before:?}, after {fences:?}");
        }
        past.push(fences);
    }
}

/// Acquires and releases the key until a grant has a fence. The first grant over a connection may have none.
async fn granted(client: &Client, step: usize) -> Fences {
    loop {
        let guard = client.lock(MOVES).unwrap().acquire().await.unwrap();
        let fences = Fences::of(&guard, step);
        guard.release().await.unwrap();
        if let Some(fences) = fences {
            return fences;
        }
    }
}
