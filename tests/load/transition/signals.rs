//! Signals between clients of neighbouring generations. Two generations are neighbours if they have a list in common.

use dflockd_client::{Client, ErrorKind, SignalConn};

use super::fleet::{Fleet, MOVES};

async fn next(signals: &mut SignalConn) -> String {
    let patience = std::time::Duration::from_secs(30);
    let signal = tokio::time::timeout(patience, signals.next_signal()).await;
    signal
        .expect("a signal in time")
        .expect("an open stream")
        .payload()
        .to_owned()
}

/// Each subscription receives each signal of its own and the neighbouring generation once.
#[tokio::test]
async fn neighbouring_generations_receive_each_others_signals() {
    let fleet = Fleet::start_release("1.16").await;
    let clients = fleet.clients().await;
    for neighbours in [[0, 1], [1, 2]] {
        let mut listeners = Vec::new();
        for listener in neighbours {
            listeners.push(clients[listener].subscribe(MOVES).await.unwrap());
        }
        for emitter in neighbours {
            assert_eq!(clients[emitter].emit(MOVES, format!("of {emitter}")).await.unwrap(), 2);
            for signals in &mut listeners {
                assert_eq!(next(signals).await, format!("of {emitter}"));
            }
        }
        let handle = listeners[0].handle();
        assert_eq!(handle.emit(MOVES, "by the handle").await.unwrap(), 2);
        for signals in &mut listeners {
            assert_eq!(next(signals).await, "by the handle");
        }
    }
}

/// If the previous and the current list have no server in common, no server has the listeners of all generations. So
/// `emit` fails, but locks still work.
#[tokio::test]
async fn signals_are_refused_if_no_server_reaches_all_generations() {
    let fleet = Fleet::start_release("1.16").await;
    let client = Client::builder()
        .servers([&fleet.proxies[0].address])
        .previous_servers([fleet.proxies[1].address.as_str()])
        .previous_sharding_strategy(dflockd_client::stable_hash_shard)
        .connect()
        .await
        .unwrap();
    let error = client.emit(MOVES, "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let guard = client.lock(MOVES).unwrap().acquire().await.unwrap();
    fleet.until_load([(1, 0), (1, 0), (0, 0)]).await;
    guard.release().await.unwrap();
}
