//! Tries the addresses of a name in the order and at the times of RFC 8305.
//!
//! A host that is reachable over only one address family costs at most a quarter of a second, instead of a timeout.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How long an address is tried alone before the next one is tried too (RFC 8305, section 5).
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

/// Returns the addresses in the order of the attempts. The families alternate, beginning with the family that the
/// resolver put first; within a family, the resolver's order stays. Duplicates are removed.
pub(crate) fn interleave(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    let all: Vec<SocketAddr> = addresses.into_iter().filter(|address| seen.insert(*address)).collect();
    let Some(first) = all.first().copied() else {
        return all;
    };
    let (mut preferred, mut other): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|address| address.is_ipv6() == first.is_ipv6());
    let turns = preferred.len().min(other.len());
    let rest: Vec<_> = preferred.drain(turns..).chain(other.drain(turns..)).collect();
    let in_turn = preferred
        .into_iter()
        .zip(other)
        .flat_map(|(one, another)| [one, another]);
    in_turn.chain(rest).collect()
}

/// Tries the addresses in order. An attempt begins a [while](STAGGER) after the previous one, or as soon as an earlier
/// one has failed. The first success wins, and the other attempts are cancelled.
///
/// # Errors
///
/// The failure of each address, in the order in which they failed.
///
/// # Cancel safety
///
/// Safe: dropping the future cancels all attempts.
pub(crate) async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Vec<(SocketAddr, io::Error)>>
where
    F: Future<Output = io::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let mut waiting = addresses.into_iter();
    let mut running = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            let attempt = connect(address);
            running.spawn(async move { (address, attempt.await) });
        }
        let next_at = Instant::now() + STAGGER;
        let finished = tokio::select! {
            biased;
            finished = running.join_next() => finished,
            () = sleep_until(next_at), if waiting.len() > 0 => continue,
        };
        match finished {
            Some(Ok((_, Ok(connected)))) => return Ok(connected),
            Some(Ok((address, Err(error)))) => failures.push((address, error)),
            // A runtime that shuts down ends its tasks. A panic comes from the caller's function.
            Some(Err(ended)) => {
                if let Ok(panic) = ended.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
            None => return Err(failures),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::sleep;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| format!("{text}:1").parse().unwrap()).collect()
    }

    fn order(texts: &[&str]) -> Vec<SocketAddr> {
        interleave(addresses(texts))
    }

    #[test]
    fn families_take_turns_and_the_resolvers_first_choice_begins() {
        assert_eq!(
            order(&["[::1]", "[::2]", "[::3]", "10.0.0.1", "10.0.0.2"]),
            addresses(&["[::1]", "10.0.0.1", "[::2]", "10.0.0.2", "[::3]"])
        );
        assert_eq!(
            order(&["10.0.0.1", "[::1]", "[::2]"]),
            addresses(&["10.0.0.1", "[::1]", "[::2]"])
        );
        assert_eq!(order(&["10.0.0.2", "10.0.0.1"]), addresses(&["10.0.0.2", "10.0.0.1"]));
        assert_eq!(order(&["10.0.0.1", "10.0.0.1"]), addresses(&["10.0.0.1"]));
        assert_eq!(order(&[]), []);
    }

    /// When each address was tried, measured by a paused clock.
    #[derive(Clone)]
    struct Tried(Arc<Mutex<Vec<(SocketAddr, u128)>>>, Instant);

    impl Tried {
        fn new() -> Self {
            Self(Arc::default(), Instant::now())
        }

        fn note(&self, address: SocketAddr) {
            self.0.lock().unwrap().push((address, self.1.elapsed().as_millis()));
        }

        fn times(&self) -> Vec<u128> {
            self.0.lock().unwrap().iter().map(|(_, time)| *time).collect()
        }
    }

    async fn fails(after: u64) -> io::Result<SocketAddr> {
        sleep(Duration::from_millis(after)).await;
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_costs_a_quarter_of_a_second() {
        let all = addresses(&["[::1]", "10.0.0.1", "10.0.0.2"]);
        let tried = Tried::new();
        let good = all[1];
        let winner = race(all, |address| {
            tried.note(address);
            async move {
                if address != good {
                    std::future::pending::<()>().await;
                }
                sleep(Duration::from_millis(10)).await;
                Ok(address)
            }
        });
        assert_eq!(winner.await.unwrap(), good);
        assert_eq!(tried.times(), [0, 250]);
        assert_eq!(tried.1.elapsed().as_millis(), 260);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_nothing() {
        let tried = Tried::new();
        let all = addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let last = all[2];
        let winner = race(all, |address| {
            tried.note(address);
            async move { if address == last { Ok(address) } else { fails(5).await } }
        });
        assert_eq!(winner.await.unwrap(), last);
        assert_eq!(tried.times(), [0, 5, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_still_wins_against_a_slower_second() {
        let all = addresses(&["10.0.0.1", "10.0.0.2"]);
        let first = all[0];
        let winner = race(all, |address| async move {
            sleep(Duration::from_millis(if address == first { 400 } else { 1_000 })).await;
            Ok(address)
        });
        assert_eq!(winner.await.unwrap(), first);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_each_failure_is_returned() {
        let all = addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let failures = race(all.clone(), |_| fails(300)).await.unwrap_err();
        let told: Vec<SocketAddr> = failures.iter().map(|(address, _)| *address).collect();
        assert_eq!(told, all);
        assert!(race(Vec::new(), |_| fails(0)).await.unwrap_err().is_empty());
    }
}
