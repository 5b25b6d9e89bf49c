//! The exporter for Prometheus, which one call installs. A process can install one metrics recorder only, so the test
//! runs in a process of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::process::{free_port, is_alone_with};
use dflockd_client::server::Server;
use dflockd_client::{Client, ErrorKind, prometheus};

async fn scrape(address: SocketAddr) -> String {
    let url = format!("http://{address}/metrics");
    tokio::task::spawn_blocking(move || ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap())
        .await
        .unwrap()
}

/// A time that only a hang exceeds.
const LONG: Duration = Duration::from_secs(60);

fn failed_installs_free_their_port() {
    let before = threads();
    for _ in 0..3 {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let error = prometheus::install_with_listener(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        drop(std::net::TcpListener::bind(address).expect("the port is free again"));
        prometheus::install().unwrap_err();
    }
    // The system may still list a thread for a moment after the thread was joined.
    let began = Instant::now();
    while threads() > before {
        assert!(
            began.elapsed() < LONG,
            "threads of failed installs are left: {:?}",
            threads()
        );
        std::thread::yield_now();
    }
}

/// Returns how many threads of this process serve metrics, or `None` if the system does not list threads.
fn threads() -> Option<usize> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    Some(names.filter(|name| name.starts_with("dflockd-metrics")).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_installs_the_exporter_with_fitting_buckets() {
    let name = "prometheus::one_call_installs_the_exporter_with_fitting_buckets";
    if !is_alone_with(name, &[]) {
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = prometheus::install_with_listener(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    prometheus::install_with_listener(address).unwrap();
    let error = prometheus::install().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    // A failed install leaves no thread and no open port, inside and outside of a runtime.
    failed_installs_free_their_port();
    tokio::task::spawn_blocking(failed_installs_free_their_port)
        .await
        .unwrap();
    std::thread::spawn(failed_installs_free_their_port).join().unwrap();

    let server = Server::builder().port(0).start().await.unwrap();
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .connect()
        .await
        .unwrap();
    client
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();

    let text = scrape(address).await;
    for line in [
        "# TYPE dflockd_client_requests_total counter",
        "# TYPE dflockd_client_leases_held gauge",
        "# TYPE dflockd_client_acquire_wait_seconds histogram",
        "# HELP dflockd_client_leases_held Leases that are held now.",
        "dflockd_client_requests_total{shard=\"0\",kind=\"lock\",operation=\"acquire\",outcome=\"granted\"} 1",
        // The counter exists before the first loss, so that the first loss is an increase.
        "dflockd_client_leases_lost_total{shard=\"0\",kind=\"lock\",reason=\"expired\"} 0",
        "dflockd_client_acquire_wait_seconds_count{shard=\"0\",kind=\"lock\",state=\"uncontended\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // The buckets reach from 0.001 s to 300 s.
    for bound in ["0.001", "300"] {
        let bucket = format!(
            "dflockd_client_acquire_wait_seconds_bucket{{shard=\"0\",kind=\"lock\",state=\"uncontended\",le=\"{bound}\"}}"
        );
        assert!(text.contains(&bucket), "{bucket}\n{text}");
    }
    assert!(
        !text.contains("quantile="),
        "a summary cannot be added up over processes: {text}"
    );
}
