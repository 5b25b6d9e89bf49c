//! Provokes errors of every kind except `ShardGone`.

use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use dflockd_client::protocol::StableRef;
use dflockd_client::protocol::functions::{self, Wire};
use dflockd_client::server::Server;
use dflockd_client::{
    Client, ClientBuilder, ClientService, DistributedLock, Error, Key, OnUnavailable, ReconnectPolicy, Request,
    Response, Token, WaitSecs, blocking,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tower::{Service, layer::layer_fn, service_fn};

use crate::support::fake::FakeServer;
use crate::support::pki::{Authority, HERE, serve, trusting};
use crate::support::proxy::Proxy;

/// Returns errors, each with a text that says what provoked it. If the text begins with `fatal: `, the error is fatal,
/// although most errors of its kind are retryable.
pub(crate) async fn provoke() -> Vec<(&'static str, Error)> {
    let mut all = said_by_servers().await;
    all.extend(of_streams().await);
    all.extend(of_connecting().await);
    all.extend(of_tls().await);
    all.extend(of_clients().await);
    all
}

fn builder(server: &str) -> ClientBuilder {
    Client::builder()
        .servers([server])
        .request_timeout(Duration::from_millis(300))
        .acquire_timeout(Duration::from_millis(300))
        .reconnect(ReconnectPolicy::exponential(
            Duration::from_millis(1),
            Duration::from_millis(20),
        ))
}

fn key() -> Key {
    Key::new("k").unwrap()
}

/// Returns the errors of low-level calls, each with a description.
async fn said_by_servers() -> Vec<(&'static str, Error)> {
    let mut all = Vec::new();
    for answer in [
        "error",
        "error_auth",
        "error_max_locks",
        "error_max_waiters",
        "error_limit_mismatch",
        "error_not_enqueued",
        "error_already_enqueued",
        "error_lease_expired",
        "error_draining",
        "error_not_leader a:1",
        "error_not_leader",
        "timeout",
        "nonsense",
    ] {
        let mut wire = Wire::new(peer(answer));
        let error = functions::acquire(&mut wire, &key(), WaitSecs::TRY, None)
            .await
            .unwrap_err();
        all.push((answer, error));
    }
    let ping = functions::ping(&mut Wire::new(peer("error"))).await.unwrap_err();
    all.push(("a ping that is unknown", ping));
    let barrier = functions::barrier(&mut Wire::new(peer("error"))).await.unwrap_err();
    all.push(("a barrier that is unknown", barrier));
    let reference = StableRef::new("r").unwrap();
    let session = functions::stable_ref(&mut Wire::new(peer("error")), reference).await;
    all.push(("a ref that is unknown", session.unwrap_err()));
    let token = Token::new("0123456789abcdef0123456789abcdef").unwrap();
    let release = functions::release(&mut Wire::new(peer("error")), &key(), &token).await;
    all.push(("a release of nothing", release.unwrap_err()));
    for answer in ["error", "error_lease_expired"] {
        let renew = functions::renew(&mut Wire::new(peer(answer)), &key(), &token, None).await;
        all.push(("a renewal of nothing", renew.unwrap_err()));
    }
    let stats = functions::stats(&mut Wire::new(peer("ok {\"connections\":\"many\"}"))).await;
    all.push(("stats that cannot be read", stats.unwrap_err()));
    all
}

/// Returns one end of a stream. At the other end, a task reads a request and sends this answer.
fn peer(answer: &'static str) -> DuplexStream {
    let (near, mut far) = duplex(4096);
    tokio::spawn(async move {
        let mut request = [0; 1024];
        drop(far.read(&mut request).await);
        drop(far.write_all(format!("{answer}\n").as_bytes()).await);
        drop(far.read(&mut request).await);
    });
    near
}

/// Errors of streams that end, that fail, or that are used again after an error.
async fn of_streams() -> Vec<(&'static str, Error)> {
    let (near, far) = duplex(4096);
    drop(far);
    let mut wire = Wire::new(near);
    let ended = functions::ping(&mut wire).await.unwrap_err();
    let out_of_step = functions::ping(&mut wire).await.unwrap_err();
    // The error of a reset stream comes from the operating system.
    let server = FakeServer::start(|mut connection, _| async move {
        drop(connection.request().await);
        connection.reset();
    })
    .await;
    let stream = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    let reset = functions::ping(&mut Wire::new(stream)).await.unwrap_err();
    vec![
        ("a stream that ended", ended),
        ("fatal: a stream that is out of step", out_of_step),
        ("a stream that was reset", reset),
    ]
}

async fn of_connecting() -> Vec<(&'static str, Error)> {
    let no_server = format!("127.0.0.1:{}", crate::support::process::free_port());
    let by_name = no_server.replace("127.0.0.1", "localhost");
    let taken = Server::builder().port(0).start().await.unwrap();
    let again = Server::builder().port(taken.local_addr().port()).start().await;
    let fail_fast = builder(&no_server)
        .on_unavailable(OnUnavailable::FailFast)
        .build()
        .unwrap();
    let (lock, stats) = (fail_fast.lock("k").unwrap(), fail_fast.stats());
    let waited = builder(&no_server).build().unwrap().lock("k").unwrap();
    let closes = FakeServer::start(|_, _| async {}).await;
    let silent = FakeServer::start(|connection, _| connection.until_hung_up()).await;
    let impatient = builder(&silent.address).connect_timeout(Duration::from_millis(50));
    let locked = Server::builder().port(0).auth_token("sesame");
    let locked = locked.start().await.unwrap();
    let address = locked.local_addr().to_string();
    let refuses = service_fn(async |_| Err::<DuplexStream, _>(std::io::Error::other("it is shut")));
    vec![
        ("no server", builder(&no_server).connect().await.unwrap_err()),
        (
            "no server at any address",
            builder(&by_name).connect().await.unwrap_err(),
        ),
        (
            "no socket in the file system",
            builder("unix:/no/such/socket").connect().await.unwrap_err(),
        ),
        (
            "no host",
            builder("no-such-host.invalid:1").connect().await.unwrap_err(),
        ),
        (
            "a connector that fails",
            builder(&no_server).connector(refuses).connect().await.unwrap_err(),
        ),
        ("an address that is taken", again.map(drop).unwrap_err()),
        ("no server, at once", lock.acquire().await.unwrap_err()),
        ("no server for stats", stats.await.unwrap_err()),
        ("no server in time", waited.acquire().await.unwrap_err()),
        (
            "a server that hangs up",
            builder(&closes.address).connect().await.unwrap_err(),
        ),
        ("a server that says nothing", impatient.connect().await.unwrap_err()),
        (
            "a token that is wrong",
            builder(&address).auth_token("nope").connect().await.unwrap_err(),
        ),
        ("no token", builder(&address).connect().await.unwrap_err()),
        (
            "no token file",
            builder(&address)
                .auth_token_file("/no/such/file")
                .connect()
                .await
                .unwrap_err(),
        ),
    ]
}

async fn of_tls() -> Vec<(&'static str, Error)> {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let mut all = Vec::new();
    for (what, identity) in [
        ("fatal: another authority", theirs.issue(HERE)),
        ("fatal: another name", ours.issue(&["elsewhere.example.org"])),
        ("fatal: an old certificate", ours.expired(HERE)),
        ("fatal: an early certificate", ours.not_valid_yet(HERE)),
        ("fatal: an authority as a server", ours.as_a_server()),
    ] {
        let server = serve(Server::builder(), &identity).await;
        let address = server.local_addr().to_string();
        let error = builder(&address).tls(trusting(&ours)).connect().await.unwrap_err();
        all.push((what, error));
        let plain = builder(&address).connect().await.unwrap_err();
        all.push(("fatal: no TLS where it is wanted", plain));
    }
    let plain = Server::builder().port(0).start().await.unwrap();
    let address = plain.local_addr().to_string();
    let error = builder(&address).tls(trusting(&ours)).connect().await.unwrap_err();
    all.push(("fatal: TLS where there is none", error));
    let closes = FakeServer::start(|mut connection, _| async move { drop(connection.request().await) }).await;
    let error = builder(&closes.address)
        .tls(trusting(&ours))
        .connect()
        .await
        .unwrap_err();
    all.push(("a handshake that is cut", error));
    all
}

async fn of_clients() -> Vec<(&'static str, Error)> {
    let server = Server::builder().port(0).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let client = builder(&proxy.address).connect().await.unwrap();
    let lock = client.lock("k").unwrap();
    let guard = lock.acquire().await.unwrap();
    let mut all = vec![
        ("a key that is held", lock.acquire().await.unwrap_err()),
        ("no key", Key::new("").unwrap_err()),
        ("no server list", builder("").build().unwrap_err()),
        ("a blocking call in a task", blocking_in_a_task(&server)),
    ];
    let mut object = DistributedLock::from(client.lock("o").unwrap());
    all.push(("no place", object.wait(Duration::from_millis(1)).await.unwrap_err()));
    assert!(object.acquire().await.unwrap());
    all.push(("an object that holds", object.acquire().await.unwrap_err()));
    let lost = guard.lost();
    proxy.cut();
    lost.await;
    all.push(("a lease that is lost", guard.release().await.unwrap_err()));
    let refuses = builder(&proxy.address).layer(layer_fn(Refuse)).build().unwrap();
    all.push((
        "a layer that refuses",
        refuses.lock("k").unwrap().acquire().await.unwrap_err(),
    ));
    proxy.change(|treatment| treatment.stall_up = true);
    all.push(("a server that stopped", lock.try_acquire().await.unwrap_err()));
    client.shutdown(Duration::from_millis(10)).await;
    all.push(("after the end", lock.acquire().await.unwrap_err()));
    all
}

fn blocking_in_a_task(server: &Server) -> Error {
    let options = builder(&server.local_addr().to_string());
    let lock = blocking::DistributedLock::with_options("k", options).unwrap().acquire();
    lock.unwrap_err()
}

/// A service that refuses each request with its own error.
#[derive(Clone)]
struct Refuse(ClientService);

impl Service<Request> for Refuse {
    type Response = Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Ready<Result<Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, _: Request) -> Self::Future {
        ready(Err("not on a Friday".into()))
    }
}
