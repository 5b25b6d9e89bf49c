//! One suite of what every server and this client must do together.
//!
//! Each case runs against an embedded server of its own, once for each release that differs in what they test, and against a build
//! that differs from all of these; or all run against the server that `DFLOCKD_TEST_SERVER=host:port` names (give it room: `--max-locks 100000`; if its read timeout is not 23 s, say so with
//! `DFLOCKD_TEST_READ_TIMEOUT=seconds`). What that server lacks is probed on connections of their own, and cases that
//! need it are reported as ignored, by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod suite;
mod support;

use std::process::ExitCode;

use dflockd_client::server::Release;
use libtest_mimic::Arguments;
use suite::peer::{Abilities, PeerFactory};
use suite::trials::trials;

/// The oldest; the last with signals; the newest.
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
                .flat_map(|release| of(&factory.playing(*release), &format!("{release}::")))
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
