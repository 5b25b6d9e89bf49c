//! The service example, as its users run it: many requests at once, a stale writer, and SIGTERM while locks are held.
#![cfg(unix)]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::process::{example, first_line};
use crate::support::until;
use dflockd_client::server::Server;
use serde_json::{Value, json};
use tokio::task::{JoinSet, spawn_blocking};

/// The service runs in a process of its own. The lock server runs in this process, so that a test can inspect it.
struct Scene {
    locks: Server,
    service: Child,
    address: String,
    database: std::path::PathBuf,
}

impl Scene {
    async fn set(name: &str) -> Self {
        // The server keeps leases whose connection has ended. So a key becomes free only when the service releases it.
        let locks = Server::builder()
            .port(0)
            .auto_release_on_disconnect(false)
            .start()
            .await
            .unwrap();
        let database = std::env::temp_dir().join(format!("dflockd-{name}-{}.sqlite", std::process::id()));
        drop(std::fs::remove_file(&database));
        let mut command = Command::new(example("service"));
        command
            .env("SERVICE_LISTEN", "127.0.0.1:0")
            .env("SERVICE_DATABASE", &database)
            .env("DFLOCKD_SERVERS", locks.local_addr().to_string())
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let (service, address) = spawn_blocking(move || {
            let mut service = command.spawn().unwrap();
            let address = first_line(&mut service, "listening on ");
            (service, address)
        })
        .await
        .unwrap();
        Self {
            locks,
            service,
            address,
            database,
        }
    }

    async fn deposit(&self, account: u32, amount: i64, work_ms: u64) -> (u16, Value) {
        let url = format!("{}/accounts/{account}/deposits", self.address);
        post("POST", url, json!({ "amount": amount, "work_ms": work_ms })).await
    }

    async fn get(&self, path: &str) -> String {
        let url = format!("{}{path}", self.address);
        spawn_blocking(move || ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap())
            .await
            .unwrap()
    }

    async fn balance(&self, account: u32) -> Value {
        serde_json::from_str(&self.get(&format!("/accounts/{account}")).await).unwrap()
    }

    /// Returns the balance of the account from the database file.
    fn on_disk(&self, account: u32) -> i64 {
        let database = rusqlite::Connection::open(&self.database).unwrap();
        let row = |row: &rusqlite::Row<'_>| row.get(0);
        database
            .query_row("SELECT balance FROM accounts WHERE id = ?1", [account], row)
            .unwrap()
    }

    fn terminate(&self) {
        let killed = Command::new("kill")
            .arg(self.service.id().to_string())
            .status()
            .unwrap();
        assert!(killed.success());
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        let service = &mut self.service;
        until("the service has ended", || {
            status = service.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.service.kill());
        drop(self.service.wait());
        drop(std::fs::remove_file(&self.database));
    }
}

async fn post(method: &'static str, url: String, body: Value) -> (u16, Value) {
    spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = match method {
            "PUT" => agent.put(url),
            _ => agent.post(url),
        };
        let mut answer = match request.send_json(body) {
            Ok(answer) => answer,
            Err(hung_up) => return (0, Value::String(hung_up.to_string())),
        };
        let text = answer.body_mut().read_to_string().unwrap();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (answer.status().as_u16(), value)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost_and_a_stale_writer_is_refused() {
    let scene = std::sync::Arc::new(Scene::set("updates").await);
    let mut running = JoinSet::new();
    for number in 0..60 {
        let scene = std::sync::Arc::clone(&scene);
        // A deposit reads the balance and writes it 5 ms later. Without the lock, most deposits would be lost.
        running.spawn(async move { scene.deposit(number % 3, 1, 5).await });
    }
    let mut newest = 0;
    for (status, written) in running.join_all().await {
        assert_eq!(status, 200, "{written}");
        newest = newest.max(written["fence"].as_u64().unwrap());
    }
    let mut total = 0;
    for account in 0..3 {
        total += scene.balance(account).await["balance"].as_i64().unwrap();
    }
    assert_eq!(total, 60);
    assert!(newest >= 60, "each deposit had a fence of its own");

    // The next request comes from a former holder that has not noticed the loss of its lock.
    let before = scene.balance(0).await;
    let url = format!("{}/accounts/0/balance", scene.address);
    let stale = json!({ "balance": 1_000_000, "fence": 1 });
    let (status, said) = post("PUT", url.clone(), stale).await;
    assert_eq!(status, 409, "{said}");
    assert_eq!(scene.balance(0).await, before);
    let (status, _) = post("PUT", url, json!({ "balance": 7, "fence": newest + 1 })).await;
    assert_eq!((status, scene.on_disk(0)), (200, 7));

    let metrics = scene.get("/metrics").await;
    let acquired = metrics.lines().any(|line| {
        line.starts_with("dflockd_client_requests_total")
            && line.contains("operation=\"acquire\"")
            && line.contains("outcome=\"granted\"")
            && line.contains("key_class=\"accounts\"")
            && line.ends_with(" 60")
    });
    assert!(acquired, "{metrics}");
    assert_eq!(scene.get("/health").await, "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_requests_finish_and_all_locks_are_released() {
    let mut scene = Scene::set("drain").await;
    let address = scene.address.clone();
    let slow: Vec<_> = (0..4)
        .map(|account| {
            let url = format!("{address}/accounts/{account}/deposits");
            tokio::spawn(post("POST", url, json!({ "amount": 5, "work_ms": 1500 })))
        })
        .collect();
    until("all locks are held", || scene.locks.stats().locks.len() == 4).await;
    scene.terminate();
    for request in slow {
        let (status, written) = request.await.unwrap();
        assert_eq!(status, 200, "the request under way finished: {written}");
    }
    assert!(scene.ended().await.success());
    let left = scene.locks.stats();
    assert!(left.locks.is_empty(), "{left:?}");
    assert_eq!((0..4).map(|account| scene.on_disk(account)).sum::<i64>(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_finish_in_time_is_stopped_before_its_lock_is_released() {
    let mut scene = Scene::set("stuck").await;
    let url = format!("{}/accounts/1/deposits", scene.address);
    let stuck = tokio::spawn(post("POST", url, json!({ "amount": 5, "work_ms": 600_000 })));
    until("the lock is held", || scene.locks.stats().locks.len() == 1).await;
    scene.terminate();
    assert!(scene.ended().await.success());
    assert!(scene.locks.stats().locks.is_empty());
    // The service dropped the work or closed the connection. In both cases it wrote nothing.
    drop(tokio::time::timeout(Duration::from_secs(20), stuck).await.unwrap());
    let database = rusqlite::Connection::open(&scene.database).unwrap();
    let rows: i64 = database
        .query_row("SELECT count(*) FROM accounts", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}

/// Each of these examples refuses stale writers by fences, and a server of release 2.0 issues none.
#[tokio::test(flavor = "multi_thread")]
async fn examples_that_need_fences_fail_clearly_without_them() {
    let locks = Server::builder().port(0).release("2.0").start().await.unwrap();
    let address = locks.local_addr().to_string();
    for name in ["service", "leader_election", "daily_job"] {
        let mut command = Command::new(example(name));
        command
            .env("SERVICE_LISTEN", "127.0.0.1:0")
            .env("DFLOCKD_SERVERS", &address)
            .env("RUST_LOG", "off")
            .stdin(Stdio::null());
        let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        for part in ["fences", "2.1", &address] {
            assert!(said.contains(part), "{name}: {said} without {part}");
        }
    }
    assert!(locks.stats().idle_locks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_fences_no_write_of_a_leader_is_lost() {
    let mut command = Command::new(example("leader_election"));
    command.env_remove("DFLOCKD_SERVERS").stdin(Stdio::null());
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    for line in ["9 writes", "a write of an old term is accepted: false"] {
        assert!(said.contains(line), "{said} without {line}");
    }
}
