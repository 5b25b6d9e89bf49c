use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::server::ServerTls;
use crate::telemetry::sink::{ShardSink, Sink};
use crate::tls::{Tls, TlsAcceptor};
use crate::types::{Key, Target, WaitSecs};

/// A caller that never goes away.
struct Patient(usize);

impl Caller for Patient {
    fn is_gone(&self) -> bool {
        false
    }
}

const REQUESTS: usize = 2_000;

/// Less than the length of one answer, so that a writer is blocked until the other side reads.
const TINY: usize = 16;

fn try_lock(number: usize) -> Command<Patient> {
    Command::Send(Outgoing {
        request: Request::Acquire {
            target: Target::Lock,
            key: Key::new(format!("k{number}")).unwrap(),
            wait: WaitSecs::TRY,
            ttl: None,
        },
        tag: Patient(number),
    })
}

/// Answers one request after the other, as servers do: reads a request only after the whole answer to the previous one
/// was written. The stream stays open until the returned value is dropped.
async fn answer_in_turn<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> impl Sized {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    for number in 0..REQUESTS {
        for _ in 0..3 {
            line.clear();
            assert!(stream.read_line(&mut line).await.unwrap() > 0, "request {number}");
        }
        let answer = format!("ok {number:032x} 33\n");
        stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
        stream.get_mut().flush().await.unwrap();
    }
    stream
}

fn settings(max_in_flight: usize) -> LaneSettings {
    LaneSettings {
        keepalive: Duration::from_secs(10),
        reply_timeout: Duration::from_secs(60),
        max_in_flight,
        hears_signals: false,
        abilities: Abilities {
            ping: Some(true),
            sessions: None,
        },
        metrics: LaneMetrics::new(&ShardSink::new(Sink::default(), 0)),
    }
}

/// Sends all requests at once and takes all answers.
async fn ask_all(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let (commands, queue) = mpsc::unbounded_channel();
    for number in 0..REQUESTS {
        commands.send(try_lock(number)).unwrap();
    }
    drop(commands);
    let mut answered = Vec::new();
    let end = run(stream, queue, settings(4_096), |report| {
        answered.extend(report.received.replies.into_iter().map(|reply| reply.tag.0));
    });
    let end = end.await;
    assert!(end.cause.is_none(), "{:?}", end.cause);
    assert_eq!(answered, (0..REQUESTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lane_works_over_a_pipe_that_accepts_a_few_bytes_at_a_time() {
    let (near, far) = duplex(TINY);
    let both = async { tokio::join!(ask_all(near), answer_in_turn(far)) };
    timeout(Duration::from_secs(60), both)
        .await
        .expect("reads and writes block each other");
}

#[tokio::test]
async fn a_lane_works_over_tls_on_such_a_pipe() {
    let made = rcgen::generate_simple_self_signed(["here".to_owned()]).unwrap();
    let config = ServerTls::pem(made.cert.pem(), made.signing_key.serialize_pem()).config();
    let acceptor = TlsAcceptor::new(config.unwrap());
    let connector = Tls::new().ca_pem(made.cert.pem()).check().unwrap();
    let (near, far) = duplex(TINY);
    let client = async { ask_all(connector.handshake(near, Some("here")).await.unwrap()).await };
    let server = async { answer_in_turn(acceptor.accept(far).await.unwrap()).await };
    let both = async { tokio::join!(client, server) };
    timeout(Duration::from_secs(60), both)
        .await
        .expect("reads and writes block each other");
}

/// More answers than one turn passes on.
const CROWD: usize = 4 * ANSWERS_A_TURN;

type CrowdedLane = Lane<DuplexStream, Patient, mpsc::UnboundedReceiver<Command<Patient>>>;

/// Creates a lane with a crowd of requests in flight, all of which were answered since the last poll. Also returns what
/// keeps the lane open.
async fn answered_crowd(heard: &mut Vec<usize>) -> (CrowdedLane, impl Sized + use<>) {
    let (near, mut far) = duplex(1024 * 1024);
    let (commands, queue) = mpsc::unbounded_channel();
    for number in 0..CROWD {
        commands.send(try_lock(number)).unwrap();
    }
    let mut lane = Lane::new(near, queue, settings(CROWD));
    while lane.pipeline.len() < CROWD || !lane.pipeline.unwritten().is_empty() {
        assert!(turn(&mut lane, heard).await.is_pending());
    }
    for number in 0..CROWD {
        let answer = format!("ok {number:032x} 33\n");
        far.write_all(answer.as_bytes()).await.unwrap();
    }
    tokio::task::yield_now().await;
    (lane, (commands, far))
}

/// Runs one turn, with a budget of its own.
async fn turn(lane: &mut CrowdedLane, heard: &mut Vec<usize>) -> Poll<Stop> {
    let turn = std::future::poll_fn(|cx| {
        let mut deliver = |report: LaneReport<Patient>| {
            heard.extend(report.received.replies.into_iter().map(|reply| reply.tag.0));
        };
        Poll::Ready(lane.poll_turn(cx, &mut deliver).map(|end| end.cause))
    });
    let stopped = turn.await;
    tokio::task::yield_now().await;
    stopped
}

#[tokio::test(start_paused = true)]
async fn available_answers_are_read_before_their_requests_count_as_unanswered() {
    let mut heard = Vec::new();
    let (mut lane, _open) = answered_crowd(&mut heard).await;
    // The process was stopped for an hour.
    tokio::time::advance(Duration::from_secs(3_600)).await;
    while heard.len() < CROWD {
        let stopped = turn(&mut lane, &mut heard).await;
        assert!(stopped.is_pending(), "{stopped:?} after {} answers", heard.len());
    }
    assert_eq!(heard, (0..CROWD).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn many_answers_are_delivered_in_portions_without_a_pause() {
    let mut heard = Vec::new();
    let (mut lane, _open) = answered_crowd(&mut heard).await;
    let began = Instant::now();
    let mut portions = Vec::new();
    let mut all = std::future::poll_fn(|cx| {
        let mut deliver = |report: LaneReport<Patient>| portions.push(report.received.replies.len());
        let turn = lane.poll_turn(cx, &mut deliver);
        assert!(turn.is_pending());
        match portions.iter().sum::<usize>() < CROWD {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    });
    // The lane wakes itself, without a timer.
    (&mut all).await;
    assert_eq!(Instant::now(), began);
    let most = ANSWERS_A_TURN + BYTES_A_READ / "ok 0123456789abcdef0123456789abcdef 33\n".len() + 1;
    assert!(
        portions.len() > 1 && portions.iter().all(|portion| *portion <= most),
        "{portions:?}"
    );
}

/// Accepts everything, answers the first request, and then panics.
struct Treacherous {
    answer: Vec<u8>,
}

impl AsyncWrite for Treacherous {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Treacherous {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        assert!(!self.answer.is_empty(), "a bug in the stream");
        buffer.put_slice(&std::mem::take(&mut self.answer));
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn after_a_panic_answers_are_delivered_and_requests_in_flight_are_of_unknown_fate() {
    let (commands, queue) = mpsc::unbounded_channel();
    for number in 0..3 {
        commands.send(try_lock(number)).unwrap();
    }
    let answer = format!("ok {:032x} 33\n", 0).into_bytes();
    let mut delivered = Vec::new();
    let end = run(Treacherous { answer }, queue, settings(2), |report| {
        delivered.extend(report.received.replies.into_iter().map(|reply| reply.tag.0));
    });
    let end = end.await;
    let cause = end.cause.unwrap();
    assert_eq!(cause.kind(), ErrorKind::Disconnected);
    let text = cause.to_string();
    assert!(text.contains("panicked: a bug in the stream"), "{text}");
    let tags = |left: Vec<Patient>| left.into_iter().map(|patient| patient.0).collect::<Vec<_>>();
    let (unknown, unwritten) = (tags(end.leftovers.unknown), tags(end.leftovers.unwritten));
    assert_eq!(
        (delivered, unknown, unwritten),
        (vec![0], vec![1], vec![2]),
        "there was no room for the third"
    );
    assert!(commands.is_closed());
}

#[tokio::test]
async fn a_panic_of_the_receiver_of_reports_ends_the_lane() {
    let (commands, queue) = mpsc::unbounded_channel();
    for number in 0..2 {
        commands.send(try_lock(number)).unwrap();
    }
    let (near, mut far) = duplex(1024);
    let answer = format!("ok {:032x} 33\n", 0);
    far.write_all(answer.as_bytes()).await.unwrap();
    let end = run(near, queue, settings(8), |_| panic!("not now")).await;
    assert!(end.cause.unwrap().to_string().contains("panicked: not now"));
    assert_eq!(end.leftovers.unknown.len(), 1);
}
