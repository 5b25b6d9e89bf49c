//! A proxy that makes an embedded server look like a build between 1.10 and 2.0. In this build, the first half of each
//! token is random, each grant has its fence in a third field, and an empty list is `null`.

use dflockd_client::server::Server;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Starts the proxy, which runs until the process ends. Returns its address.
pub async fn start(server: Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(server.local_addr()).await.unwrap();
            tokio::spawn(carry(client, server));
        }
    });
    address
}

async fn carry(client: TcpStream, server: TcpStream) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let up = async {
        let mut lines = BufReader::new(from_client).lines();
        let (mut number, mut presents_token) = (0, false);
        while let Ok(Some(line)) = lines.next_line().await {
            if number == 0 {
                presents_token = matches!(&*line, "r" | "n" | "sr" | "sn");
            }
            let line = match number == 2 && presents_token {
                true => with_swapped_token(&line).unwrap_or(line),
                false => line,
            };
            number = (number + 1) % 3;
            if to_server.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut lines = BufReader::new(from_server).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let line = answer(&line);
            if to_client.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// Swaps the halves of the token at the beginning of a line, and keeps the rest.
fn with_swapped_token(line: &str) -> Option<String> {
    let token = line
        .get(..32)
        .filter(|token| token.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    Some(format!("{}{}{}", &token[16..], &token[..16], &line[32..]))
}

fn answer(line: &str) -> String {
    for word in ["ok ", "acquired "] {
        let Some(rest) = line.strip_prefix(word) else { continue };
        if let Some(swapped) = with_swapped_token(rest) {
            let fence = u64::from_str_radix(&rest[..16], 16).unwrap();
            return format!("{word}{swapped} {fence}");
        }
    }
    if line.starts_with("ok {") {
        let without = line.replace("[]", "null");
        return match without.contains("signal_channels") {
            true => without,
            false => without.replacen('{', r#"{"signal_channels":null,"#, 1),
        };
    }
    line.to_owned()
}
