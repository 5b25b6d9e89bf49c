//! Tests of signals between the Python client 1.9.0 and this client, through the embedded server. One test has a server
//! without signals.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{Client, ErrorKind, SignalConn};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{python, script};

const SOON: Duration = Duration::from_secs(30);

/// The Python client in its own process.
struct Python {
    child: Child,
    lines: Option<BufReader<ChildStdout>>,
}

impl Python {
    fn start(server: &Server, api: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(python("client-1"))
            .arg(script("signals.py"))
            .args(["127.0.0.1", &server.local_addr().port().to_string(), api])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = child.stdout.take().map(BufReader::new);
        Self { child, lines }
    }

    /// Returns the next lines that the process prints.
    async fn say(&mut self, count: usize) -> Vec<String> {
        let mut lines = self.lines.take().unwrap();
        let (lines, said) = spawn_blocking(move || {
            let said = lines.by_ref().lines().take(count).map(Result::unwrap).collect();
            (lines, said)
        })
        .await
        .unwrap();
        self.lines = Some(lines);
        said
    }

    async fn ends(mut self) {
        let status = spawn_blocking(move || self.child.wait().unwrap()).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

async fn start() -> (Server, SignalConn) {
    let server = Server::builder().release("1.16").port(0).start().await.unwrap();
    let conn = SignalConn::connect(server.local_addr().to_string()).await.unwrap();
    (server, conn)
}

async fn next(conn: &mut SignalConn) -> String {
    let signal = timeout(SOON, conn.next_signal()).await.unwrap().unwrap();
    format!("{} {}", signal.channel(), signal.payload())
}

/// Python receives the signals of Rust, and Rust receives the signals of Python. The patterns have wildcards, and the
/// payloads have blanks and characters outside ASCII.
pub(super) async fn across(api: &'static str) {
    let (server, mut conn) = start().await;
    let mut subscriber = Python::start(&server, api, &["subscribe", "orders.*.>", "", "3"]);
    assert_eq!(subscriber.say(1).await, ["ready"]);
    assert_eq!(conn.emit("orders.42", "one token short").await.unwrap(), 0);
    for payload in ["paid", "  blanks and all ", "ü 漢字 🔒"] {
        assert_eq!(conn.emit("orders.42.état", payload).await.unwrap(), 1);
    }
    let said = subscriber.say(3).await;
    assert_eq!(
        said,
        [
            "orders.42.état paid",
            "orders.42.état   blanks and all ",
            "orders.42.état ü 漢字 🔒"
        ]
    );
    subscriber.ends().await;

    conn.listen("from.*", None).await.unwrap();
    let mut publisher = Python::start(&server, api, &["publish", "from.python", "50"]);
    for number in 0..50 {
        assert_eq!(next(&mut conn).await, format!("from.python {api} {number}"));
    }
    assert!(publisher.say(50).await.iter().all(|delivered| delivered == "1"));
    publisher.ends().await;
}

/// A group with one Python client and one Rust client. Its members receive signals in turn.
pub(super) async fn one_group(api: &'static str) {
    let (server, mut conn) = start().await;
    conn.listen("jobs", "workers").await.unwrap();
    let mut member = Python::start(&server, api, &["subscribe", "jobs", "workers", "10"]);
    assert_eq!(member.say(1).await, ["ready"]);
    let mut publisher = Python::start(&server, api, &["publish", "jobs", "20"]);
    assert!(publisher.say(20).await.iter().all(|delivered| delivered == "1"));
    publisher.ends().await;
    for number in (0..20).step_by(2) {
        assert_eq!(next(&mut conn).await, format!("jobs {api} {number}"));
    }
    let odd: Vec<String> = (1..20)
        .step_by(2)
        .map(|number| format!("jobs {api} {number}"))
        .collect();
    assert_eq!(member.say(10).await, odd);
    member.ends().await;
}

/// A Python publisher and a Python subscriber exchange signals through the embedded server.
pub(super) async fn alone(api: &'static str) {
    let (server, _conn) = start().await;
    let mut subscriber = Python::start(&server, api, &["subscribe", ">", "", "20"]);
    assert_eq!(subscriber.say(1).await, ["ready"]);
    let publisher = Python::start(&server, api, &["publish", "a.b", "20"]);
    let expected: Vec<String> = (0..20).map(|number| format!("a.b {api} {number}")).collect();
    assert_eq!(subscriber.say(20).await, expected);
    publisher.ends().await;
    subscriber.ends().await;
}

/// The Python server 0.5.0 closes a connection after an unknown command. The client must not lose a lease because a
/// caller asks for signals.
pub(super) async fn a_server_without_signals(address: String) {
    let error = SignalConn::connect(&address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let client = Client::builder().servers([&address]).connect().await.unwrap();
    let key = format!("kept-{:?}", std::time::SystemTime::now()).replace(' ', "");
    let guard = client.lock(key).unwrap().acquire().await.unwrap();
    let error = client.emit("a", "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(client.subscribe("a").await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(guard.is_held());
    guard.release().await.unwrap();
}
