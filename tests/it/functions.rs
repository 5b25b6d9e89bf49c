//! The low-level functions over a stream that is not a socket: the bytes that they send, and the values that they
//! return for an answer.

use std::time::Duration;

use dflockd_client::protocol::functions::{self as wire, Wire};
use dflockd_client::protocol::{AuthToken, Call, Channel, Enqueued, Group, Pattern, Payload, StableRef};
use dflockd_client::{ErrorKind, Key, Limit, Result, Token, Ttl, WaitSecs};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const TOKEN: &str = "00000000000000070123456789abcdef";

/// Calls a function over a stream to a peer that sends `answer`. Returns the bytes that the peer received and the
/// result of the function.
async fn exchange<T>(
    answer: &str,
    call: impl AsyncFnOnce(&mut Wire<DuplexStream>) -> Result<T>,
) -> (String, Result<T>) {
    let (near, mut far) = duplex(64 * 1024);
    far.write_all(answer.as_bytes()).await.unwrap();
    let mut near = Wire::new(near);
    let result = call(&mut near).await;
    drop(near);
    let mut heard = String::new();
    far.read_to_string(&mut heard).await.unwrap();
    (heard, result)
}

fn key() -> Key {
    Key::new("orders/42").unwrap()
}

fn token() -> Token {
    Token::new(TOKEN).unwrap()
}

fn ttl(secs: u64) -> Option<Ttl> {
    Ttl::from_secs(secs)
}

fn limit() -> Limit {
    Limit::new(3).unwrap()
}

fn five() -> WaitSecs {
    WaitSecs::covering(Duration::from_secs(5))
}

#[tokio::test]
async fn functions_for_locks_follow_the_protocol() {
    let granted = format!("ok {TOKEN} 30\n");
    let (heard, grant) = exchange(&granted, async |w| wire::acquire(w, &key(), five(), ttl(30)).await).await;
    assert_eq!(heard, "l\norders/42\n5 30\n");
    let grant = grant.unwrap();
    assert_eq!((grant.token, grant.ttl.as_secs(), grant.fence), (token(), 30, None));
    assert_eq!(grant.token.first_half(), 7);

    let (heard, _) = exchange(&granted, async |w| wire::acquire(w, &key(), WaitSecs::TRY, None).await).await;
    assert_eq!(heard, "l\norders/42\n0\n");

    let (heard, done) = exchange("ok\n", async |w| wire::release(w, &key(), &token()).await).await;
    assert_eq!((heard, done.is_ok()), (format!("r\norders/42\n{TOKEN}\n"), true));

    let (heard, left) = exchange("ok 20\n", async |w| wire::renew(w, &key(), &token(), ttl(20)).await).await;
    assert_eq!(
        (heard, left.unwrap()),
        (format!("n\norders/42\n{TOKEN} 20\n"), Some(20))
    );
    let (heard, left) = exchange("ok\n", async |w| wire::renew(w, &key(), &token(), None).await).await;
    assert_eq!((heard, left.unwrap()), (format!("n\norders/42\n{TOKEN}\n"), None));

    let (heard, place) = exchange("queued\n", async |w| wire::enqueue(w, &key(), ttl(9)).await).await;
    assert_eq!(
        (heard.as_str(), place.unwrap()),
        ("e\norders/42\n9\n", Enqueued::Queued)
    );
    let acquired = format!("acquired {TOKEN} 33\n");
    let (heard, place) = exchange(&acquired, async |w| wire::enqueue(w, &key(), None).await).await;
    assert_eq!(heard, "e\norders/42\n\n");
    assert!(matches!(place.unwrap(), Enqueued::Acquired(grant) if grant.token == token()));

    let (heard, grant) = exchange(&granted, async |w| wire::wait(w, &key(), five()).await).await;
    assert_eq!((heard.as_str(), grant.unwrap().token), ("w\norders/42\n5\n", token()));
}

#[tokio::test]
async fn functions_for_semaphores_follow_the_protocol() {
    let granted = format!("ok {TOKEN} 30\n");
    let (heard, grant) = exchange(&granted, async |w| {
        wire::sem_acquire(w, &key(), five(), limit(), ttl(30)).await
    })
    .await;
    assert_eq!((heard.as_str(), grant.is_ok()), ("sl\norders/42\n5 3 30\n", true));
    let (heard, _) = exchange("ok\n", async |w| wire::sem_release(w, &key(), &token()).await).await;
    assert_eq!(heard, format!("sr\norders/42\n{TOKEN}\n"));
    let (heard, _) = exchange("ok 1\n", async |w| wire::sem_renew(w, &key(), &token(), ttl(1)).await).await;
    assert_eq!(heard, format!("sn\norders/42\n{TOKEN} 1\n"));
    let (heard, _) = exchange("queued\n", async |w| {
        wire::sem_enqueue(w, &key(), limit(), ttl(9)).await
    })
    .await;
    assert_eq!(heard, "se\norders/42\n3 9\n");
    let (heard, _) = exchange("queued\n", async |w| wire::sem_enqueue(w, &key(), limit(), None).await).await;
    assert_eq!(heard, "se\norders/42\n3\n");
    let (heard, _) = exchange(&granted, async |w| wire::sem_wait(w, &key(), five()).await).await;
    assert_eq!(heard, "sw\norders/42\n5\n");
}

#[tokio::test]
async fn all_other_functions_follow_the_protocol() {
    let (heard, stats) = exchange("ok {\"connections\":3}\n", async |w| wire::stats(w).await).await;
    assert_eq!((heard.as_str(), stats.unwrap().connections), ("stats\n_\n_\n", 3));
    let (heard, _) = exchange("ok\n", async |w| wire::ping(w).await).await;
    assert_eq!(heard, "ping\n_\n_\n");
    let (heard, _) = exchange("ok\n", async |w| wire::auth(w, AuthToken::new("s3cret").unwrap()).await).await;
    assert_eq!(heard, "auth\n_\ns3cret\n");
    let channel = Channel::new("orders.new").unwrap();
    let payload = Payload::new(&channel, "no. 42").unwrap();
    let (heard, delivered) = exchange("ok 5\n", async |w| wire::sig_emit(w, channel, payload).await).await;
    assert_eq!(
        (heard.as_str(), delivered.unwrap()),
        ("signal\norders.new\nno. 42\n", 5)
    );
}

#[tokio::test]
async fn functions_for_subscriptions_follow_the_protocol() {
    let pattern = || Pattern::new("orders.>").unwrap();
    let group = || Group::new("workers").ok();
    let (heard, done) = exchange("ok\n", async |w| w.run(Call::listen(pattern(), None)).await).await;
    assert_eq!((heard.as_str(), done.is_ok()), ("listen\norders.>\n\n", true));
    let (heard, done) = exchange("ok\n", async |w| w.run(Call::listen(pattern(), group())).await).await;
    assert_eq!((heard.as_str(), done.is_ok()), ("listen\norders.>\nworkers\n", true));
    let (heard, done) = exchange("ok\n", async |w| w.run(Call::unlisten(pattern(), group())).await).await;
    assert_eq!((heard.as_str(), done.is_ok()), ("unlisten\norders.>\nworkers\n", true));
    for call in [Call::listen, Call::unlisten] {
        let (_, refused) = exchange("error\n", async |w| w.run(call(pattern(), group())).await).await;
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("orders.>"), "{error}");
    }
}

#[tokio::test]
async fn functions_for_clusters_follow_the_protocol() {
    let (heard, done) = exchange("ok\n", async |w| wire::barrier(w).await).await;
    assert_eq!((heard.as_str(), done.is_ok()), ("barrier\n_\n\n", true));
    let (_, refused) = exchange("error_not_leader 10.0.0.1:6388\n", async |w| wire::barrier(w).await).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotLeader);
    let (_, refused) = exchange("error\n", async |w| wire::barrier(w).await).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("`barrier`"), "{error}");

    let session = || StableRef::new("session-0123456789").unwrap();
    let (heard, done) = exchange("ok\n", async |w| wire::stable_ref(w, session()).await).await;
    assert_eq!(
        (heard.as_str(), done.is_ok()),
        ("stable-ref\nsession-0123456789\n\n", true)
    );
    let (_, refused) = exchange("error\n", async |w| wire::stable_ref(w, session()).await).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("`stable-ref`"), "{error}");
    // The error does not contain the ref, because a ref is a secret.
    let (near, mut far) = duplex(1024);
    far.shutdown().await.unwrap();
    let lost = wire::stable_ref(&mut Wire::new(near), session())
        .await
        .unwrap_err()
        .to_string();
    assert!(lost.contains("stable-ref") && !lost.contains("0123456789"), "{lost}");
}

#[tokio::test]
async fn refusals_are_typed_and_leave_the_stream_in_step() {
    for (answer, kind) in [
        ("timeout", ErrorKind::Timeout),
        ("error_max_locks", ErrorKind::MaxLocks),
        ("error_max_waiters", ErrorKind::MaxWaiters),
        ("error_draining", ErrorKind::Draining),
        ("error_auth", ErrorKind::Auth),
        ("error_limit_mismatch", ErrorKind::LimitMismatch),
        ("error_lease_expired", ErrorKind::LeaseExpired),
        ("error_not_leader 10.0.0.1:6388", ErrorKind::NotLeader),
    ] {
        let (_, (first, second)) = {
            let answers = format!("{answer}\nok {TOKEN} 30\n");
            let (heard, result) = exchange(&answers, async |w| {
                let first = wire::acquire(w, &key(), five(), None).await;
                let second = wire::acquire(w, &key(), five(), None).await;
                Ok((first, second))
            })
            .await;
            (heard, result.unwrap())
        };
        let error = first.expect_err(answer);
        assert_eq!(error.kind(), kind, "{answer}: {error}");
        assert!(second.is_ok(), "{answer}: {second:?}");
    }
    let (_, released) = exchange("error\n", async |w| wire::release(w, &key(), &token()).await).await;
    let error = released.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotHeld);
    assert!(
        error.to_string().contains("orders/42") && !error.to_string().contains(TOKEN),
        "{error}"
    );
}

#[tokio::test]
async fn an_invalid_answer_ends_the_stream() {
    for answer in [
        "HTTP/1.1 400 Bad Request\n",
        "ok\n",
        "queued\n",
        "ok short 30\n",
        "\n",
        "ok \u{0}\n",
    ] {
        let answers = format!("{answer}ok {TOKEN} 30\n");
        let (_, results) = exchange(&answers, async |w| {
            Ok((
                wire::acquire(w, &key(), five(), None).await,
                wire::acquire(w, &key(), five(), None).await,
            ))
        })
        .await;
        let (first, second) = results.unwrap();
        assert_eq!(first.unwrap_err().kind(), ErrorKind::Protocol, "{answer:?}");
        assert_eq!(second.unwrap_err().kind(), ErrorKind::Disconnected, "{answer:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_in_an_answer_is_not_a_refusal() {
    let (near, mut far) = duplex(1024);
    far.write_all(b"ok 0000").await.unwrap();
    far.shutdown().await.unwrap();
    let mut near = Wire::new(near);
    let error = wire::acquire(&mut near, &key(), five(), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    assert!(error.to_string().contains("orders/42"), "{error}");
}

#[tokio::test]
async fn an_answer_may_come_byte_by_byte_and_with_carriage_returns() {
    let (near, mut far) = duplex(1);
    let peer = tokio::spawn(async move {
        let mut heard = [0; 17];
        far.read_exact(&mut heard).await.unwrap();
        far.write_all(format!("ok {TOKEN} 30\r\n").as_bytes()).await.unwrap();
        (heard, far)
    });
    let mut near = Wire::new(near);
    let grant = wire::acquire(&mut near, &key(), five(), ttl(30)).await.unwrap();
    assert_eq!(grant.token, token());
    assert_eq!(&peer.await.unwrap().0, b"l\norders/42\n5 30\n");
}

#[tokio::test]
async fn a_dropped_call_leaves_a_stream_that_refuses_further_calls() {
    let (near, mut far) = duplex(1024);
    let mut near = Wire::new(near);
    let key = key();
    let call = wire::acquire(&mut near, &key, five(), None);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), call).await.is_err(),
        "no answer comes"
    );
    // The next call must not read the answer to the dropped call.
    far.write_all(b"ok\n").await.unwrap();
    let error = wire::ping(&mut near).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(error.to_string().contains("out of step"), "{error}");
    assert!(near.into_stream().is_err());
}

#[tokio::test]
async fn the_stream_is_returned_only_if_no_unasked_bytes_came() {
    let (near, mut far) = duplex(1024);
    far.write_all(b"ok\n").await.unwrap();
    let mut quiet = Wire::new(near);
    wire::ping(&mut quiet).await.unwrap();
    assert!(quiet.into_stream().is_ok());

    let (near, mut far) = duplex(1024);
    far.write_all(b"ok\nok\n").await.unwrap();
    let mut talkative = Wire::new(near);
    wire::ping(&mut talkative).await.unwrap();
    let error = talkative.into_stream().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("more than it was asked"), "{error}");
}
