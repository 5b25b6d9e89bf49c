//! Tests of the text form of records, and of the records that the embedded server and the client make.

use std::time::Duration;

use dflockd_client::Client;
use dflockd_client::server::Server;
use tokio::time::Instant;

use super::hand::*;
use crate::support::history::History;
use crate::support::history::bounds::Bounds;
use crate::support::history::reader::{ReadError, read};
use crate::support::history::record::{Action, Line, Outcome, What};
use crate::support::history::verdict::Rule;
use crate::support::history::writer::Writer;
use crate::support::observed::{Asked, Held, Observer, lines};
use crate::support::raw::RawConnection;

/// The format is stable because records are stored, and because other programs may write records.
#[test]
fn the_format_of_lines_is_stable() {
    let forms = [
        (
            at(1, What::Granted(until(9, grant_from(3, 255)))),
            r#"{"at":1000000,"what":"granted","server":"s","connection":9,"kind":"lock","key":"k","limit":1,"token":"00000000000000ff0000000000000000","place":3,"ends":9000000}"#,
        ),
        (
            at(2, within(5, invoke(1, Action::Acquire))),
            r#"{"at":2000000,"what":"invoke","process":"p","caller":1,"op":1,"action":"acquire","kind":"lock","key":"k","limit":1,"timeout":5000000}"#,
        ),
        (
            at(3, returned(1, Outcome::TimedOut)),
            r#"{"at":3000000,"what":"return","process":"p","op":1,"outcome":"timed_out"}"#,
        ),
        (
            at(4, uses(7, true)),
            r#"{"at":4000000,"what":"use","process":"p","holder":7,"held":true}"#,
        ),
        (
            at(5, half_open("a.b", "g")),
            r#"{"at":5000000,"what":"half_open_begun","connection":7,"pattern":"a.b","group":"g","read_timeout":12000000}"#,
        ),
        (
            at(6, half_open_ended()),
            r#"{"at":6000000,"what":"half_open_ended","connection":7}"#,
        ),
    ];
    for (line, text) in forms {
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
        assert_eq!(read(format!("{text}\n").as_bytes()).unwrap(), [line]);
    }
}

#[test]
fn a_record_is_read_up_to_the_line_that_a_kill_cut_off() {
    let line = at(4, uses(7, true));
    let text = serde_json::to_string(&line).unwrap();
    let killed = format!("{text}\n\n{text}\n{}", &text[..20]);
    assert_eq!(read(killed.as_bytes()).unwrap(), [line.clone(), line]);
    let wrong = read(format!("{text}\nnonsense\n").as_bytes()).unwrap_err();
    assert!(matches!(wrong, ReadError::Line(2, _)), "{wrong}");
}

#[test]
fn the_reader_reads_the_lines_of_the_writer() {
    let path = std::env::temp_dir().join(format!("dflockd-history-{}", std::process::id()));
    let writer = Writer::to(std::fs::File::create(&path).unwrap(), || 5);
    writer.note(What::ProcessStarted(process("p")));
    writer.note_at(7, What::Queued(place(1)));
    assert!(writer.finish().unwrap().is_empty(), "the writer keeps no lines");
    let lines: Vec<Line> = read(std::fs::read(&path).unwrap().as_slice()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let expected = [
        Line {
            at: 5,
            what: What::ProcessStarted(process("p")),
        },
        Line {
            at: 7,
            what: What::Queued(place(1)),
        },
    ];
    assert_eq!(lines, expected);
}

#[test]
fn ends_without_a_beginning_are_found() {
    for what in [
        returned(1, Outcome::Done),
        uses(1, true),
        lost(1),
        let_go(1),
        unsubscribed(1),
        received(1, "a", "1"),
    ] {
        let line = at(1, what);
        let broken = judge(std::slice::from_ref(&line)).violations;
        assert!(
            broken.iter().any(|broken| broken.rule == Rule::Record),
            "{line:?}: {broken:?}"
        );
    }
}

#[tokio::test]
async fn the_record_of_a_real_server_passes() {
    let start = Instant::now();
    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let address = server.local_addr().to_string();
    let mut holder = RawConnection::open(&address).await;
    let mut waiter = RawConnection::open(&address).await;
    for _ in 0..2 {
        assert!(holder.request("sl", "s", "0 2 30").await.starts_with("ok "));
        let held = holder.request("l", "k", "0 30").await;
        assert_eq!(waiter.request("e", "k", "30").await, "queued");
        holder.request("r", "k", held.split(' ').nth(1).unwrap()).await;
        let got = waiter.request("w", "k", "9").await;
        assert_eq!(waiter.request("r", "k", got.split(' ').nth(1).unwrap()).await, "ok");
    }
    let history = History::default().with(lines("server", server.events(), start));
    let counts = history.judge(&Bounds::default()).assert();
    assert_eq!(
        (counts.grants, counts.from_queues, counts.keys, counts.held),
        (6, 2, 2, 2)
    );
    assert_eq!(counts.fences, 4);
}

#[tokio::test]
async fn the_record_of_a_real_client_has_the_operations_of_its_callers() {
    let start = Instant::now();
    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .connect()
        .await
        .unwrap();
    let observer = Observer::new("p", start);
    let lock = client.lock("k").unwrap();
    let asked = Asked::lock("k").within(Duration::from_secs(60));
    let acquire = async || lock.acquire().await.map(Held::Lock);
    let first = observer.acquire(1, asked, acquire()).await.unwrap();
    assert!(first.is_held());
    let cancelled = tokio::time::timeout(Duration::from_millis(20), observer.acquire(2, asked, acquire())).await;
    assert!(cancelled.is_err());
    first.release().await.unwrap();
    drop(observer.acquire(3, asked, acquire()).await.unwrap());
    let outcomes: Vec<Outcome> = observer
        .finish()
        .iter()
        .filter_map(|line| match &line.what {
            What::Return(end) => Some(end.outcome),
            _ => None,
        })
        .collect();
    assert_eq!(
        outcomes,
        [Outcome::Granted, Outcome::Cancelled, Outcome::Done, Outcome::Granted]
    );
}
