//! A short run of the `chaos` example, which kills and stops processes and disturbs the network. The run must end
//! without a violation.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub)]
mod process;

use std::process::Command;

use process::example;

#[test]
fn a_short_run_of_chaos_ends_without_a_violation() {
    let output = Command::new(example("chaos"))
        .args(["--minutes", "0.3", "--clients", "3"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Without these bounds, a run in which almost nothing happened would also pass.
    let counted = |label: &str| {
        let behind = said.split_once(label).map(|(_, behind)| behind);
        let number = behind.and_then(|behind| behind.split(|letter: char| !letter.is_ascii_digit()).next());
        number
            .unwrap_or_else(|| panic!("{label:?} is not in {said}"))
            .parse::<u64>()
            .unwrap()
    };
    for (label, least) in [
        ("faults: ", 10),
        ("\noperations: ", 500),
        ("\nresource: ", 50),
        ("\njudged: ", 3_000),
        (" deadlines: ", 300),
        (" holders: ", 100),
        (" beliefs: ", 500),
        (" grants: ", 100),
        (" from_queues: ", 30),
        (" fences: ", 100),
        (" releases: ", 50),
        (" signals: ", 20),
        (" received: ", 20),
    ] {
        assert!(counted(label) > least, "{label:?}: {said}");
    }
    for kinds in [
        &["client killed"][..],
        &["client stopped for less than a lease"],
        &["client stopped for longer than a lease"],
        &["server killed and started again"],
        &["server stopped for less than a lease"],
        &["server stopped for longer than a lease"],
        &["leader", "follower stopped"],
        &["network: "],
    ] {
        assert!(kinds.iter().any(|kind| said.contains(kind)), "{kinds:?}: {said}");
    }
}
