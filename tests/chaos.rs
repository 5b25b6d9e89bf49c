//! A short run of the `chaos` example: processes that are killed and stopped, a network that misbehaves, and nothing wrong in the end.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::process::Command;

use support::process::example;

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
    // It was not for want of anything that could go wrong.
    let counted = |prefix: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(prefix));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .unwrap_or_else(|| panic!("{prefix:?} is not in {said}"))
            .parse::<u64>()
            .unwrap()
    };
    assert!(counted("faults: ") > 10, "{said}");
    assert!(counted("operations: ") > 500, "{said}");
    assert!(counted("resource: ") > 50, "{said}");
    assert!(counted("judged: ") > 3_000, "{said}");
}
