//! What is shown, word for word. `DFLOCK_SNAPSHOTS=write cargo test --test dflock snapshots` writes the files anew.

use std::path::PathBuf;

use crate::tool::{output, text};

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
