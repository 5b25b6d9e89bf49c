//! One suite of cases that every server must pass together with this client.
//!
//! By default the cases run against the embedded server: once for each release that differs in what they test, where
//! each case has a server of its own, and once against a build that differs from all of these releases. With
//! `DFLOCKD_TEST_SERVER=host:port` all cases run against that server instead. It needs `--max-locks 100000`, and if its
//! read timeout is not 23 s, `DFLOCKD_TEST_READ_TIMEOUT=seconds` says what it is. The suite first probes which features
//! the server has, over connections that no case uses. Cases that need a missing feature are ignored, and their names
//! say which feature it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod suite;
mod support;

use std::process::ExitCode;

use dflockd_client::server::Release;
use libtest_mimic::Arguments;
use suite::peer::{Abilities, PeerFactory};
use suite::trials::trials;

/// The oldest release, the last one with signals, and the newest.
const RELEASES: [Release; 3] = [Release::V1_10, Release::V1_16, Release::NEWEST];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let factory = PeerFactory::from_environment();
    let of = |factory: &PeerFactory, prefix: &str| {
        let abilities = runtime.block_on(Abilities::probe(factory));
        trials(&runtime, factory, &abilities, prefix)
    };
    let trials = match factory.is_external() {
        true => of(&factory, ""),
        false => {
            let releases = RELEASES.iter();
            let build = runtime.block_on(factory.of_a_build_with_named_fences());
            releases
                .flat_map(|release| of(&factory.imitating(*release), &format!("{release}::")))
                .chain(of(&build, "named_fences::"))
                .collect()
        }
    };
    // Cases mostly wait: more of them at once than there are cores.
    let arguments = Arguments {
        test_threads: arguments.test_threads.or(Some(16)),
        ..arguments
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}
