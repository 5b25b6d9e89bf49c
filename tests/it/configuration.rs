//! Async and blocking clients that are configured by a URL, by the environment or by data. The unit tests in
//! `src/config` cover valid and invalid texts. The tests here make clients from these texts.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crate::support::pki::{Authority, Folder, HERE, serve};
use crate::support::process::is_alone_with;
use dflockd_client::server::{Cluster, Server};
use dflockd_client::{
    Budget, Client, ClientBuilder, ClientOptions, ErrorKind, Fencing, LeaseState, LostReason, RenewPolicy, Shard,
    ShardingStrategy, SignalConn, blocking,
};

const SECRET: &str = "se/same@ünd: 100%";
const ENCODED: &str = "se%2Fsame%40%C3%BCnd%3A%20100%25";

async fn guarded() -> Server {
    let builder = Server::builder().auth_token(SECRET);
    builder.port(0).start().await.unwrap()
}

#[tokio::test]
async fn a_url_has_the_secret_the_servers_and_the_settings() {
    let (one, two) = (guarded().await, guarded().await);
    let url = format!(
        "dflockd://{ENCODED}@{},{}/?lease_ttl=7s&acquire_timeout=0s",
        one.local_addr(),
        two.local_addr()
    );
    let client = Client::connect(&url).await.unwrap();
    assert_eq!(client.health().len(), 2);
    for number in 0..8 {
        let lock = client.lock(format!("k{number}")).unwrap();
        let _guard = lock.acquire().await.unwrap();
        let refused = lock.acquire().await.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.budget()),
            (ErrorKind::Timeout, Some(Budget::Wait(Duration::ZERO)))
        );
    }
    let guard = client.lock("k0").unwrap().acquire().await.unwrap();
    assert_eq!(guard.ttl().as_secs(), 7);

    let wrong = format!("dflockd://s%C3%A9same@{}", one.local_addr());
    let refused = Client::connect(&wrong).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Auth);
    assert!(!format!("{refused} {refused:?}").contains("same"), "{refused:?}");
    let nonsense = Client::connect("dflockd://a:1/?lease=7s").await.unwrap_err();
    assert!(nonsense.kind() == ErrorKind::InvalidInput && nonsense.to_string().contains("\"lease\""));
    let too_short = Client::connect("dflockd://a:1/?lease_ttl=7ms").await.unwrap_err();
    assert!(too_short.to_string().contains("lease TTL 7ms"), "{too_short}");
}

/// A URL or code sets the renewal policy of a client. A handle starts with this policy and may change parts of it.
#[tokio::test]
async fn a_renewal_policy_is_set_for_a_client_and_changed_for_a_handle() {
    let server = Server::builder().port(0).start().await.unwrap();
    let url = format!(
        "dflockd://{}/?lease_ttl=1s&renew=no&renew_jitter=0&max_hold=1h",
        server.local_addr()
    );
    let in_code = ClientBuilder::from(ClientOptions::default())
        .servers([server.local_addr().to_string()])
        .lease_ttl(Duration::from_secs(1))
        .renew_policy(RenewPolicy::default().max_hold(Duration::ZERO));
    for (number, builder) in [ClientBuilder::from_url(&url).unwrap(), in_code]
        .into_iter()
        .enumerate()
    {
        assert!(format!("{builder:?}").contains("max_hold"), "{builder:?}");
        let client = builder.connect().await.unwrap();
        let lock = |key: &str| client.lock(format!("{key}/{number}")).unwrap();
        let all_alike = lock("a").acquire().await.unwrap();
        let of_its_own = lock("b")
            .renew(true)
            .max_hold(Duration::from_secs(60))
            .acquire()
            .await
            .unwrap();
        let whole = lock("c").renew_policy(RenewPolicy::default()).acquire().await.unwrap();
        assert_eq!(all_alike.lost().await, LostReason::Expired);
        assert!(of_its_own.is_held() && whole.is_held());
    }
}

#[tokio::test]
async fn signal_connections_take_a_url_as_clients_do() {
    let builder = Server::builder().release("1.16").auth_token(SECRET);
    let server = builder.port(0).start().await.unwrap();
    let url = format!("dflockd://{ENCODED}@{}", server.local_addr());
    let described = ClientBuilder::from_url(&url).unwrap();
    let mut signals = SignalConn::open(described, Default::default()).await.unwrap();
    signals.listen("a", None).await.unwrap();
    assert_eq!(Client::connect(&url).await.unwrap().emit("a", "b").await.unwrap(), 1);
    assert_eq!(signals.next_signal().await.unwrap().payload(), "b");
}

#[test]
fn threads_take_a_url_as_tasks_do() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(guarded());
    let url = format!("dflockd://{ENCODED}@{}", server.local_addr());
    let client = blocking::Client::connect(&url).unwrap();
    client.lock("k").unwrap().acquire().unwrap().release().unwrap();
    let built = ClientBuilder::from_url(&url).unwrap().connect_blocking().unwrap();
    assert!(built.health()[0].is_connected());
    let mut alone = blocking::DistributedLock::with_options("k", ClientBuilder::from_url(&url).unwrap()).unwrap();
    assert!(alone.acquire().unwrap());
    let refused = blocking::Client::connect("dflockd://").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_cluster_in_a_url_is_followed() {
    let each = Server::builder().orphan_ttl(Duration::from_secs(600));
    let cluster = Cluster::builder().options(each).start().await.unwrap();
    let url = format!(
        "dflockd://{}/?orphan_ttl=10m&reconnect=2ms..20ms",
        cluster.addresses().join("+")
    );
    let client = Client::connect(&url).await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let leader = client.health()[0].endpoint.clone();
    cluster.move_leader((cluster.leader().unwrap() + 1) % 3).unwrap();
    client
        .lock("other")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    assert_ne!(client.health()[0].endpoint, leader);
    crate::support::until("the lease is held at the new leader", || {
        guard.state() == LeaseState::Held
    })
    .await;
}

/// In the URL, a standby follows the first server of its shard after a `;`. The first server is down.
#[tokio::test]
async fn a_standby_in_a_url_takes_over() {
    let nothing_listens_there = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (standby, other) = (guarded().await, guarded().await);
    let url = format!(
        "dflockd://{ENCODED}@{nothing_listens_there};{},{}/?lease_ttl=1s&reconnect=2ms..20ms",
        standby.local_addr(),
        other.local_addr()
    );
    let client = ClientBuilder::from_url(&url).unwrap().build().unwrap();
    let key = (0..)
        .map(|number| format!("k{number}"))
        .find(|key| client.shard_of(key).unwrap() == 0)
        .unwrap();
    let lock = client.lock(&key).unwrap().acquire_timeout(Duration::from_secs(60));
    let guard = lock.acquire().await.unwrap();
    assert_eq!(standby.stats().locks.len(), 1);
    let health = client.health();
    assert_eq!(
        (health.len(), &*health[0].endpoint),
        (2, &*standby.local_addr().to_string())
    );
    guard.release().await.unwrap();
}

/// A strategy that is chosen at run time may be in an `Arc` or in a `Box`.
#[tokio::test]
async fn keys_are_routed_by_strategies_behind_pointers() {
    let by_last_digit = |key: &str, servers: usize| usize::from(key.as_bytes()[key.len() - 1] - b'0') % servers;
    let shared: Arc<dyn ShardingStrategy> = Arc::new(by_last_digit);
    let boxed: Box<dyn ShardingStrategy> = Box::new(by_last_digit);
    let builders = [
        Client::builder().sharding_strategy(Arc::clone(&shared)),
        Client::builder().sharding_strategy(boxed),
    ];
    for builder in builders {
        let servers = [guarded().await, guarded().await];
        let client = builder
            .servers(servers.iter().map(|server| server.local_addr().to_string()))
            .auth_token(SECRET)
            .connect()
            .await
            .unwrap();
        let mut held = Vec::new();
        for number in 0..8 {
            let key = format!("k{number}");
            assert_eq!(client.shard_of(&key).unwrap(), shared.shard(&key, 2));
            held.push(client.lock(&key).unwrap().acquire().await.unwrap());
        }
        for (number, server) in servers.iter().enumerate() {
            let mut keys: Vec<_> = server.stats().locks.into_iter().map(|lock| lock.key).collect();
            keys.sort_unstable();
            let expected: Vec<_> = (0..4).map(|step| format!("k{}", 2 * step + number)).collect();
            assert_eq!(keys, expected);
        }
    }
}

#[tokio::test]
async fn a_url_configures_tls_by_file_names() {
    let authority = Authority::new("of the URL");
    let server = serve(Server::builder(), &authority.issue(HERE)).await;
    let folder = Folder::new();
    let ca = folder.write("ca & more.pem", &authority.pem());
    let path = ca.display().to_string().replace(' ', "%20").replace('&', "%26");
    let url = format!("dflockds://{}/?tls_ca_file={path}", server.local_addr());
    let client = Client::connect(&url).await.unwrap();
    client
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();

    let missing = Client::connect("dflockds://a/?tls_ca_file=/no/such/file")
        .await
        .unwrap_err();
    assert!(missing.to_string().contains("/no/such/file"), "{missing}");
    // This client trusts the certificates of the system, and the test's authority is not among them.
    let untrusted = Client::connect(&format!("dflockds://{}", server.local_addr())).await;
    assert!(untrusted.is_err());
}

#[test]
fn later_setters_of_the_builder_override_the_url() {
    let builder =
        ClientBuilder::from_url("dflockd://sesame@a:1/?acquire_timeout=3s&fencing=required&keepalive=4s").unwrap();
    let builder = builder
        .acquire_timeout(Duration::from_millis(1500))
        .fencing(Fencing::Off)
        .shards([Shard::cluster(["b:1", "c:1"]).orphan_ttl(Duration::from_secs(9))])
        .auth_token_env("NAME")
        .key_class(|_| "all");
    let shown = format!("{builder:?}");
    for part in [
        "servers: b:1+c:1,",
        "orphan_ttl: 9s",
        "auth_token_env: NAME",
        "acquire_timeout: 1.5s",
        "keepalive: 4s",
        "reply_timeout: 10s",
        "fencing: off",
        "sharding_strategy: stable_hash_shard",
        "reconnect: 50ms..5s",
        "tls: false",
        "connector: false",
        "key_class: true",
        "layers: 0",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("sesame"), "{shown}");
}

#[test]
fn the_debug_output_of_a_builder_shows_no_secret() {
    let shards = [
        Shard::cluster(["user:sesame@a:1"]).stable_ref(dflockd_client::protocol::StableRef::new("sesame-1").unwrap()),
        "dflockd://sesame@b:1".into(),
    ];
    let builder = Client::builder()
        .shards(shards.clone())
        .auth_token("sesame")
        .sharding_strategy(|_: &str, _: usize| 0);
    for shown in [format!("{builder:?}"), format!("{builder:#?}"), format!("{shards:?}")] {
        assert!(!shown.contains("sesame"), "{shown}");
    }
    assert!(format!("{builder:?}").contains("sharding_strategy: custom"));
}

#[test]
fn the_environment_describes_a_client() {
    let variables = [
        ("DFLOCKD_URL", "dflockd://sesame@a:1+b:1/?lease_ttl=7s&keepalive=4s"),
        ("DFLOCKD_CLIENT_KEEPALIVE", "5s"),
        ("DFLOCKD_MAX_WAITERS", "0"),
    ];
    if !is_alone_with("configuration::the_environment_describes_a_client", &variables) {
        return;
    }
    let options = ClientOptions::from_env().unwrap();
    assert_eq!(options.to_string(), "dflockd://…@a:1+b:1/?lease_ttl=7s&keepalive=5s");
    let shown = format!("{:?}", ClientBuilder::from_env().unwrap());
    assert!(
        shown.contains("keepalive: 5s") && shown.contains("servers: a:1+b:1"),
        "{shown}"
    );
}
