//! Two parts of the benchmark `benches/compare`: it writes documents from its results, and it ends all processes that
//! it started. `.ci/run` runs the whole benchmark.

#[allow(dead_code)]
#[path = "../../benches/compare/child.rs"]
mod child;
#[allow(dead_code)]
#[path = "../../benches/compare/documents.rs"]
mod documents;
#[path = "../../benches/compare/group.rs"]
mod group;
#[allow(dead_code)]
#[path = "../../benches/compare/guard.rs"]
mod guard;
#[allow(dead_code)]
#[path = "../../benches/compare/plot.rs"]
mod plot;
#[allow(dead_code)]
#[path = "../../benches/compare/results.rs"]
mod results;
#[allow(dead_code)]
#[path = "../../benches/compare/table.rs"]
mod table;

use std::fs;
use std::path::PathBuf;

use self::results::{Cell, Keys, LeftOut, Results, Side, Spread};

fn results() -> Results {
    let side = |name: &str, label: &str, is_another_system| Side {
        name: name.to_owned(),
        label: label.to_owned(),
        is_another_system,
        version: "1.2.3".to_owned(),
    };
    let cell = |side: &str, keys, workers, rates: &[f64]| Cell {
        side: side.to_owned(),
        keys,
        workers,
        rates: rates.to_vec(),
        failures: Vec::new(),
    };
    Results {
        date: "2026-11-28".to_owned(),
        machine: "2 x a processor".to_owned(),
        rounds: 3,
        seconds: 2.0,
        workers: vec![1, 1000],
        sides: vec![side("tasks", "this client, tasks", false), side("redis", "Redis", true)],
        left_out: vec![LeftOut {
            label: "TypeScript".to_owned(),
            reason: "no npm in PATH".to_owned(),
        }],
        cells: vec![
            cell("tasks", Keys::Own, 1, &[9000.0, 8000.0, 8123.0]),
            Cell {
                failures: vec!["no answer".to_owned()],
                ..cell("tasks", Keys::Own, 1000, &[200_499.0, 100_000.0])
            },
            Cell {
                failures: vec!["no answer".to_owned(); 2],
                ..cell("tasks", Keys::One, 1000, &[5000.0])
            },
            cell("redis", Keys::Own, 1, &[406.0, 406.2, 405.0]),
            Cell {
                failures: vec!["too many open files".to_owned()],
                ..cell("redis", Keys::Own, 1000, &[])
            },
            cell("redis", Keys::One, 1000, &[20.0]),
        ],
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compare").join(name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_spread_has_the_median_of_the_rounds() {
    let results = results();
    let spread = |median, least, most| Some(Spread { median, least, most });
    assert_eq!(results.spread("tasks", Keys::Own, 1), spread(8123.0, 8000.0, 9000.0));
    assert_eq!(
        results.spread("tasks", Keys::Own, 1000),
        spread(150_249.5, 100_000.0, 200_499.0)
    );
    assert_eq!(results.spread("redis", Keys::Own, 1000), None);
    assert_eq!(results.spread("python", Keys::Own, 1), None);
}

#[test]
fn the_lead_compares_with_the_current_python_client_at_100_tasks() {
    let mut results = results();
    assert_eq!((results.lead(), table::lead(&results)), (None, None));
    for (side, rate) in [("tasks", 5000.0), ("python-2-tasks", 40.0)] {
        results.cells.push(Cell {
            side: side.to_owned(),
            keys: Keys::Own,
            workers: 100,
            rates: vec![rate],
            failures: Vec::new(),
        });
    }
    assert_eq!(results.lead(), Some(125.0));
    assert!(table::all(&results).contains("made 125.0 times as many pairs"));
}

#[test]
fn rates_have_at_most_three_significant_digits() {
    for (pairs, text) in [
        (0.4, "0"),
        (7.0, "7"),
        (99.6, "100"),
        (405.6, "406"),
        (8123.0, "8,120"),
        (9996.0, "10,000"),
        (178_499.0, "178,000"),
        (1_234_567.0, "1,230,000"),
    ] {
        assert_eq!(table::rate(pairs), text);
    }
}

#[test]
fn the_tables_have_every_result_and_every_failure() {
    let text = table::all(&results());
    for line in [
        "Measured on 2026-11-28: 2 x a processor. Pairs a second, medians of 3 rounds, the least and the most in brackets; each round of a cell took 2 s, or half as long with one key.",
        "| workers | version | 1 | 1,000 |",
        "| this client, tasks | 1.2.3 | 8,120 (8,000 to 9,000) | 150,000 (100,000 to 200,000; 2 of 3 rounds) |",
        "| Redis (another system) | 1.2.3 | 406 (405 to 406) | failed |",
        "| workers | version | 1,000 |",
        "| this client, tasks | 1.2.3 | 5,000 (1 of 3 rounds) |",
        "| Redis (another system) | 1.2.3 | 20 |",
        "Left out: TypeScript. no npm in PATH.",
        "Failed in 1 of 3 rounds: tasks, own key, 1,000 workers. no answer.",
        "Failed in 1 of 1 rounds: redis, own key, 1,000 workers. too many open files.",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn only_the_part_between_the_comments_is_rewritten() {
    let before = "# Title\n\n<!-- written by benches/compare: begin -->\nold\n<!-- written by benches/compare: end -->\n\nmore\n";
    let after = documents::replace(before, "new\n").unwrap();
    assert_eq!(after, before.replace("old\n", "\nnew\n\n"));
    assert_eq!(documents::replace(&after, "new\n").unwrap(), after);
    assert_eq!(documents::replace("# Title\n", "new\n"), None);
}

/// The test makes the documents twice: from results, and from a file with the same results (`--from FILE --docs`).
#[test]
fn results_read_from_a_file_make_the_same_documents() {
    let (first, second) = (folder("first"), folder("second"));
    for root in [&first, &second] {
        let comments = documents::replace(
            "<!-- written by benches/compare: begin -->\n<!-- written by benches/compare: end -->\n",
            "",
        );
        fs::create_dir_all(root.join("docs")).unwrap();
        for document in ["README.md", "docs/benchmarks.md"] {
            fs::write(root.join(document), comments.clone().unwrap()).unwrap();
        }
    }
    documents::write_results(&results(), &results().to_json().unwrap(), &first).unwrap();
    documents::rewrite(&results(), &first).unwrap();
    let json = fs::read_to_string(first.join("results.json")).unwrap();
    let again = Results::from_json(&json).unwrap();
    assert_eq!(again, results());
    documents::write_results(&again, &json, &second).unwrap();
    documents::rewrite(&again, &second).unwrap();
    for file in [
        "results.json",
        "tables.md",
        "own.svg",
        "one.svg",
        "README.md",
        "docs/benchmarks.md",
    ] {
        let [first, second] = [&first, &second].map(|root| fs::read_to_string(root.join(file)).unwrap());
        assert_eq!(first, second, "{file}");
    }
    let plot = fs::read_to_string(first.join("own.svg")).unwrap();
    for text in ["this client, tasks", "Redis", "workers", "10,000"] {
        assert!(plot.contains(text), "{text}");
    }
    let readme = fs::read_to_string(first.join("README.md")).unwrap();
    for text in [
        "| this client, tasks | 8,120 | 150,000 (2 of 3 rounds) |\n",
        "| Redis (another system) | 406 | failed |\n",
        "(docs/benchmarks/own.svg)",
        "measured on 2026-11-28: 2 x a processor.\n",
        "\nLeft out: TypeScript. Failed in some rounds: this client, tasks; Redis. The reasons are in [`docs/benchmarks.md`]",
    ] {
        assert!(readme.contains(text), "{text}\n{readme}");
    }
}

#[test]
fn the_readme_mentions_no_gaps_if_there_are_none() {
    let mut results = results();
    results.left_out.clear();
    for cell in &mut results.cells {
        cell.failures.clear();
    }
    assert_eq!(table::missing(&results), None);
}

/// Each of these documents has the two comments between which `benches/compare` writes its tables.
#[test]
fn the_documents_can_be_rewritten() {
    for document in ["README.md", "docs/benchmarks.md"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = fs::read_to_string(path).unwrap();
        assert!(documents::replace(&text, "").is_some(), "{document}");
    }
}

#[test]
fn the_documents_agree_with_the_results() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let json = fs::read_to_string(root.join("docs/benchmarks/results.json")).unwrap();
    let results = Results::from_json(&json).unwrap();
    let copy = folder("copy");
    fs::create_dir_all(copy.join("docs")).unwrap();
    let documents = ["README.md", "docs/benchmarks.md"];
    for document in documents {
        fs::copy(root.join(document), copy.join(document)).unwrap();
    }
    documents::rewrite(&results, &copy).unwrap();
    for document in documents {
        let [told, measured] = [&root, &copy].map(|root| fs::read_to_string(root.join(document)).unwrap());
        assert_eq!(told, measured, "{document}");
    }
}

#[cfg(unix)]
mod processes {
    use std::ffi::OsString;
    use std::fs::File;
    use std::io::{BufRead, BufReader};
    use std::process::Command;
    use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
    use std::time::Duration;

    use rustix::process::{Pid, test_kill_process};

    use super::child::Child;
    use super::guard;

    const LONG: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn is_alive(line: &str) -> bool {
        let id = line.trim().parse().unwrap();
        test_kill_process(Pid::from_raw(id).unwrap()).is_ok()
    }

    #[test]
    fn a_child_ends_with_its_owner() {
        // The first script ends at the end of its standard input. The second script does not read its input, so its
        // owner kills it.
        for script in ["echo $$; exec cat > /dev/null", "echo $$; exec sleep 600"] {
            let mut child = Child::start("it", &mut shell(script)).unwrap();
            let id = child.line(LONG).unwrap();
            assert!(is_alive(&id));
            drop(child);
            assert!(!is_alive(&id), "{script}");
        }
    }

    #[test]
    fn a_child_that_prints_nothing_is_an_error() {
        let mut child = Child::start("it", &mut shell("exec cat")).unwrap();
        let error = child.line(Duration::from_millis(20)).unwrap_err();
        assert_eq!(error, "it printed nothing for 0 s");
    }

    #[test]
    fn a_child_that_fails_tells_why() {
        let mut child = Child::start("it", &mut shell("echo no room >&2; exit 3")).unwrap();
        let error = child.line(LONG).unwrap_err();
        assert_eq!(error, "it ended: exit status: 3: no room");
        let mut child = Child::start("it", &mut shell("exit 3")).unwrap();
        assert_eq!(child.succeed(LONG).unwrap_err(), "it ended: exit status: 3");
        let error = Child::start("it", &mut Command::new("/no such program")).err().unwrap();
        assert!(error.starts_with("it cannot be started: "), "{error}");
    }

    /// A script under a guard (see `benches/compare/guard.rs`). The script writes lines to its file descriptor 3, which
    /// is a named pipe. `lines` ends when no running process has the pipe open.
    struct Guarded {
        command: Vec<OsString>,
        lines: Receiver<String>,
    }

    impl Guarded {
        fn new(name: &str, script: &str) -> Self {
            let pipe = super::folder(name).join("pipe");
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let script = format!("exec 3> '{}'; {script}", pipe.display());
            let (tell, lines) = mpsc::channel();
            std::thread::spawn(move || {
                let pipe = File::open(pipe).unwrap();
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    drop(tell.send(line));
                }
            });
            Self {
                command: ["sh", "-c", &script].map(OsString::from).to_vec(),
                lines,
            }
        }

        fn line(&self) -> String {
            self.lines.recv_timeout(LONG).unwrap()
        }

        fn all_have_ended(&self) -> bool {
            self.lines.recv_timeout(LONG) == Err(RecvTimeoutError::Disconnected)
        }
    }

    /// In the benchmark, the guard's input is a pipe from the process that started the guard. In this test it is a
    /// duplex stream.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_guarded_process_ends_with_the_input_of_its_guard() {
        let guarded = Guarded::new("input", "echo $$ >&3; exec sleep 600");
        let (ours, input) = tokio::io::duplex(8);
        let command = guarded.command.clone();
        let running = tokio::spawn(async move { guard::run(&command, input).await });
        let id = guarded.line();
        assert!(is_alive(&id));
        drop(ours);
        assert_eq!(running.await.unwrap().unwrap(), None);
        assert!(!is_alive(&id));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn children_of_a_guarded_process_end_with_the_input_of_the_guard() {
        let guarded = Guarded::new("started", "sleep 600 & echo $! >&3; wait");
        let (ours, input) = tokio::io::duplex(8);
        let command = guarded.command.clone();
        let running = tokio::spawn(async move { guard::run(&command, input).await });
        assert!(is_alive(&guarded.line()));
        drop(ours);
        assert_eq!(running.await.unwrap().unwrap(), None);
        assert!(guarded.all_have_ended());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn children_that_a_guarded_process_leaves_behind_end_with_it() {
        let guarded = Guarded::new("left", "sleep 600 & exit 3");
        let (_ours, input) = tokio::io::duplex(8);
        let status = guard::run(&guarded.command, input).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(guarded.all_have_ended());
    }

    #[tokio::test]
    async fn a_guard_ends_with_its_process() {
        let (_ours, input) = tokio::io::duplex(8);
        let command: Vec<OsString> = ["sh", "-c", "exit 3"].map(OsString::from).to_vec();
        let status = guard::run(&command, input).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
    }
}
