//! Several servers that play a cluster: see [`Cluster`].

mod builder;
mod port;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

pub use self::builder::ClusterBuilder;
use self::port::Port;
use super::event::Event;
use super::listener::Server;
use super::options::ServerOptions;
use super::state::State;
use crate::error::{Error, Result};
use crate::stats::Stats;

/// For tests: servers that play the members of one cluster of release 3.x, in this process, on one state. Who leads is
/// not elected but [said](Self::move_leader), and so is what goes wrong. Dropping it ends all members at once.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dflockd_client::protocol::functions::{Wire, acquire, release};
/// use dflockd_client::server::{Cluster, Server};
/// use dflockd_client::{ErrorKind, Key, WaitSecs};
///
/// let cluster = Cluster::builder().options(Server::builder().max_locks(10_000)).start().await?;
/// let [first, second, _] = &cluster.addresses()[..] else { unreachable!("there are three") };
/// let mut first = Wire::new(tokio::net::TcpStream::connect(first).await?);
/// let mut second = Wire::new(tokio::net::TcpStream::connect(second).await?);
///
/// let key = Key::new("orders/42")?;
/// let grant = acquire(&mut first, &key, WaitSecs::TRY, None).await?;
/// cluster.move_leader(1)?;
/// assert!(release(&mut first, &key, &grant.token).await.is_err_and(|error| error.kind() == ErrorKind::NotLeader));
/// release(&mut second, &key, &grant.token).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Who answers what
///
/// The leader answers everything. The others answer `ping`, `auth`, `stats` and `stable-ref`. Whatever could change the
/// state, or must have seen all changes (`l`, `e`, `w`, `r`, `n`, those of semaphores, `barrier`), they answer with
/// `error_not_leader` and the leader's address, without one while nobody leads.
///
/// `stats` tells of the one state, and of the connections of the member that is asked. It adds a `cluster` object
/// ([`ClusterStats`](crate::ClusterStats)), in which members are called `n0`, `n1` and so on, and whose indexes are 0, as there is no
/// log. `barrier` is answered at once, as there is one state
/// only. Signals are not known, as in all releases from 2.0 on.
///
/// # When the leader changes
///
/// Connections stay open. Waits that are blocked at the old leader are answered `error_not_leader`; after that the
/// connection is as good as any to that member. Leases run on, and their tokens are good for renew and release with the
/// new leader. Fences keep growing.
///
/// But no connection owns a lease any more, not even if its member leads again later: the end of a connection gives up
/// what was acquired, renewed or taken back over it since its member leads, and nothing else. Places in queues are given up
/// unless a ref keeps them (see below), those of tickets included: a `w` finds none.
///
/// While nobody leads the state rests. No lease is swept, no orphan given up. But time goes on: a lease whose TTL is over
/// ends as soon as somebody leads.
///
/// A leader that is [stopped](Self::stop) is one that changes, except that its connections end, and that nobody is told
/// anything. No majority is asked for: with two of three members stopped, a leader that is left goes on. A test that wants
/// it otherwise says [`depose`](Self::depose).
///
/// # Refs and orphans
///
/// `stable-ref` is taken once a connection, by any member, before the connection has asked for a lock or slot, even one
/// that was refused. Otherwise the answer is `error`, and nothing changes.
///
/// When a connection to the leader ends, the leases that it owns are released and its places in queues given up. (A renewal
/// makes the connection that sent it the owner.) If it presented a ref, and there is an
/// [`orphan_ttl`](super::ServerBuilder::orphan_ttl), they are kept for that long instead, as orphans. The same goes for what
/// any session has when the leader changes. Orphans are like everything else: leases run on, places move up and are granted
/// in their turn. When their time is over, places are given up, and leases are released if their connection ended; those
/// that only a change of leaders made orphans run on until their TTL. Each new leader gives all orphans their whole time
/// again.
///
/// A connection that has presented the same ref, and repeats its `l`, `sl`, `e` or `se` for the key, with the same limit,
/// gets what its session has of that key:
///
/// - a lease first, a semaphore's oldest: the same token, and the TTL that it was given last. It is *not* renewed by that:
///   it runs since it was granted or renewed, so whoever means to keep it renews it. A place that was granted meanwhile is a
///   lease, too;
/// - else the first place in the queue. The wait goes on there, for as long as the new request says, and the grant will have
///   its TTL. A try (timeout 0) takes no place back, and leaves it where it is.
///
/// What a session has is taken even from a connection that is still open, since a server may be late to notice its end: a
/// wait there is cut off, and that connection closed. So two connections that share a ref take each other's places, and get
/// the same token for the same key. That is what comes of breaking the rule: one ref, one session.
pub struct Cluster {
    state: Arc<Mutex<State>>,
    options: ServerOptions,
    members: Vec<Member>,
}

struct Member {
    port: Port,
    running: Mutex<Option<Server>>,
}

impl Member {
    /// The server, for a moment: never kept across an await.
    fn running(&self) -> MutexGuard<'_, Option<Server>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Begins to describe a cluster.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// Where the members listen, each at the same address for as long as the cluster exists.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let members = self.members.iter();
        members.map(|member| member.port.address().to_string()).collect()
    }

    /// Which member leads, from 0. None after [`depose`](Self::depose), and when the leader was stopped.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.state().leader()
    }

    /// Makes a member the leader, at once. If it is already, nothing happens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member, or it is stopped.
    pub fn move_leader(&self, to: usize) -> Result<()> {
        let running = self.member(to)?.running();
        if running.is_none() {
            return Err(Error::invalid("member", to, "it is stopped; start it before it leads"));
        }
        self.state().lead(to, Instant::now());
        Ok(())
    }

    /// From now on nobody leads. Whoever asks is told so, without an address.
    pub fn depose(&self) {
        self.state().depose(Instant::now());
    }

    /// Ends a member as if it were killed: its connections end, without an answer to what they wait for, and new ones are
    /// refused. (A request that it is at in that very moment may still be told that nobody leads.) If it led, nobody does
    /// until [`move_leader`](Self::move_leader). Nothing happens if it is stopped already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    ///
    /// # Cancel safety
    ///
    /// The member ends even if this is dropped; when it returns, nothing of the member is left.
    pub async fn stop(&self, member: usize) -> Result<()> {
        let server = {
            let mut running = self.member(member)?.running();
            self.state().crash(member, Instant::now());
            running.take()
        };
        if let Some(server) = server {
            server.stop().await;
        }
        Ok(())
    }

    /// Starts a stopped member again, at the same address. It does not lead. Nothing happens if it runs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member,
    /// [`ErrorKind::Connect`](crate::ErrorKind::Connect) if its address cannot be bound.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is started if it is dropped.
    pub async fn start(&self, member: usize) -> Result<()> {
        let stopped = self.member(member)?;
        if stopped.running().is_some() {
            return Ok(());
        }
        let listener = stopped.port.listen().await?;
        *stopped.running() = Some(self.serve(member, listener));
        Ok(())
    }

    fn serve(&self, member: usize, listener: port::Listener) -> Server {
        Server::serve(listener, self.options.clone(), Arc::clone(&self.state), member)
    }

    /// What has happened since the start, in order, whoever led, if the [options](ClusterBuilder::options) say
    /// `record_events`.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.state().events().to_vec()
    }

    /// The one state, with the connections to all members.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state().stats(Instant::now())
    }

    /// Misbehaviour: all members that do not lead name this address, whoever leads, and even if nobody does. `None` for the
    /// truth again.
    pub fn redirects_to(&self, address: Option<&str>) {
        let mut state = self.state();
        for member in 0..self.members.len() {
            if let Some(membership) = state.membership() {
                membership.redirect(member, address.map(Box::from));
            }
        }
    }

    /// Misbehaviour: as [`redirects_to`](Self::redirects_to), of one member.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    pub fn member_redirects_to(&self, member: usize, address: Option<&str>) -> Result<()> {
        self.member(member)?;
        if let Some(membership) = self.state().membership() {
            membership.redirect(member, address.map(Box::from));
        }
        Ok(())
    }

    /// Misbehaviour: whoever leads next knows no refs. Orphans are nobody's then: places are given up, and leases, those of
    /// ended connections included, run on until their TTL, their tokens good.
    pub fn forgets_refs(&self, forgets: bool) {
        if let Some(membership) = self.state().membership() {
            membership.forget_refs(forgets);
        }
    }

    /// Misbehaviour: whoever leads next does not know what is held. All leases end, recorded as
    /// [`Forgotten`](super::EventKind::Forgotten); their tokens hold nothing, and the keys go to those whose places were
    /// kept, or are free.
    pub fn forgets_tokens(&self, forgets: bool) {
        if let Some(membership) = self.state().membership() {
            membership.forget_tokens(forgets);
        }
    }

    fn member(&self, member: usize) -> Result<&Member> {
        let members = self.members.len();
        let found = self.members.get(member);
        found.ok_or_else(|| Error::invalid("member", member, &format!("there are {members}, counted from 0")))
    }

    /// The state, for a moment: never kept across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("addresses", &self.addresses())
            .field("leader", &self.leader())
            .finish_non_exhaustive()
    }
}
