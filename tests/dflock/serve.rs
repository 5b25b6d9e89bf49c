//! `dflock serve`: the flags of the real server, its shutdown, and clusters that are controlled from standard input.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use dflockd_client::{Client, ErrorKind};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::pki::{Authority, Folder, HERE, trusting};
use crate::support::process::free_port;
use crate::support::raw::RawConnection;
use crate::support::until;
use crate::tool::{Running, code, dflock, output, text};

fn command(flags: &[&str]) -> Command {
    let mut command = dflock();
    command.args(["serve", "--port", "0"]).args(flags);
    command
}

fn serve(command: &mut Command) -> (Running, String) {
    let mut server = Running::start(command);
    let address = server.line().strip_prefix("listening on ").unwrap().to_owned();
    (server, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_it_is_for_and_drains_on_sigterm() {
    for release in ["1.15", "2.1"] {
        let flags = [
            "--default-lease-ttl",
            "7",
            "--shutdown-timeout",
            "20",
            "--release",
            release,
        ];
        let (mut server, address) = serve(&mut command(&flags));
        assert!(server.error().contains("for development and tests"));
        let client = Client::builder().servers([&address]).connect().await.unwrap();
        let guard = client.lock("k").unwrap().acquire().await.unwrap();
        assert_eq!(guard.ttl().as_secs(), 7);
        server.signal(Signal::TERM);
        until("no new connections are accepted", || {
            std::net::TcpStream::connect(&address).is_err()
        })
        .await;
        if release == "1.15" {
            guard.release().await.unwrap();
        } else {
            let error = client.lock("other").unwrap().try_acquire().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Draining, "{error}");
            // The server closed the connection with that answer.
            guard.lost().await;
        }
        drop(client);
        assert_eq!(server.code(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_while_clients_are_connected() {
    let (mut server, address) = serve(&mut command(&["--shutdown-timeout", "0"]));
    let client = Client::builder().servers([&address]).connect().await.unwrap();
    let _guard = client.lock("k").unwrap().acquire().await.unwrap();
    server.signal(Signal::INT);
    assert!(server.error().contains("for development"));
    assert!(server.error().contains("a second signal"));
    server.signal(Signal::INT);
    assert_eq!(server.code(), 130);
}

#[test]
fn what_is_wrong_with_its_flags_is_said() {
    for (flags, exit, said) in [
        (&["--auth-token-file", "/nowhere/token"][..], 78, "/nowhere/token"),
        (&["--default-lease-ttl", "0"][..], 64, "default-lease-ttl"),
        (&["--read-timeout", "1.5"][..], 64, "1.5"),
        (
            &["--auth-token", "a", "--auth-token-file", "b"][..],
            64,
            "cannot be used with",
        ),
        (&["--auto-release-on-disconnect=maybe"][..], 64, "maybe"),
        (&["--release", "0.5"][..], 64, "0.5"),
        (&["--cluster", "0"][..], 64, "--cluster"),
        (&["--cluster", "3", "--release", "2.1"][..], 64, "cannot be used with"),
        (&["--orphan-ttl", "3"][..], 64, "--cluster"),
        (&["--servers", "a"][..], 64, "--servers does not apply"),
        (&["--config", "/nowhere"][..], 64, "--config does not apply"),
        (&["--tls-cert", "a"][..], 64, "--tls-key"),
        (
            &["--http-port", "8080"][..],
            64,
            "does not support --http-port: it has no HTTP",
        ),
        (&["--raft-dir=/tmp"][..], 64, "does not support --raft-dir: its members"),
        (&["--debug"][..], 64, "does not support --debug"),
        (&["--max-channels", "3"][..], 64, "--max-channels"),
    ] {
        let ended = command(flags).output().unwrap();
        let errors = text(&ended.stderr);
        assert!(errors.contains(said), "{flags:?}: {errors}");
        assert_eq!(code(&ended), exit, "{flags:?}: {errors}");
    }
}

/// Flags override the variables, which are those of the real server.
#[tokio::test(flavor = "multi_thread")]
async fn it_takes_the_real_servers_flags_and_variables() {
    let folder = Folder::new();
    let auth_token = folder.write("auth-token", "s3cret\n");
    let mut flags = command(&[
        "--host",
        "127.0.0.1",
        "--max-locks",
        "1",
        "--max-waiters",
        "1",
        "--max-connections",
        "9",
        "--max-subscriptions",
        "3",
        "--lease-sweep-interval",
        "1",
        "--gc-interval",
        "5",
        "--gc-max-idle",
        "60",
        "--auto-release-on-disconnect=false",
        "--read-timeout",
        "23",
        "--write-timeout",
        "5",
        "--auth-token-file",
    ]);
    flags.arg(&auth_token).env("DFLOCKD_MAX_LOCKS", "7");
    let mut variables = dflock();
    variables
        .arg("serve")
        .env("DFLOCKD_PORT", "0")
        .env("DFLOCKD_MAX_LOCKS", "1")
        .env("DFLOCKD_AUTO_RELEASE_ON_DISCONNECT", "0")
        .env("DFLOCKD_AUTH_TOKEN", "s3cret");
    for mut command in [flags, variables] {
        let (_server, address) = serve(&mut command);
        let client = || Client::builder().servers([&address]).auth_token("s3cret").connect();
        let first = client().await.unwrap();
        let _guard = first.lock("one").unwrap().acquire().await.unwrap();
        let error = first.lock("two").unwrap().acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MaxLocks, "{error}");
        let mut holder = RawConnection::open(&address).await;
        assert_eq!(holder.request("auth", "_", "s3cret").await, "ok");
        drop(holder);
        assert!(
            client()
                .await
                .unwrap()
                .lock("one")
                .unwrap()
                .try_acquire()
                .await
                .unwrap()
                .is_none()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_overrides_the_variable_of_a_flag_that_excludes_it() {
    let folder = Folder::new();
    let auth_token = folder.write("auth-token", "of the file\n");
    for (flag, value, expected) in [
        ("--auth-token-file", auth_token.to_str().unwrap(), "of the file"),
        ("--auth-token", "of the flag", "of the flag"),
    ] {
        let mut server = command(&[flag, value]);
        match flag {
            "--auth-token" => server.env("DFLOCKD_AUTH_TOKEN_FILE", &auth_token),
            _ => server.env("DFLOCKD_AUTH_TOKEN", "of the variable"),
        };
        // This variable is for clusters, and has no effect on a server without a cluster.
        let (_server, address) = serve(server.env("DFLOCKD_ORPHAN_TTL_S", "3"));
        let mut connection = RawConnection::open(&address).await;
        assert_eq!(connection.request("auth", "_", expected).await, "ok", "{flag}");
    }
    let mut both = command(&[]);
    both.env("DFLOCKD_AUTH_TOKEN", "a")
        .env("DFLOCKD_AUTH_TOKEN_FILE", &auth_token);
    assert_eq!(code(&both.output().unwrap()), 64);
    let mut no_number = command(&[]);
    no_number.env("DFLOCKD_ORPHAN_TTL_S", "abc");
    assert_eq!(code(&no_number.output().unwrap()), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_counts_as_absent() {
    let folder = Folder::new();
    let auth_token = folder.write("auth-token", "of the file\n");
    for (name, value, expected) in [
        ("DFLOCKD_AUTH_TOKEN", "of the variable", "of the variable"),
        ("DFLOCKD_AUTH_TOKEN_FILE", auth_token.to_str().unwrap(), "of the file"),
    ] {
        let mut server = command(&[]);
        for empty in [
            "DFLOCKD_AUTH_TOKEN",
            "DFLOCKD_AUTH_TOKEN_FILE",
            "DFLOCKD_MAX_LOCKS",
            "DFLOCKD_TLS_CERT",
            "DFLOCKD_ORPHAN_TTL_S",
        ] {
            server.env(empty, "");
        }
        let (_server, address) = serve(server.env(name, value));
        let mut connection = RawConnection::open(&address).await;
        assert_eq!(connection.request("auth", "_", expected).await, "ok", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_imitates_releases_with_signals() {
    let flags = ["--release", "1.16", "--max-subscriptions", "1", "--signal-buffer", "7"];
    let (_capped, address) = serve(&mut command(&flags));
    let mut connection = RawConnection::open(&address).await;
    assert_eq!(connection.request("listen", "a", "").await, "ok");
    assert_eq!(connection.request("listen", "b", "").await, "error");
    let (_without, address) = serve(&mut command(&["--release", "2.0"]));
    let mut connection = RawConnection::open(&address).await;
    assert_eq!(connection.request("listen", "a", "").await, "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_tls_and_says_what_is_wrong_with_its_files() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (identity, friend) = (servers.issue(HERE), clients.issue(&["friend"]));
    let folder = Folder::new();
    let certificate = folder.write("server.crt", &identity.certificate);
    let key = folder.write("server.key", &identity.key);
    let authorities = folder.write("clients.pem", &clients.pem());
    let with = |flags: &[(&str, &Path)]| {
        let mut command = command(&[]);
        for (flag, path) in flags {
            command.arg(flag).arg(path);
        }
        command
    };
    let (_server, address) = serve(&mut with(&[
        ("--tls-cert", &certificate),
        ("--tls-key", &key),
        ("--tls-client-ca", &authorities),
    ]));
    let connect = |tls| Client::builder().servers([&address]).tls(tls).connect();
    let tls = trusting(&servers).client_certificate_pem(friend.certificate, friend.key);
    let secure = connect(tls).await.unwrap();
    secure
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    let error = connect(trusting(&servers)).await.unwrap_err();
    assert!(error.to_string().contains("wants a client certificate"), "{error}");
    for (flags, said) in [
        (&[("--tls-client-ca", authorities.as_path())][..], "--tls-cert"),
        (
            &[("--tls-cert", &certificate), ("--tls-key", &certificate)],
            "no private key",
        ),
    ] {
        let ended = with(flags).output().unwrap();
        assert!(text(&ended.stderr).contains(said), "{flags:?}: {ended:?}");
    }
}

/// A cluster, and the pipe that controls it.
struct Cluster {
    server: Running,
    orders: ChildStdin,
    servers: String,
}

impl Cluster {
    fn start(flags: &[&str]) -> Self {
        let mut command = command(flags);
        let (mut server, servers) = serve(command.args(["--cluster", "3"]).stdin(Stdio::piped()));
        let orders = server.child.stdin.take().unwrap();
        let mut cluster = Self {
            server,
            orders,
            servers,
        };
        assert_eq!(cluster.roles(), ["leads", "follows", "follows"]);
        cluster
    }

    /// Reads three lines, and returns the roles of the members.
    fn roles(&mut self) -> [String; 3] {
        [0, 1, 2].map(|number| {
            let line = self.server.line();
            let (name, rest) = line.split_once(' ').unwrap();
            assert_eq!(name, format!("n{number}"));
            rest.split_once(' ').unwrap().1.to_owned()
        })
    }

    fn order(&mut self, line: &str) {
        writeln!(self.orders, "{line}").unwrap();
    }

    /// Gives an order, and returns the answer.
    fn ordered(&mut self, line: &str) -> String {
        self.order(line);
        self.server.line()
    }
}

/// A lease outlives its leader, and the next holder acquires the key at the new leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_outlives_the_leader_that_is_killed_from_standard_input() {
    let mut cluster = Cluster::start(&["--orphan-ttl", "20"]);
    let servers = cluster.servers.clone();
    let members: Vec<String> = servers.split('+').map(str::to_owned).collect();
    assert_eq!(members.len(), 3);
    let holds = ["--servers", &servers, "--ttl", "20s", "--set", "orphan_ttl=20s"];
    let mut holder = Running::start(dflock().args(["lock", "key", "--ignore-stdin"]).args(holds));
    let held: Value = serde_json::from_str(&holder.line()).unwrap();
    assert_eq!(held["server"], *members[0]);
    assert_eq!(cluster.ordered("kill 0"), format!("n1 leads at {}", members[1]));
    cluster.order("members");
    assert_eq!(cluster.roles(), ["is stopped", "leads", "follows"]);
    let tried = output(&["run", "key", "--try", "--servers", &servers, "--", "true"]);
    assert_eq!(code(&tried), 75, "it is held: {}", text(&tried.stderr));
    holder.signal(Signal::INT);
    assert_eq!(holder.code(), 0, "{}", holder.errors());
    let free = output(&["run", "key", "--timeout", "10s", "--servers", &servers, "--", "true"]);
    assert_eq!(code(&free), 0, "{}", text(&free.stderr));
    drop(cluster.orders);
    cluster.server.signal(Signal::TERM);
    assert_eq!(cluster.server.code(), 0, "{}", cluster.server.errors());
}

#[test]
fn orders_move_the_leader_and_a_majority_elects_the_next() {
    let mut cluster = Cluster::start(&[]);
    assert!(cluster.ordered("leader").starts_with("n0 leads at 127.0.0.1:"));
    assert!(cluster.ordered("leader n2").starts_with("n2 leads"));
    assert!(cluster.ordered("stop 2").starts_with("n0 leads"), "the next after n2");
    assert!(
        cluster.ordered("isolate 0").starts_with("no member leads"),
        "one of three"
    );
    assert!(cluster.ordered("start 2").starts_with("n1 leads"), "two of three");
    cluster.order("members");
    assert_eq!(cluster.roles(), ["is isolated", "leads", "follows"]);
    assert!(cluster.ordered("rejoin 0").starts_with("n1 leads"));
    assert_eq!(cluster.ordered("depose"), "no member leads");
    assert!(cluster.ordered("leader 0").starts_with("n0 leads"));
    assert!(cluster.server.error().contains("for development"));
    cluster.order("kill 7");
    assert!(cluster.server.error().contains("from 0 to 2"));
    cluster.order("reboot");
    assert!(cluster.server.error().contains("the orders are members, leader"));
    assert!(cluster.ordered("leader").starts_with("n0 leads"), "nothing has changed");
}

#[test]
fn a_leader_without_a_majority_steps_down_and_no_other_can_lead() {
    let mut cluster = Cluster::start(&[]);
    assert!(cluster.ordered("kill 1").starts_with("n0 leads"), "two of three");
    assert_eq!(cluster.ordered("kill 2"), "no member leads");
    assert_eq!(cluster.ordered("leader 0"), "no member leads");
    assert!(cluster.server.error().contains("for development"));
    assert!(cluster.server.error().contains("fewer than a majority"));
    assert!(cluster.ordered("start 2").starts_with("n2 leads"), "two of three");
}

#[test]
fn a_line_that_is_no_text_does_not_end_the_orders() {
    let mut cluster = Cluster::start(&[]);
    cluster.orders.write_all(b"\xff\xfe\n").unwrap();
    cluster.order(&"x".repeat(1_000_000));
    assert!(cluster.ordered("leader").starts_with("n0 leads"));
    assert!(cluster.server.error().contains("for development"));
    for _ in 0..2 {
        assert!(cluster.server.error().contains("is unknown; the orders are"));
    }
}

#[test]
fn members_have_the_ports_from_the_first_on() {
    // Three ports in a row that are free now: another process may take one of them meanwhile.
    let first = (0..100).map(|_| free_port()).find(|first| {
        let next = [first + 1, first + 2];
        next.iter()
            .all(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
    });
    let first = first.unwrap();
    let mut command = dflock();
    command.args(["serve", "--cluster", "3", "--port", &first.to_string()]);
    let (mut server, servers) = serve(&mut command);
    let members = [first, first + 1, first + 2].map(|port| format!("127.0.0.1:{port}"));
    assert_eq!(servers, members.join("+"));
    server.signal(Signal::INT);
    assert_eq!(server.code(), 0);
    let refused = output(&["serve", "--cluster", "3", "--port", "65534"]);
    assert!(text(&refused.stderr).contains("65534"), "{refused:?}");
    assert_eq!(code(&refused), 64);
}
