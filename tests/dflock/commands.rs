//! The other subcommands, and where settings come from.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::tool::{Running, Witness, code, dflock, output, text};

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {:?}", text(bytes)))
}

/// A settings file that exists during one test.
struct Settings(PathBuf);

impl Settings {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dflock-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_tells_what_it_holds_and_ends_with_standard_input() {
    let server = Witness::new().server(0).await;
    let address = server.local_addr().to_string();
    let cases: [(&[&str], &str, &str); 3] = [
        (&["key"], "key", "lock"),
        (&["key", "--limit", "2"], "key", "semaphore"),
        (&["--keys", "b,a"], "a,b", "lock"),
    ];
    for (arguments, key, kind) in cases {
        let mut command = dflock();
        command
            .args(["lock", "--servers", &address, "--ttl", "7s", "--fence"])
            .args(arguments);
        let mut holder = Running::start(command.stdin(Stdio::piped()));
        let told = json(holder.line().as_bytes());
        assert_eq!((&told["key"], &told["kind"]), (&Value::from(key), &Value::from(kind)));
        assert_eq!(
            (&told["server"], &told["ttl_s"]),
            (&Value::from(&*address), &Value::from(7))
        );
        let fences = told["fence"]
            .as_str()
            .unwrap()
            .split(',')
            .map(|fence| fence.parse::<u64>().unwrap());
        assert_eq!(fences.count(), key.split(',').count());
        drop(holder.child.stdin.take());
        assert_eq!(holder.code(), 0);
        assert_eq!(holder.rest(), "");
    }
    assert!(server.stats().locks.is_empty());
    assert_eq!(
        code(&output(&["lock", "key", "--servers", &address])),
        0,
        "standard input has ended already"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_are_printed_as_text_and_as_json() {
    let server = Witness::new().describe().port(0).release("1.16").start().await.unwrap();
    let address = server.local_addr().to_string();
    let listen = |more: &[&str]| {
        let mut command = dflock();
        command
            .args(["listen", "orders.*", "--servers", &address, "--count", "2"])
            .args(more);
        Running::start(&mut command)
    };
    let (mut plain, mut structured) = (listen(&[]), listen(&["--json"]));
    crate::support::until("both listen", || {
        server
            .stats()
            .signal_channels
            .iter()
            .map(|channel| channel.listeners)
            .sum::<u64>()
            == 2
    })
    .await;
    let emitted = output(&["emit", "orders.42", "paid in full", "--servers", &address]);
    assert_eq!((code(&emitted), text(&emitted.stdout).as_str()), (0, "2\n"));
    let mut from_stdin = dflock();
    from_stdin.args(["emit", "orders.43", "-", "--json", "--servers", &address]);
    let mut from_stdin = Running::start(from_stdin.stdin(Stdio::piped()));
    from_stdin.child.stdin.take().unwrap().write_all(b"sent\n").unwrap();
    assert_eq!(json(from_stdin.line().as_bytes()), serde_json::json!({"delivered": 2}));
    assert_eq!(plain.line(), "orders.42 paid in full");
    assert_eq!(plain.line(), "orders.43 sent");
    assert_eq!(plain.code(), 0);
    let event = serde_json::json!({"event": "signal", "channel": "orders.42", "payload": "paid in full"});
    assert_eq!(json(structured.line().as_bytes()), event);
    assert_eq!(json(structured.line().as_bytes())["channel"], "orders.43");
    assert_eq!(structured.code(), 0);
}

/// A terminal obeys control characters in the keys and payloads of other clients, unless they are shown escaped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_of_other_clients_is_escaped_in_lines_for_people() {
    let server = Witness::new().describe().port(0).release("1.16").start().await.unwrap();
    let address = server.local_addr().to_string();
    let client = dflockd_client::Client::builder()
        .servers([&address])
        .connect()
        .await
        .unwrap();
    let _held = client.lock("red\u{1b}[31m").unwrap().acquire().await.unwrap();
    let table = text(&output(&["stats", "--servers", &address]).stdout);
    assert!(table.contains(r"red\u{1b}[31m") && !table.contains('\u{1b}'), "{table}");
    let told = json(&output(&["stats", "--json", "--servers", &address]).stdout);
    assert_eq!(told["shards"][0]["stats"]["locks"][0]["key"], "red\u{1b}[31m");
    let listen = |more: &[&str]| {
        let mut command = dflock();
        command
            .args(["listen", "orders.*", "--servers", &address, "--count", "1"])
            .args(more);
        Running::start(&mut command)
    };
    let (mut plain, mut structured) = (listen(&[]), listen(&["--json"]));
    crate::support::until("both listen", || {
        let listeners = server
            .stats()
            .signal_channels
            .into_iter()
            .map(|channel| channel.listeners);
        listeners.sum::<u64>() == 2
    })
    .await;
    client.emit("orders.\u{1b}c", "\u{1b}]0;title\u{7}").await.unwrap();
    assert_eq!(plain.line(), r"orders.\u{1b}c \u{1b}]0;title\u{7}");
    assert_eq!(json(structured.line().as_bytes())["payload"], "\u{1b}]0;title\u{7}");
}

#[test]
fn a_payload_that_is_too_long_is_refused_and_never_cut() {
    // The first payload has a character across the limit of the read. The second has line breaks up to that limit, and
    // more text behind them.
    let across = format!("ab{}", "\u{e4}".repeat(40_000));
    let behind = format!("{}{}more", "a".repeat(65_000), "\n".repeat(600));
    for payload in [across, behind] {
        let mut command = dflock();
        command.args(["emit", "channel", "--servers", "127.0.0.1:1"]);
        let mut emitting = Running::start(command.stdin(Stdio::piped()));
        let mut to = emitting.child.stdin.take().unwrap();
        // `dflock` need not read to the end, so this write may fail.
        drop(to.write_all(payload.as_bytes()));
        drop(to);
        assert_eq!(emitting.code(), 64, "{}", emitting.errors());
        assert!(emitting.errors().contains("too long"));
    }
}

#[test]
fn flags_override_the_environment_which_overrides_a_file() {
    let file = Settings::new(
        "layers",
        "servers = ['a.example', 'b.example']\nkeepalive = '4s'\nlease_ttl = '20s'\nauth_token = 'sesame-file'\n",
    );
    let shown = |arguments: &[&str]| {
        dflock()
            .args(["config", "--config", file.path()])
            .args(arguments)
            .env("DFLOCKD_CLIENT_LEASE_TTL", "30s")
            .env("DFLOCKD_CLIENT_REPLY_TIMEOUT", "5s")
            .output()
            .unwrap()
    };
    let table = text(&shown(&["--set", "reply_timeout=6s"]).stdout);
    let row = |name: &str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in {table}"))
            .split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
    };
    assert_eq!(row("servers"), ["a.example:6388,b.example:6388", file.path()]);
    assert_eq!(row("keepalive"), ["4s", file.path()]);
    assert_eq!(row("lease_ttl"), ["30s", "DFLOCKD_CLIENT_LEASE_TTL"]);
    assert_eq!(row("reply_timeout"), ["6s", "--set"]);
    assert_eq!(row("connect_timeout"), ["10s", "default"]);
    assert_eq!(row("auth_token"), ["…", file.path()]);
    assert!(!table.contains("sesame"));
    let told = json(&shown(&["--json", "--servers", "c.example"]).stdout);
    assert_eq!(told["file"], *file.path());
    let settings = told["settings"].as_array().unwrap();
    let servers = settings.iter().find(|setting| setting["name"] == "servers").unwrap();
    let expected =
        serde_json::json!({"name": "servers", "value": "c.example:6388", "source": "flag", "where": "--servers"});
    assert_eq!(*servers, expected);
}

/// The flags are to blame if they are refused by themselves, or if the settings are right without them. Otherwise
/// another source is to blame, even if flags are given.
#[test]
fn a_wrong_flag_ends_with_64_and_another_wrong_setting_with_78() {
    let cases: [(&str, &str, &[&str], i32); 9] = [
        ("", "", &["lock", "key", "--ttl", "1000000000000s"], 64),
        ("", "", &["run", "key", "--ttl", "0s", "--", "true"], 64),
        ("", "", &["lock", "key", "--set", "pipelined_connections=99"], 64),
        ("", "", &["bench", "pairs", "--set", "pipelined_connections=99"], 64),
        ("DFLOCKD_CLIENT_LEASE_TTL", "0s", &["lock", "key"], 78),
        ("DFLOCKD_CLIENT_LEASE_TTL", "0s", &["run", "key", "--", "true"], 78),
        (
            "DFLOCKD_CLIENT_PIPELINED_CONNECTIONS",
            "99",
            &["bench", "pairs", "--tasks", "1"],
            78,
        ),
        (
            "DFLOCKD_CLIENT_LEASE_TTL",
            "0s",
            &["lock", "key", "--set", "keepalive=3s"],
            78,
        ),
        // The flag is valid together with the variable.
        ("DFLOCKD_CLIENT_TLS", "yes", &["config", "--set", "tls_ca_file=/x"], 0),
    ];
    for (variable, value, arguments, expected) in cases {
        let mut command = dflock();
        command.args(arguments);
        if !variable.is_empty() {
            command.env(variable, value);
        }
        let ended = command.output().unwrap();
        assert_eq!(
            code(&ended),
            expected,
            "{variable} {arguments:?}: {}",
            text(&ended.stderr)
        );
    }
}

#[test]
fn a_variable_that_nothing_reads_is_warned_of_with_the_nearest_name() {
    let shown = |name: &str| {
        let ended = dflock().arg("config").env(name, "3").output().unwrap();
        assert_eq!(code(&ended), 0, "{ended:?}");
        text(&ended.stderr)
    };
    for (name, nearest) in [
        ("DFLOCKD_LEASE_TTL", "DFLOCKD_CLIENT_LEASE_TTL"),
        ("DFLOCKD_SERVER", "DFLOCKD_SERVERS"),
        ("DFLOCKD_MAX_LOCK", "DFLOCKD_MAX_LOCKS"),
    ] {
        let warning = shown(name);
        assert!(
            warning.contains(name) && warning.trim_end().ends_with(nearest),
            "{warning}"
        );
    }
    // A variable that servers read, and one that is near to no name.
    assert_eq!(shown("DFLOCKD_MAX_LOCKS"), "");
    assert_eq!(shown("DFLOCKD_VERSION"), "");
    let unknown = dflock()
        .arg("config")
        .env("DFLOCKD_CLIENT_LEASE", "3s")
        .output()
        .unwrap();
    assert_eq!(code(&unknown), 78);
    assert!(
        text(&unknown.stderr)
            .trim_end()
            .ends_with("the nearest is DFLOCKD_CLIENT_LEASE_TTL")
    );
}

#[test]
fn secrets_are_never_shown() {
    let file = Settings::new("secret", "auth_token = \"sesame\"\nlease_ttl = 3\n");
    let broken = Settings::new("broken", "lease_ttl = '3s'\nauth_token = \"sesame\n");
    for arguments in [
        vec!["config", "--config", file.path()],
        vec!["config", "--config", broken.path()],
        vec!["config", "--url", "dflockd://sesame@a:b"],
        vec!["config", "--set", "auth_token=sesame"],
        vec!["config", "--url", "dflockd://sesame@a.example/?lease_ttl=1"],
    ] {
        let refused = output(&arguments);
        assert!(matches!(code(&refused), 64 | 78), "{refused:?}");
        assert!(
            !format!("{}{}", text(&refused.stdout), text(&refused.stderr)).contains("sesame"),
            "{refused:?}"
        );
    }
    assert!(text(&output(&["config", "--config", broken.path()]).stderr).contains("line 2"));
    let shown = dflock()
        .args(["config"])
        .env("DFLOCKD_AUTH_TOKEN", "sesame")
        .output()
        .unwrap();
    assert!(code(&shown) == 0 && !text(&shown.stdout).contains("sesame"));
    assert_eq!(code(&output(&["config", "--config", "/no/such/file"])), 78);
}

#[test]
fn shells_get_completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&output(&["completions", shell]).stdout);
        assert!(script.contains("dflock") && script.contains("completions"), "{shell}");
    }
    assert!(text(&output(&["man"]).stdout).contains(".TH dflock 1"));
    let folder = std::env::temp_dir().join(format!("dflock-man-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    assert_eq!(code(&output(&["man", "--folder", folder.to_str().unwrap()])), 0);
    for page in ["dflock.1", "dflock-run.1", "dflock-lock.1"] {
        assert!(folder.join(page).exists(), "{page}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_folder_for_pages_that_does_not_exist_is_named() {
    let ended = output(&["man", "--folder", "/nonexistent/pages"]);
    assert_eq!(code(&ended), 74);
    assert!(text(&ended.stderr).contains("/nonexistent/pages"), "{ended:?}");
}

/// As in bash: the file exists, so it was found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_whose_interpreter_does_not_exist_cannot_be_executed() {
    use std::os::unix::fs::PermissionsExt;

    let server = Witness::new().server(0).await;
    let address = server.local_addr().to_string();
    let script = std::env::temp_dir().join(format!("dflock-script-{}", std::process::id()));
    std::fs::write(&script, "#!/nonexistent/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let command = script.to_str().unwrap();
    let ended = output(&["run", "k", "--servers", &address, "--", command]);
    std::fs::remove_file(&script).unwrap();
    assert_eq!(code(&ended), 126, "{}", text(&ended.stderr));
    assert!(text(&ended.stderr).contains("interpreter"), "{ended:?}");
}
