//! Several servers that imitate a cluster: see [`Cluster`].

mod builder;
mod port;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

pub use self::builder::ClusterBuilder;
use self::port::Port;
use super::control::Control;
use super::event::Event;
use super::listener::{Served, Server};
use super::options::ServerOptions;
use super::state::State;
use crate::error::{Error, Result};
use crate::stats::Stats;

/// For tests: servers that imitate the members of one cluster, in this process, on one shared state. The leader is not
/// elected; the test [chooses](Self::move_leader) it, and also chooses which faults occur. Dropping the cluster ends
/// all members at once.
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
/// # Answers of the leader and of other members
///
/// The leader answers everything. The other members answer `ping`, `auth`, `stats` and `stable-ref`. They refuse all
/// requests that could change the state or must see all changes (`l`, `e`, `w`, `r`, `n`, those of semaphores,
/// `barrier`): the answer is `error_not_leader` with the leader's address, or without an address while no member leads.
///
/// `stats` reports the shared state, and the connections of the member that is asked. It adds a `cluster` object
/// ([`ClusterStats`](crate::ClusterStats)), in which members are called `n0`, `n1` and so on. `commit_index` and
/// `last_log_index` count the entries that members had to agree on: each request that only the leader answers, even a
/// renewal of an unknown token; each timeout of such a request; each wait that a shutdown or the end of its connection
/// ends; the end of each connection to the leader; and each new leader. `barrier` is answered at once, because
/// there is only one state. Signals do not exist, as in all releases from 2.0 on.
///
/// Connections can be idle without limit, unless [`closes_idle_connections`](ClusterBuilder::closes_idle_connections)
/// is set.
///
/// # When the leader changes
///
/// Connections stay open and keep their leases and queue positions. If such a connection ends while its member leads
/// again, its leases and queue positions are released, or kept for the orphan TTL. If it ends while its member does not
/// lead, nothing is released, and no other connection to this member can reclaim them, unless the member is restarted.
/// A request that blocks on such a connection gets a grant, or `timeout`; this `timeout` does not give up the queue
/// position. Leases run on, and the new leader accepts their tokens in renewals and releases. A queue position stays
/// until its turn; its grant then has the TTL of the request. Fences continue to grow.
///
/// While no member leads, the state does not change: no lease is swept, and no orphan is released. Time still passes: a
/// lease whose TTL is over ends as soon as a member leads.
///
/// [Stopping](Self::stop) the leader is like changing it, except that its connections end. A leader that is [shut
/// down](Self::shutdown) leads until its clients are gone. No majority is required: with two of three members stopped,
/// the remaining leader continues. A test that needs another behaviour calls [`depose`](Self::depose) or
/// [`isolate`](Self::isolate).
///
/// # The end of a connection
///
/// When the leader sees a connection end, it gives up the queue position at which a request of the connection blocks,
/// unless a timeout of that request would leave the position in the queue (see below). The leases and the other queue
/// positions that the connection owns are released at once, or kept for the
/// [`orphan_ttl`](super::ServerBuilder::orphan_ttl), whether or not the connection presented a ref. (A connection that
/// renews a lease becomes its owner.) Without
/// [`auto_release_on_disconnect`](super::ServerBuilder::auto_release_on_disconnect), leases run until their TTL.
///
/// # Refs
///
/// Each member accepts `stable-ref` once per connection. When a connection that has presented a ref asks for a key
/// (`l`, `sl`, `e` or `se`, with the same limit), it reclaims a lease or a queue position of its session. This requires
/// that the leader has seen the former connection end, or that the former connection was to another member, or to this
/// member before a restart. The connection reclaims:
///
/// - a lease, if the session has one (of a semaphore, the oldest one), with the same token. The lease starts again,
///   with the TTL of this request;
/// - otherwise the first queue position. Its grant will have the new TTL. Even a try (timeout 0) reclaims the position,
///   and leaves it in the queue. Any other request that has reclaimed a position and times out leaves it in the
///   queue, too: the answer is `timeout`. A further `w` on the connection, with timeout 0 if necessary, gives the
///   position up.
///
/// As long as the leader has not seen a connection end, no other connection to the same member can reclaim anything
/// from it, unless the member is restarted. This is so even if the connection has ended
/// [unnoticed](Self::overlooks_ends): a waiter then queues behind its own former connection.
///
/// `w` finds the lease or the queue position of the session, even without an `e` on the same connection. It returns the
/// same grant each time until the lease is released or expires. The answer contains the remaining seconds, rounded
/// down, or the [default TTL](super::ServerBuilder::default_lease_ttl) if none remain.
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
    /// Locks the server. The guard must not be held across an await.
    fn running(&self) -> MutexGuard<'_, Option<Server>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Returns a builder with the default options.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// Returns the addresses of the members. Each member keeps its address for the lifetime of the cluster.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let members = self.members.iter();
        members.map(|member| member.port.address().to_string()).collect()
    }

    /// Returns the shared state in a form that tests can control.
    pub(crate) fn control(&self) -> Control {
        Control::of(&self.state)
    }

    /// Returns the number of the leader, counted from 0. `None` while no member leads, for example after
    /// [`depose`](Self::depose), or after the leader was stopped or isolated.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.state().leader()
    }

    /// Makes a member the leader, at once. If it already leads, nothing happens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member, or if it is stopped or
    /// isolated.
    pub fn move_leader(&self, to: usize) -> Result<()> {
        let running = self.member(to)?.running();
        if running.is_none() {
            return Err(Error::invalid("member", to, "it is stopped; start it before it leads"));
        }
        let mut state = self.state();
        if state.membership().is_some_and(|members| !members.reaches(to)) {
            return Err(Error::invalid(
                "member",
                to,
                "it is isolated; let it rejoin before it leads",
            ));
        }
        state.lead(to, Instant::now());
        Ok(())
    }

    /// Leaves the cluster without a leader. Members answer requests for the leader with `error_not_leader` without an
    /// address.
    pub fn depose(&self) {
        self.state().depose();
    }

    /// Ends a member as if its process were killed: its connections end without answers to blocked requests, and new
    /// connections are refused. (A request that the member is processing at that moment may still be answered with
    /// `error_not_leader`, without an address.) If the member led, no member leads until
    /// [`move_leader`](Self::move_leader). Nothing happens if the member is already stopped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    ///
    /// # Cancel safety
    ///
    /// The member ends even if the future is dropped; when the future resolves, nothing of the member is left.
    pub async fn stop(&self, member: usize) -> Result<()> {
        let server = {
            let mut running = self.member(member)?.running();
            self.state().crash(member);
            running.take()
        };
        if let Some(server) = server {
            server.stop().await;
        }
        Ok(())
    }

    /// Shuts a member down in an orderly way, as SIGTERM does. The member accepts no new connections. Requests that
    /// block there are answered with `error`; further requests are answered with `error_draining`, and their
    /// connections are closed. If the member leads, it gives up the queue positions of the blocked requests, except
    /// those that a timeout of the request would leave in the queue, and continues to lead until its connections have
    /// ended, at most for the [shutdown timeout](super::ServerBuilder::shutdown_timeout): as always, the end of each
    /// connection releases what the connection owns, or keeps it for the orphan TTL. Then no member leads until
    /// [`move_leader`](Self::move_leader). Nothing happens if the member is already stopped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the member ends at once, but stays the leader until another member becomes the leader.
    pub async fn shutdown(&self, member: usize) -> Result<()> {
        let server = self.member(member)?.running().take();
        if let Some(server) = server {
            server.drain().await;
            server.stop().await;
            self.state().crash(member);
        }
        Ok(())
    }

    /// Starts a stopped member again, at the same address. It does not lead. Nothing happens if it is running.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member, or no tokio runtime.
    /// - [`ErrorKind::Connect`](crate::ErrorKind::Connect) if the address of the member cannot be bound.
    ///
    /// After an error, the member stays stopped.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, nothing is started.
    pub async fn start(&self, member: usize) -> Result<()> {
        let stopped = self.member(member)?;
        if stopped.running().is_some() {
            return Ok(());
        }
        let listening = stopped.port.listen().await?;
        let mut running = stopped.running();
        if running.is_none() {
            if let Some(members) = self.state().membership() {
                members.begin_process(member);
            }
            *running = Some(listening(self.served_by(member)));
        }
        Ok(())
    }

    fn served_by(&self, member: usize) -> Served {
        Served {
            options: self.options.clone(),
            state: Arc::clone(&self.state),
            member,
        }
    }

    /// Returns the events since the start in order, across all leaders, if the [options](ClusterBuilder::options) set
    /// `record_events`.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.state().events().to_vec()
    }

    /// Returns the `stats` of the shared state, with the connections to all members.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state().stats(Instant::now())
    }

    /// Misbehaviour: makes all members that do not lead name this address as the leader's, even while no member leads.
    /// `None` restores the leader's real address.
    pub fn redirects_to(&self, address: Option<&str>) {
        let mut state = self.state();
        for member in 0..self.members.len() {
            if let Some(membership) = state.membership() {
                membership.redirect(member, address.map(Box::from));
            }
        }
    }

    /// Misbehaviour: does for one member what [`redirects_to`](Self::redirects_to) does for all.
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

    /// Cuts a member off from the others. If it led, no other member leads until [`move_leader`](Self::move_leader),
    /// and the isolated member still believes that it leads: requests that need an agreement with the others (`n`, `r`,
    /// `e`, …) hang, and are answered with `error` when the [read timeout](super::ServerBuilder::read_timeout) is over.
    /// For `l` and `w`, the wait time is added to the read timeout. Requests that already block there do not learn of
    /// grants.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    pub fn isolate(&self, member: usize) -> Result<()> {
        self.member(member)?;
        self.state().isolate(member);
        Ok(())
    }

    /// Reconnects an isolated member to the others. It does not lead then. Requests that hang there are answered with
    /// `error_not_leader`, and blocked requests learn of the grants that were made in the meantime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    pub fn rejoin(&self, member: usize) -> Result<()> {
        self.member(member)?;
        self.state().rejoin(member);
        Ok(())
    }

    /// Lets the leader lose leadership while its next request is under way: the request is carried out, but answered
    /// with `error_not_leader`. Then `next` leads, or no member does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    pub fn move_leader_in_flight(&self, next: Option<usize>) -> Result<()> {
        if let Some(next) = next {
            self.member(next)?;
        }
        if let Some(members) = self.state().membership() {
            members.trouble.fall_in_flight(next);
        }
        Ok(())
    }

    /// Misbehaviour: sets whether members overlook the end of a connection. Such a connection keeps its leases and
    /// queue positions, and its blocked request stays in the queue until its wait time is over. With `false`, members
    /// notice all overlooked ends at once.
    pub fn overlooks_ends(&self, overlooks: bool) {
        self.state().overlook_ends(overlooks, Instant::now());
    }

    /// Misbehaviour: sets whether acquires and enqueues are answered with `error`, as if the number of a fence could
    /// not be persisted.
    pub fn fails_to_persist(&self, fails: bool) {
        if let Some(members) = self.state().membership() {
            members.trouble.fail_to_persist(fails);
        }
    }

    /// Misbehaviour: sets whether the next leader knows no refs and no connections. All queue positions are given up,
    /// and leases run until their TTL, with valid tokens.
    pub fn forgets_refs(&self, forgets: bool) {
        if let Some(membership) = self.state().membership() {
            membership.trouble.forget_refs(forgets);
        }
    }

    /// Misbehaviour: sets whether the next leader forgets which leases are held. All leases end, recorded as
    /// [`Forgotten`](super::EventKind::Forgotten); their tokens become invalid, and their keys are granted to waiters,
    /// or are free.
    pub fn forgets_tokens(&self, forgets: bool) {
        if let Some(membership) = self.state().membership() {
            membership.trouble.forget_tokens(forgets);
        }
    }

    fn member(&self, member: usize) -> Result<&Member> {
        let members = self.members.len();
        let found = self.members.get(member);
        found.ok_or_else(|| Error::invalid("member", member, &format!("there are {members}, counted from 0")))
    }

    /// Locks the state. The guard must not be held across an await.
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
