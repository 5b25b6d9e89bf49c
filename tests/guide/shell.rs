//! Tests of the shell blocks. A block that is marked `sh` is run. A block that is marked `console` shows a session.

use std::fs;
use std::path::Path;
use std::process::Command;

use dflockd_client::server::Server;

use crate::{blocks, chapters, root};

/// The blocks of a chapter run in their order, as one script in an empty folder. `dflock` is in the path, and a server
/// runs.
#[tokio::test(flavor = "multi_thread")]
async fn the_shell_blocks_of_the_guide_run() {
    let server = Server::builder().port(0).start().await.unwrap();
    let servers = server.local_addr().to_string();
    let mut ran = 0;
    for (path, text) in chapters() {
        let blocks = blocks(&text, "sh");
        if blocks.is_empty() {
            continue;
        }
        run(&path, &blocks.concat(), &servers);
        ran += blocks.len();
    }
    assert!(ran >= 2, "only {ran} blocks ran");
}

fn run(chapter: &Path, script: &str, servers: &str) {
    let name = chapter.file_stem().unwrap().to_str().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("guide-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let tools = Path::new(env!("CARGO_BIN_EXE_dflock")).parent().unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(&folder)
        .env_clear()
        .envs([("PATH", path.as_str()), ("DFLOCKD_SERVERS", servers)])
        .env("HOME", &folder)
        .output()
        .unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert!(
        output.status.success(),
        "{}: {}\n{script}\n{}{}",
        chapter.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn shell_blocks_have_one_of_two_marks_and_sessions_have_prompts() {
    let readme = root().join("README.md");
    let mut documents = chapters();
    documents.push((readme.clone(), fs::read_to_string(readme).unwrap()));
    for (path, text) in documents {
        for mark in ["bash", "shell", "sh,ignore", "zsh"] {
            assert!(
                blocks(&text, mark).is_empty(),
                "{}: a block is marked {mark}",
                path.display()
            );
        }
        // The first line of a session begins with a prompt, or with variables for a command.
        for block in blocks(&text, "console") {
            let first = block.lines().next().unwrap();
            assert!(
                first.starts_with("$ ") || first.starts_with("DFLOCKD_"),
                "{}: a session begins with a prompt: {first}",
                path.display()
            );
        }
    }
}

/// The published package does not contain `.ci/run`, so the test checks nothing there.
#[test]
fn ci_runs_every_command_of_the_readme() {
    let Ok(ci) = fs::read_to_string(root().join(".ci/run")) else {
        return;
    };
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let commands: Vec<String> = blocks(&readme, "sh")
        .concat()
        .lines()
        .map(|line| line.split(" #").next().unwrap().trim().to_owned())
        .collect();
    assert!(commands.len() >= 2, "{commands:?}");
    for command in commands {
        let runs = match command.strip_prefix("cargo run --example ") {
            Some(example) => ci.lines().any(|line| {
                line.trim().starts_with("for example in ") && line.split([' ', ';']).any(|name| name == example)
            }),
            None => {
                command == "cargo test"
                    && ci.contains("/^## Run the tests/")
                    && ci.contains("\nstep \"the README's test command\" readme_test_command\n")
            }
        };
        assert!(runs, "README.md: .ci/run does not run `{command}`");
    }
}
