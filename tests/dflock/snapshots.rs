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

#[test]
fn help_is_as_it_was_written() {
    let commands = [
        "run",
        "lock",
        "elect",
        "listen",
        "emit",
        "stats",
        "top",
        "serve",
        "config",
        "completions",
        "man",
    ];
    let mut all = text(&output(&["--help"]).stdout);
    for command in commands {
        all.push_str(&format!("\n$ dflock {command} --help\n"));
        all.push_str(&text(&output(&[command, "--help"]).stdout));
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
