//! One suite of cases that every server must pass together with this client.
//!
//! By default, the cases run against embedded servers that imitate three releases, and each case has its own server.
//! The cases also run against an imitation of a build between two releases (see `tests/suite/build.rs`).
//!
//! With `DFLOCKD_TEST_SERVER=host:port`, all cases run against that server instead. That server must run with
//! `--max-locks 100000`. If its read timeout is not 23 s, set `DFLOCKD_TEST_READ_TIMEOUT=seconds`.
//!
//! The suite first probes the features of the server, over connections that no case uses. A case that needs a missing
//! feature is ignored, and the name of its test contains the feature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod suite;
mod support;

use std::process::ExitCode;

use dflockd_client::server::Release;
use libtest_mimic::Arguments;
use suite::peer::{Abilities, PeerFactory};
use suite::trials::trials;

/// The oldest release, the last release with signals, and the newest release.
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
    // Cases mostly wait, so more cases run at once than there are cores.
    let arguments = Arguments {
        test_threads: arguments.test_threads.or(Some(16)),
        ..arguments
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}
