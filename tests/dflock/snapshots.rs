//! What is shown, word for word. `DFLOCK_SNAPSHOTS=write cargo test --test dflock snapshots` writes the files anew.

use std::path::PathBuf;

use dflockd_client::server::Server;

use crate::tool::{dflock, output, text};

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

/// The names of the subcommands that a help lists. Names live as long as the tests do.
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
        // The first of them is shown next.
        open.extend(below.into_iter().rev().map(|name| [&command[..], &[name]].concat()));
    }
    compare("help.txt", &all);
}

#[test]
fn messages_are_as_they_were_written() {
    let cases: [&[&str]; 13] = [
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
    ];
    let mut all = String::new();
    for arguments in cases {
        let ended = output(arguments);
        all.push_str(&format!("$ dflock {}\n{}", arguments.join(" "), text(&ended.stderr)));
        all.push_str(&format!("exit code {}\n\n", ended.status.code().unwrap()));
    }
    compare("messages.txt", &all);
}

/// Numbers differ from run to run: a word with a digit is shown as #.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_of_the_doctor_are_as_they_were_written() {
    let server = Server::builder().port(0).auth_token("sesame").start().await.unwrap();
    let servers = format!("{},127.0.0.1:1+127.0.0.1:2", server.local_addr());
    let mut all = String::new();
    for secret in ["sesame", "wrong"] {
        let mut command = dflock();
        command
            .args(["doctor", "--servers", &servers])
            .env("DFLOCKD_AUTH_TOKEN", secret);
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
        let ended = ended.await.unwrap();
        all.push_str(&text(&ended.stdout));
        all.push_str(&format!("exit code {}\n\n", ended.status.code().unwrap()));
    }
    let is_number = |word: &str| word.contains(|c: char| c.is_ascii_digit());
    let without_numbers = |word| if is_number(word) { "#" } else { word };
    let mut shown = String::new();
    // A machine that is busy may be slow, and is warned of then.
    for line in all
        .lines()
        .filter(|line| !line.contains(" latency  p") && !line.contains("load of the server"))
    {
        let words: Vec<&str> = line.split(' ').map(without_numbers).collect();
        shown.push_str(&format!("{}\n", words.join(" ")));
    }
    compare("doctor.txt", &shown);
}
