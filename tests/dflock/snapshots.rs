//! Output, word for word. `DFLOCK_SNAPSHOTS=write cargo test --test dflock snapshots` writes the files anew.

use std::path::PathBuf;
use std::process::Stdio;

use dflockd_client::Client;
use dflockd_client::server::Server;

use crate::support::proxy::Proxy;
use crate::support::until;
use crate::tool::{Running, dflock, output, text};

fn compare(name: &str, shown: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/dflock")
        .join(name);
    if std::env::var_os("DFLOCK_SNAPSHOTS").is_some_and(|wish| wish == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, shown).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(shown, expected, "{name}");
}

/// Returns the names of the subcommands that a help text lists. The names live as long as the tests do.
fn subcommands(help: &str) -> Vec<&'static str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help");
    names.map(|name| &*name.to_owned().leak()).collect()
}

#[test]
fn help_is_as_it_was_written() {
    let mut all = String::new();
    let mut open = vec![Vec::new()];
    while let Some(command) = open.pop() {
        let shown = text(&output(&[&command[..], &["--help"]].concat()).stdout);
        let below = subcommands(&shown);
        all.push_str(&format!(
            "$ dflock {}\n{shown}\n",
            [&command[..], &["--help"]].concat().join(" ")
        ));
        // The first subcommand is shown next.
        open.extend(below.into_iter().rev().map(|name| [&command[..], &[name]].concat()));
    }
    compare("help.txt", &all);
}

#[test]
fn messages_are_as_they_were_written() {
    let cases: [&[&str]; 34] = [
        &["run", "key"],
        &["run", "--", "true"],
        &["run", "key", "--ttl", "10", "--", "true"],
        &["run", "key", "--ttl", "10s", "--grace", "6s", "--", "true"],
        &["run", "a key", "--", "true"],
        &["run", "key", "--try", "--timeout", "1s", "--", "true"],
        &["run", "key", "--set", "auth_token=x", "--", "true"],
        &[
            "run",
            "key",
            "--servers",
            "127.0.0.1:1",
            "--timeout",
            "100ms",
            "--",
            "true",
        ],
        &["stats", "--sort", "age"],
        &["stats", "--filter", ""],
        &["stats", "--watch", "10ms"],
        &["top"],
        &["nothing"],
        &["acquire", "key"],
        &["run", "key", "--wait", "1s", "--", "true"],
        &["run", "key", "--nonblock", "--", "true"],
        &["run", "key", "--lease-ttl", "3s", "--", "true"],
        &["run", "key", "--keepalive", "3s", "--", "true"],
        &["run", "key", "--auth-token", "x", "--", "true"],
        &["run", "key", "--stable-ref", "x", "--", "true"],
        &["run", "key", "-c", "true"],
        &["serve", "--addr", "127.0.0.1"],
        &["serve", "--servers", "127.0.0.1:1"],
        &["man", "--set", "tls=true"],
        &["elect", "name", "--timeout", "1s", "--", "true"],
        &["elect", "name", "--try", "--", "true"],
        &["emit", "channel", "payload", "--timeout", "1s"],
        &["stats", "--follow"],
        &["lock", "key", "--set", "leas_ttl=3s"],
        &["lock", "key", "--set", "ttl=3s"],
        &["lock", "key", "--set", "colour=red"],
        &["lock", "key", "--ttl", "1000000000000s"],
        &["run", "key", "--ttl", "0s", "--", "true"],
        &["lock", "key", "--set", "pipelined_connections=99"],
    ];
    let mut all = String::new();
    for arguments in cases {
        let ended = output(arguments);
        all.push_str(&format!("$ dflock {}\n{}", arguments.join(" "), text(&ended.stderr)));
        all.push_str(&format!("exit code {}\n\n", ended.status.code().unwrap()));
    }
    compare("messages.txt", &all);
}

/// The server lacks what the command needs, or the command uses it in the wrong way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_about_servers_are_as_they_were_written() {
    let guarded = Server::builder().port(0).auth_token("sesame").start().await.unwrap();
    let newest = Server::builder().port(0).release("2.1").start().await.unwrap();
    let oldest = Server::builder().port(0).release("1.10").start().await.unwrap();
    let cases: [(&Server, &str, &[&str]); 10] = [
        (&guarded, "", &["run", "key", "--", "true"]),
        (&guarded, "DFLOCKD_AUTH_TOKEN=wrong", &["run", "key", "--", "true"]),
        (&guarded, "", &["stats"]),
        (&newest, "", &["emit", "channel", "payload"]),
        (&newest, "", &["listen", "channel"]),
        (&oldest, "", &["emit", "channel", "payload"]),
        (&oldest, "", &["run", "key", "--fence", "--", "true"]),
        (&newest, "", &["run", "key", "--set", "tls=true", "--", "true"]),
        (&newest, "DFLOCKD_CLIENT_TLS=yes", &["stats"]),
        (&newest, "DFLOCKD_LEASE_TTL=3", &["run", "key", "--", "true"]),
    ];
    let mut all = String::new();
    for (server, variable, arguments) in cases {
        let address = server.local_addr().to_string();
        let mut command = dflock();
        command.args(arguments).env("DFLOCKD_SERVERS", &address);
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
        let ended = ended.await.unwrap();
        let shown = text(&ended.stderr).replace(&address, "HOST:PORT");
        let variable = if variable.is_empty() {
            String::new()
        } else {
            format!("{variable} ")
        };
        all.push_str(&format!("$ {variable}dflock {}\n{shown}", arguments.join(" ")));
        all.push_str(&format!("exit code {}\n\n", ended.status.code().unwrap()));
    }
    compare("servers.txt", &all);
}

/// Returns the messages of a command and its exit code. HOST:PORT replaces the address of the server.
fn told(arguments: &str, server: &str, running: &mut Running) -> String {
    let code = running.code();
    let said = running.errors().replace(server, "HOST:PORT");
    format!("$ dflock {arguments}\n{said}exit code {code}\n\n")
}

fn start(arguments: &str, server: &str) -> Running {
    let mut command = dflock();
    command.args(arguments.split(' ')).env("DFLOCKD_SERVERS", server);
    Running::start(&mut command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_about_full_servers_and_lost_leases_are_as_they_were_written() {
    let mut all = String::new();
    let refused = |arguments: &str, server: &str| told(arguments, server, &mut start(arguments, server));

    let full = Server::builder()
        .port(0)
        .max_locks(1)
        .max_waiters(1)
        .start()
        .await
        .unwrap();
    let address = full.local_addr().to_string();
    let client = Client::builder().servers([&address]).connect().await.unwrap();
    let _held = client.lock("held").unwrap().acquire().await.unwrap();
    all += &refused("run key -- true", &address);
    all += &refused("run held --try -- true", &address);
    all += &refused("run held --timeout 2s -- true", &address);
    let waiters = |count| full.stats().locks.iter().all(|lock| lock.waiters == count);
    until("no command waits any more", || waiters(0)).await;
    let _waiter = start("run held --timeout 60s -- true", &address);
    until("a command waits", || waiters(1)).await;
    all += &refused("run held -- true", &address);

    let open = Server::builder().port(0).start().await.unwrap();
    for arguments in [
        "run key -- sh -c echo\tstarted;exec\tsleep\t1000",
        "lock key --ignore-stdin",
    ] {
        // The connection is cut, so that the server may grant the key to another holder at once.
        let proxy = Proxy::start(&open.local_addr().to_string()).await;
        let mut holder = start(arguments, &proxy.address);
        holder.line();
        proxy.cut();
        all += &told(&arguments.replace('\t', " "), &proxy.address, &mut holder);
    }
    // The command goes on until its standard input ends, which is after the message.
    let proxy = Proxy::start(&open.local_addr().to_string()).await;
    let arguments = "run key --on-loss ignore -- sh -c echo\tstarted;exec\tcat";
    let mut command = dflock();
    command
        .args(arguments.split(' '))
        .env("DFLOCKD_SERVERS", &proxy.address);
    let mut holder = Running::start(command.stdin(Stdio::piped()));
    holder.line();
    proxy.cut();
    let lost = holder.error();
    drop(holder.child.stdin.take());
    let ended = told(&arguments.replace('\t', " "), &proxy.address, &mut holder);
    all += &ended.replacen('\n', &format!("\n{lost}\n"), 1);
    // No request passes any more, so the lease ends by time.
    let proxy = Proxy::start(&open.local_addr().to_string()).await;
    let arguments = "run key --ttl 2s --grace 100ms -- sh -c echo\tstarted;exec\tsleep\t1000";
    let mut holder = start(arguments, &proxy.address);
    holder.line();
    proxy.change(|treatment| treatment.stall_up = true);
    all += &told(&arguments.replace('\t', " "), &proxy.address, &mut holder);
    compare("full-and-lost.txt", &all);
}

/// Numbers differ from run to run, so a word with a digit is shown as #.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_of_the_doctor_are_as_they_were_written() {
    let server = Server::builder().port(0).auth_token("sesame").start().await.unwrap();
    let servers = format!("{},127.0.0.1:1+127.0.0.1:2", server.local_addr());
    let mut all = String::new();
    for token in ["sesame", "wrong"] {
        let mut command = dflock();
        command
            .args(["doctor", "--servers", &servers])
            .env("DFLOCKD_AUTH_TOKEN", token);
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
        let ended = ended.await.unwrap();
        all.push_str(&text(&ended.stdout));
        all.push_str(&format!("exit code {}\n\n", ended.status.code().unwrap()));
    }
    let is_number = |word: &str| word.contains(|c: char| c.is_ascii_digit());
    let without_numbers = |word| if is_number(word) { "#" } else { word };
    let mut shown = String::new();
    // A busy machine may be slow, and then there is a warning.
    for line in all
        .lines()
        .filter(|line| !line.contains(" latency  p") && !line.contains("load of the server"))
    {
        let words: Vec<&str> = line.split(' ').map(without_numbers).collect();
        shown.push_str(&format!("{}\n", words.join(" ")));
    }
    compare("doctor.txt", &shown);
}
