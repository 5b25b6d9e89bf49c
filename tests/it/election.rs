//! Leader election on a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::fake::FakeServer;
use crate::support::proxy::Proxy;
use crate::support::until;
use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, Election, ErrorKind, Fencing, blocking};

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(30);

async fn server() -> Server {
    Server::builder().port(0).record_events(true).start().await.unwrap()
}

fn options(address: &str) -> ClientBuilder {
    Client::builder().servers([address]).acquire_timeout(SHORT)
}

/// Returns a candidate that has a client of its own and this TTL. Its terms have numbers, because fences are required.
async fn candidate(address: &str, ttl: Duration) -> Election {
    let options = options(address).fencing(Fencing::Required);
    let client = options.connect().await.unwrap();
    Election::new(client.lock("leader").unwrap().lease_ttl(ttl))
}

fn waiters(server: &Server) -> u64 {
    server.stats().locks.iter().map(|lock| lock.waiters).sum()
}

#[tokio::test]
async fn one_leads_until_it_resigns_and_each_term_is_greater() {
    let server = server().await;
    let address = server.local_addr().to_string();
    let leading = Arc::new(AtomicU32::new(0));
    let mut candidates = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (election, leading) = (candidate(&address, LONG).await, Arc::clone(&leading));
        candidates.spawn(async move {
            let mut terms = Vec::new();
            for _ in 0..3 {
                let leadership = election.campaign().await.unwrap();
                assert_eq!(leading.fetch_add(1, Ordering::SeqCst), 0, "no other candidate leads");
                assert!(leadership.is_held() && leadership.key() == election.key());
                // The leader stays for longer than the acquire timeout of the other candidates.
                tokio::time::sleep(SHORT * 2).await;
                leading.fetch_sub(1, Ordering::SeqCst);
                terms.push((Instant::now(), leadership.term().expect("it is required")));
                leadership.resign().await.unwrap();
            }
            terms
        });
    }
    let mut terms = candidates.join_all().await.concat();
    terms.sort();
    assert!(
        terms.len() == 9 && terms.is_sorted_by_key(|(_, term)| *term),
        "{terms:?}"
    );
}

#[tokio::test]
async fn dropping_ends_a_campaign_and_a_leadership() {
    let server = server().await;
    let address = server.local_addr().to_string();
    let (first, second) = (candidate(&address, LONG).await, candidate(&address, LONG).await);
    let leadership = first.try_campaign().await.unwrap().unwrap();
    assert!(second.try_campaign().await.unwrap().is_none());
    let campaign = tokio::spawn(async move { second.campaign().await });
    until("it campaigns", || waiters(&server) == 1).await;
    campaign.abort();
    assert!(campaign.await.unwrap_err().is_cancelled());
    until("no candidate waits", || waiters(&server) == 0).await;
    drop(leadership);
    until("the lock is free", || server.stats().locks.is_empty()).await;
}

#[tokio::test]
async fn a_leader_that_is_cut_off_learns_of_it_before_another_leads() {
    let server = server().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let cut_off = candidate(&proxy.address, Duration::from_secs(2)).await;
    let other = candidate(&server.local_addr().to_string(), LONG).await;
    let old = cut_off.campaign().await.unwrap();
    let told = tokio::spawn({
        let lost = old.lost();
        async move {
            lost.await;
            Instant::now()
        }
    });
    let elected = tokio::spawn(async move {
        let new = other.campaign().await.unwrap();
        (Instant::now(), new)
    });
    proxy.change(|treatment| (treatment.stall_up, treatment.stall_down) = (true, true));
    let (told_at, (elected_at, new)) = (told.await.unwrap(), elected.await.unwrap());
    assert!(told_at < elected_at);
    assert!(old.term().is_some() && new.term() > old.term() && !old.is_held());
    let error = old.run(std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
}

#[tokio::test]
async fn a_campaign_outlives_its_connection_and_ends_with_its_client() {
    let server = server().await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let client = options(&proxy.address).connect().await.unwrap();
    let election = Election::new(client.lock("leader").unwrap());
    let leader = candidate(&server.local_addr().to_string(), LONG)
        .await
        .campaign()
        .await
        .unwrap();
    let campaign = tokio::spawn({
        let election = election.clone();
        async move { election.campaign().await }
    });
    until("it campaigns", || waiters(&server) == 1).await;
    proxy.change(|treatment| treatment.refuse = true);
    proxy.cut();
    let refused = proxy.accepted();
    until("an attempt to connect has failed", || proxy.accepted() > refused + 1).await;
    leader.resign().await.unwrap();
    assert!(!campaign.is_finished());
    proxy.pass_everything();
    let leadership = campaign.await.unwrap().unwrap();
    assert!(leadership.is_held());

    let hopeless = tokio::spawn(async move { election.campaign().await });
    until("it campaigns", || waiters(&server) == 1).await;
    client.shutdown(LONG).await;
    assert_eq!(hopeless.await.unwrap().unwrap_err().kind(), ErrorKind::Shutdown);
}

#[tokio::test]
async fn a_candidate_without_an_acquire_timeout_does_not_flood_the_server() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let server = FakeServer::start(move |mut connection, _| {
        let tries = Arc::clone(&counted);
        async move {
            connection.handshake().await;
            while let Some([command, ..]) = connection.request().await {
                if command == "l" {
                    tries.fetch_add(1, Ordering::SeqCst);
                    connection.say("timeout\n").await;
                } else {
                    connection.say("ok\n").await;
                }
            }
        }
    })
    .await;
    let client = options(&server.address)
        .acquire_timeout(Duration::ZERO)
        .connect()
        .await
        .unwrap();
    let election = Election::new(client.lock("leader").unwrap());
    assert!(
        tokio::time::timeout(Duration::from_secs(1), election.campaign())
            .await
            .is_err()
    );
    assert!((2..=5).contains(&tries.load(Ordering::SeqCst)), "{tries:?}");
}

#[tokio::test]
async fn threads_campaign_with_and_without_a_timeout() {
    let server = server().await;
    let address = server.local_addr().to_string();
    let (done, finished) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let options = options(&address).fencing(Fencing::Required);
        let client = options.connect_blocking().unwrap();
        let (first, second) = (client.lock("leader").unwrap(), client.lock("leader").unwrap());
        let (first, second) = (blocking::Election::new(first), blocking::Election::new(second));
        let leadership = first.campaign(LONG).unwrap().unwrap();
        assert!(second.try_campaign().unwrap().is_none());
        assert!(second.campaign(SHORT * 3).unwrap().is_none());
        let term = leadership.term();
        let next = std::thread::spawn(move || second.campaign(None).unwrap().unwrap());
        assert!(leadership.wait_lost(SHORT).unwrap().is_none());
        leadership.resign().unwrap();
        let next = next.join().unwrap();
        assert!(next.is_held() && term.is_some() && next.term() > term);
        drop(next);
        done.send(()).unwrap();
    });
    finished.await.unwrap();
    until("no candidate leads", || server.stats().locks.is_empty()).await;
}
