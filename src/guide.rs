#![doc = include_str!("../docs/guide/rustdoc-links.md")]
#![doc = include_str!("../docs/guide/src/introduction.md")]

// Compiled only for `cargo doc`, and for `cargo test`, which runs the examples. Programs that use this crate do not
// contain it.
//
// The target of each link between chapters is defined twice: for docs.rs, and for the book. rustdoc uses the first
// definition, which is the one for docs.rs. `tests/links.rs` writes and checks the definitions for docs.rs.

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/getting-started.md")]
pub mod getting_started {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/first-lock.md")]
pub mod first_lock {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/semaphores.md")]
pub mod semaphores {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/two-phase.md")]
pub mod two_phase {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/several-keys.md")]
pub mod several_keys {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/loss.md")]
pub mod loss {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/fencing.md")]
pub mod fencing {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/signals.md")]
pub mod signals {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/sharding.md")]
pub mod sharding {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/failover.md")]
pub mod failover {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/configuration.md")]
pub mod configuration {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/timeouts.md")]
pub mod timeouts {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/sizing.md")]
pub mod sizing {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/observability.md")]
pub mod observability {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/security.md")]
pub mod security {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/layers.md")]
pub mod layers {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/testing-your-code.md")]
pub mod testing_your_code {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/command.md")]
pub mod command {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/from-python.md")]
pub mod from_python {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/other-systems.md")]
pub mod other_systems {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/errors.md")]
pub mod errors {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/command-reference.md")]
pub mod command_reference {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/observability-reference.md")]
pub mod observability_reference {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/troubleshooting.md")]
pub mod troubleshooting {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/faq.md")]
pub mod faq {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/compatibility.md")]
pub mod compatibility {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/support.md")]
pub mod support {}

#[doc = include_str!("../docs/guide/rustdoc-links.md")]
#[doc = include_str!("../docs/guide/src/glossary.md")]
pub mod glossary {}
