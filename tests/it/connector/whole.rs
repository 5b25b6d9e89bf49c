//! Every function of a client, over the streams of a connector.

use std::sync::mpsc;
use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{Client, Enqueued, ErrorKind, LostReason, Shard, SignalConn, SignalOptions, blocking};
use tokio::time::timeout;

use super::{NAME, Network, builder, served};
use crate::support::cluster::{ClusterScene, patiently};
use crate::support::pair::{PRIMARY, Pair, STANDBY};
use crate::support::until;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn locks_waits_tickets_semaphores_and_stats() {
    let (server, network) = served().await;
    let connect = || builder().connector(network.connector()).connect();
    let (one, other) = (connect().await.unwrap(), connect().await.unwrap());
    assert_eq!(one.health()[0].endpoint.as_ref(), NAME);

    let guard = one.lock("k").unwrap().acquire().await.unwrap();
    let waiting = other.lock("k").unwrap();
    let waiting = tokio::spawn(async move { waiting.acquire().await });
    until("the second caller waits", || server.stats().locks[0].waiters == 1).await;
    let Enqueued::Queued(ticket) = one.lock("k").unwrap().enqueue().await.unwrap() else {
        panic!("it is held");
    };
    guard.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
    ticket.wait(SOON).await.unwrap().release().await.unwrap();

    let semaphore = one.semaphore("s", 2).unwrap();
    let permits = [semaphore.acquire().await.unwrap(), semaphore.acquire().await.unwrap()];
    assert_eq!(other.stats().await.unwrap().semaphores[0].holders, 2);
    drop(permits);
    let keys = one.lock_all(["a", "b", "c"]).unwrap();
    keys.acquire().await.unwrap().release().await.unwrap();
    until("everything is given back", || {
        let stats = server.stats();
        stats.locks.is_empty() && stats.semaphores.is_empty()
    })
    .await;
    assert!(network.asked().iter().all(|asked| asked == NAME));
}

#[tokio::test]
async fn a_secret_is_presented_over_a_connector_and_a_wrong_one_is_refused() {
    let server = Server::builder().port(0).auth_token("sesame");
    let server = server.start().await.unwrap();
    let network = Network::default().with(NAME, server.local_addr());
    let connect = |token: &str| builder().connector(network.connector()).auth_token(token).connect();
    let client = connect("sesame").await.unwrap();
    assert!(client.health()[0].is_connected());
    assert_eq!(connect("wrong").await.unwrap_err().kind(), ErrorKind::Auth);
}

#[tokio::test]
async fn signals_of_a_client_and_of_a_connection_alone() {
    let (_server, network) = served().await;
    let builder = builder().connector(network.connector());
    let client = builder.clone().connect().await.unwrap();
    let mut alone = SignalConn::open(builder, SignalOptions::default()).await.unwrap();
    alone.listen("orders.*", None).await.unwrap();
    assert_eq!(client.emit("orders.42", "paid").await.unwrap(), 1);
    let signal = timeout(SOON, alone.next_signal()).await.unwrap().unwrap();
    assert_eq!((signal.channel(), signal.payload()), ("orders.42", "paid"));
}

#[test]
fn the_client_for_threads_runs_its_connector_in_its_own_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, network) = runtime.block_on(served());
    let client = builder().connector(network.connector()).connect_blocking().unwrap();
    let guard = client.lock("k").unwrap().acquire().unwrap();
    let (told, waits) = mpsc::channel();
    let waiter = std::thread::spawn({
        let client: blocking::Client = client.clone();
        move || {
            told.send(()).unwrap();
            client.lock("k").unwrap().acquire().unwrap().release()
        }
    });
    waits.recv().unwrap();
    guard.release().unwrap();
    waiter.join().unwrap().unwrap();
    assert!(server.stats().locks.is_empty());
}

/// The client gives the connector the standby's own name.
#[tokio::test]
async fn a_connector_reaches_the_standby_after_a_failover() {
    let mut pair = Pair::start().await;
    let names = ["primary.internal:1", "reserve.internal:1"];
    let network = Network::default()
        .with(names[PRIMARY], pair.server(PRIMARY).local_addr())
        .with(names[STANDBY], pair.server(STANDBY).local_addr());
    let second = Duration::from_secs(1);
    let client = builder()
        .shards([Shard::standby(names)])
        .lease_ttl(second)
        .connector(network.connector())
        .connect()
        .await
        .unwrap();
    let lock = client.lock("k").unwrap().acquire_timeout(SOON);
    let guard = lock.acquire().await.unwrap();
    pair.kill(PRIMARY).await;
    assert_eq!(timeout(SOON, guard.lost()).await.unwrap(), LostReason::Disconnected);
    let guard = loop {
        match lock.acquire().await {
            Ok(guard) => break guard,
            // The acquire fails until the standby has taken over.
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    };
    assert_eq!(client.health()[0].endpoint.as_ref(), names[STANDBY]);
    guard.release().await.unwrap();
    assert!(network.asked().contains(&names[STANDBY].to_owned()));
}

/// The cluster names a leader that is not in the client's configuration. The client gives the connector the address of
/// this leader.
#[tokio::test]
async fn a_connector_is_asked_for_a_leader_that_the_cluster_names() {
    let scene = ClusterScene::set(Server::builder()).await;
    let addresses = scene.cluster.addresses();
    let network = addresses.iter().fold(Network::default(), |network, address| {
        network.with(address, address.parse().unwrap())
    });
    let shard = Shard::cluster([addresses[0].clone()]).allowed_hosts(["127.0.0.1"]);
    let client = builder()
        .shards([shard])
        .connector(network.connector())
        .connect()
        .await
        .unwrap();
    let before = patiently(&client, "k").acquire().await.unwrap();
    before.release().await.unwrap();
    scene.cluster.move_leader(2).unwrap();
    patiently(&client, "k")
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    assert_eq!(client.health()[0].endpoint.as_ref(), addresses[2]);
    assert!(network.asked().contains(&addresses[2]));
}

/// If a builder gets several connectors, the last connector counts. A client without a connector is not affected.
#[tokio::test]
async fn each_client_has_its_own_connector() {
    let (server, network) = served().await;
    let builder = builder()
        .connector(Network::default().connector())
        .connector(network.connector());
    builder.clone().connect().await.unwrap();
    assert_eq!(format!("{builder:?}").matches("Connector").count(), 0);
    let direct = Client::builder().servers([server.local_addr().to_string()]);
    direct.connect().await.unwrap();
    assert_eq!(network.asked().len(), 1);
}
