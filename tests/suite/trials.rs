//! The cases, as tests of one server.

use libtest_mimic::Trial;
use tokio::runtime::Runtime;

use super::cases;
use super::peer::{Abilities, Ability, PeerFactory};

/// One test per case. Cases that need what the server lacks are ignored, and say so in their names.
pub fn trials(runtime: &Runtime, factory: &PeerFactory, abilities: &Abilities, prefix: &str) -> Vec<Trial> {
    cases::all()
        .into_iter()
        .map(|case| {
            let needs = case.needs.iter().copied();
            let missing: Option<Ability> = needs.into_iter().find(|need| !abilities.has(*need));
            let name = match missing {
                Some(ability) => format!("{prefix}{} (the server has no {ability})", case.name),
                None => format!("{prefix}{}", case.name),
            };
            let handle = runtime.handle().clone();
            let factory = factory.clone();
            Trial::test(name, move || {
                handle.block_on(async move {
                    let peer = factory.make().await;
                    (case.run)(peer).await;
                });
                Ok(())
            })
            .with_ignored_flag(missing.is_some())
        })
        .collect()
}
