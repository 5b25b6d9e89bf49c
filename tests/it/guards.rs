//! Code that works with any guard of the async client or the blocking client, through generics and trait objects.

use std::time::Duration;

use crate::support::until;
use dflockd_client::server::Server;
use dflockd_client::{Client, Error, ErrorKind, Guard, Lock, Semaphore, blocking};

async fn scene() -> (Server, Client) {
    let server = Server::builder().port(0).start().await.unwrap();
    let servers = [server.local_addr().to_string()];
    let client = Client::builder().servers(servers).connect().await.unwrap();
    (server, client)
}

fn held(server: &Server) -> usize {
    let stats = server.stats();
    stats.locks.len() + stats.semaphores.len()
}

async fn give_back<G: Guard>(guard: G) -> Result<(), Error> {
    assert!(guard.is_held());
    guard.release().await
}

fn crosses<T: Send + 'static>(value: T) -> T {
    value
}

async fn both(lock: &Lock, slots: &Semaphore) -> Vec<Box<dyn Guard>> {
    let mut guards: Vec<Box<dyn Guard>> = Vec::new();
    guards.push(Box::new(lock.acquire().await.unwrap()));
    guards.push(Box::new(slots.acquire().await.unwrap()));
    guards
}

#[tokio::test]
async fn any_guard_is_released() {
    let (server, client) = scene().await;
    let (lock, slots) = (client.lock("k").unwrap(), client.semaphore("k", 2).unwrap());
    give_back(lock.acquire().await.unwrap()).await.unwrap();
    crosses(give_back(slots.acquire().await.unwrap())).await.unwrap();
    assert_eq!(held(&server), 0);

    for guard in both(&lock, &slots).await {
        assert_eq!(guard.key().as_str(), "k");
        crosses(guard.release()).await.unwrap();
    }
    assert_eq!(held(&server), 0);
    drop(both(&lock, &slots).await);
    until("the dropped guards are released", || held(&server) == 0).await;
    // A release continues if its future is dropped.
    for guard in both(&lock, &slots).await {
        let mut releasing = Box::pin(guard.release());
        tokio::select! {
            biased;
            _ = &mut releasing => {}
            () = async {} => {}
        }
    }
    until("the locks are free", || held(&server) == 0).await;
    // A failed release is an error.
    let guard: Box<dyn Guard> = Box::new(lock.acquire().await.unwrap());
    client.shutdown(Duration::from_secs(5)).await;
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Shutdown);
}

#[tokio::test]
async fn futures_of_handles_can_be_sent() {
    let (_server, client) = scene().await;
    let (locks, slots) = (client.lock_all(["a", "b"]).unwrap(), client.semaphore("k", 4).unwrap());
    let soon = std::time::Instant::now() + Duration::from_secs(10);
    let work = async move {
        locks.acquire_until(soon).await?.release().await?;
        locks.with_locks(async |_| Ok::<_, Error>(())).await?;
        slots.acquire_many_until(3, soon).await?.release().await?;
        slots.with_permits(2, async |_| Ok::<_, Error>(())).await
    };
    tokio::spawn(work).await.unwrap().unwrap();
}

#[test]
fn threads_have_trait_objects_of_guards_too() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, client) = runtime.block_on(scene());
    let client = blocking::Client::from(client);
    let both = || -> [blocking::Held<dyn Guard>; 2] {
        [
            client.lock("k").unwrap().acquire().unwrap().into_dyn(),
            client.semaphore("k", 2).unwrap().acquire().unwrap().into_dyn(),
        ]
    };
    for guard in both() {
        assert!(guard.is_held() && guard.wait_lost(Duration::from_millis(10)).unwrap().is_none());
        crosses(guard).release().unwrap();
    }
    assert_eq!(held(&server), 0);
    // The callback was set before the guard became a trait object. The client still calls it when the lease is lost.
    let (told, heard) = std::sync::mpsc::channel();
    let guard = client.lock("k").unwrap().acquire().unwrap();
    guard.when_lost(move |reason| told.send(reason).unwrap()).unwrap();
    let guard = guard.into_dyn();
    client.shutdown(Duration::from_secs(5)).unwrap();
    assert_eq!(heard.recv().unwrap(), dflockd_client::LostReason::Shutdown);
    assert_eq!(guard.release().unwrap_err().kind(), ErrorKind::Shutdown);
}
