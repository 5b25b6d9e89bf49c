//! The contents of `stats`.

use dflockd_client::server::{Release, Server};
use serde_json::Value;

use super::{imitate, start, token};
use crate::support::raw::RawConnection;

#[tokio::test]
async fn stats_have_fractions_and_an_order() {
    for release in Release::ALL {
        let (server, address) = start(Server::builder().release(release)).await;
        let mut connection = RawConnection::open(&address).await;
        let mut keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
        for key in &keys {
            let grant = connection.request("l", key, "0 30").await;
            assert_eq!(connection.request("r", key, &token(&grant)).await, "ok");
        }
        connection.request("l", "held", "0 30").await;
        connection.request("sl", "one", "0 1 30").await;
        connection.request("sl", "two", "0 2 30").await;
        let mut read = async || -> Value {
            let stats = connection.request("stats", "_", "_").await;
            serde_json::from_str(stats.strip_prefix("ok ").unwrap()).unwrap()
        };
        let stats = read().await;
        assert_eq!(stats, {
            let mut again = read().await;
            // Two answers may differ in these fields, which change with time.
            for (list, field) in [("locks", "lease_expires_in_s"), ("idle_locks", "idle_s")] {
                for (now, before) in again[list]
                    .as_array_mut()
                    .unwrap()
                    .iter_mut()
                    .zip(stats[list].as_array().unwrap())
                {
                    now[field] = before[field].clone();
                }
            }
            again
        });
        let left = stats["locks"][0]["lease_expires_in_s"].as_f64().unwrap();
        assert!(left > 0.0 && left < 30.0 && left.fract() > 0.0, "{release}: {left}");
        let idle = stats["idle_locks"].as_array().unwrap();
        assert!(
            idle.iter().all(|idle| idle["idle_s"].as_f64().unwrap().fract() > 0.0),
            "{release}"
        );
        // Real servers have 64 maps of keys, and list one map after the other. The hash of a key selects its map. From
        // 1.14 on, a key is hashed with the prefix `lock:`. The embedded server also sorts the keys of each map.
        let prefix = if release >= Release::V1_14 { "lock:" } else { "" };
        keys.sort_by_key(|key| {
            let bytes = prefix.bytes().chain(key.bytes());
            let hash = bytes.fold(2_166_136_261_u32, |hash, byte| {
                (hash ^ u32::from(byte)).wrapping_mul(16_777_619)
            });
            (hash % 64, key.clone())
        });
        let told: Vec<&str> = idle.iter().map(|idle| idle["key"].as_str().unwrap()).collect();
        assert_eq!(told, keys, "{release}");
        // The server lists a semaphore of limit 1 among the locks.
        let semaphores = stats["semaphores"].as_array().unwrap();
        assert_eq!(semaphores.len(), 1, "{release}");
        assert_eq!(server.stats().locks.len(), 2, "{release}");
        assert!(
            server.stats().locks[0].lease_expires_in_s < 30,
            "the embedded server's stats have whole seconds: {release}"
        );
    }
}

#[tokio::test]
async fn stats_list_subscriptions_in_the_form_of_each_release() {
    for release in Release::ALL {
        let (server, address) = imitate(release).await;
        let mut connection = RawConnection::open(&address).await;
        let stats = connection.request("stats", "_", "_").await;
        let stats: Value = serde_json::from_str(stats.strip_prefix("ok ").unwrap()).unwrap();
        let expected = match release {
            Release::V1_11 => Some(Value::Null),
            Release::V1_11_2 | Release::V1_12 | Release::V1_13 | Release::V1_14 | Release::V1_15 | Release::V1_16 => {
                Some(Value::Array(Vec::new()))
            }
            _ => None,
        };
        assert_eq!(stats.get("signal_channels").cloned(), expected, "{release}");
        assert_eq!(server.stats().signal_channels, []);
    }
}
