//! A client that reaches its server only through an HTTP proxy.
//!
//!     cargo run --example through_proxy
//!
//! A connector is a `tower::Service`. The client calls it with the address of a server, and the connector returns a
//! stream. The connector of this example opens a tunnel through the proxy (`CONNECT`, RFC 9110). The proxy also runs in
//! this process. The lock server has the name `locks.internal`, and only the proxy knows its address.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{Client, Endpoint};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tower::Service;

const SERVER: &str = "locks.internal:6388";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::builder().port(0).start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let through_proxy = ThroughProxy {
        proxy: listener.local_addr()?,
    };
    tokio::spawn(serve_as_proxy(listener, server.local_addr()));

    let client = Client::builder()
        .servers([SERVER])
        .connector(through_proxy.clone())
        .connect()
        .await?;
    println!(
        "connected to {} through {}",
        client.health()[0].endpoint,
        through_proxy.proxy
    );
    let lock = client.lock("orders/42")?;
    let guard = lock.acquire().await?;
    println!(
        "the server has {} lock, and grants it to one caller at a time:",
        server.stats().locks.len()
    );
    // The acquire waits for the release. The client opens another connection for the wait: a second tunnel.
    let (next, released) = tokio::join!(lock.acquire(), guard.release());
    released?;
    next?.release().await?;
    println!("released, and the next caller had it");

    let elsewhere = Client::builder()
        .servers(["elsewhere.internal:6388"])
        .connector(through_proxy);
    match elsewhere.connect().await {
        Ok(_) => return Err("the proxy accepts every name".into()),
        Err(error) => println!("{error}: {}", error.source().ok_or("the error has no source")?),
    }
    Ok(())
}

/// The connector. It opens the tunnels, sets their socket options, and decides which answers of the proxy are errors.
#[derive(Clone)]
struct ThroughProxy {
    proxy: SocketAddr,
}

impl Service<Endpoint> for ThroughProxy {
    /// The stream is buffered because the proxy may send the server's first bytes together with its own answer.
    type Response = BufReader<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        Box::pin(open_tunnel(self.proxy, endpoint))
    }
}

async fn open_tunnel(proxy: SocketAddr, endpoint: Endpoint) -> io::Result<BufReader<TcpStream>> {
    if endpoint.unix_path().is_some() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "a proxy reaches hosts only"));
    }
    let mut stream = BufReader::new(TcpStream::connect(proxy).await?);
    // Requests are small, so the socket sends each at once. Keepalives of TCP detect a lost proxy while a request
    // waits for a lock.
    stream.get_ref().set_nodelay(true)?;
    let every = Duration::from_secs(5);
    let keepalive = TcpKeepalive::new().with_time(every).with_interval(every);
    SockRef::from(stream.get_ref()).set_tcp_keepalive(&keepalive)?;
    let request = format!("CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let answer = read_head(&mut stream).await?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(stream),
        _ => Err(io::Error::other(format!("the proxy answered {answer:?}"))),
    }
}

/// Reads an HTTP request or answer up to the empty line at the end of its headers. Returns the first line.
async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    const LONGEST: u64 = 8192;
    let mut head = stream.take(LONGEST);
    let (mut first, mut line) = (String::new(), String::new());
    while head.read_line(&mut line).await? > 0 {
        match line.trim_end() {
            "" => return Ok(first),
            text if first.is_empty() => text.clone_into(&mut first),
            _ => {}
        }
        line.clear();
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the connection ended before the empty line of the headers",
    ))
}

/// Runs a proxy that opens tunnels only to `SERVER`.
async fn serve_as_proxy(listener: TcpListener, server: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            if let Err(error) = serve_tunnel(BufReader::new(stream), server).await {
                eprintln!("proxy: {error}");
            }
        });
    }
}

async fn serve_tunnel(mut stream: BufReader<TcpStream>, server: SocketAddr) -> io::Result<()> {
    let request = read_head(&mut stream).await?;
    if request != format!("CONNECT {SERVER} HTTP/1.1") {
        return stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
    }
    let mut far = TcpStream::connect(server).await?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut far).await.map(drop)
}
