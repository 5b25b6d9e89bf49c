//! Makes a test of each case for one server.

use libtest_mimic::Trial;
use tokio::runtime::Runtime;

use super::api::Api;
use super::cases;
use super::peer::{Abilities, Ability, PeerFactory};

/// Returns one test for each case and client. If the server or the client lacks a feature that the case needs, the test
/// is ignored, and its name contains the feature.
pub fn trials(runtime: &Runtime, factory: &PeerFactory, abilities: &Abilities, prefix: &str) -> Vec<Trial> {
    let apis = [Api::Async, Api::Blocking].into_iter();
    apis.flat_map(|api| cases::all().into_iter().map(move |case| (api, case)))
        .map(|(api, case)| {
            let needs = case.needs.iter().copied();
            let missing: Option<Ability> = needs.into_iter().find(|need| !abilities.has(*need, api));
            let name = match missing {
                Some(Ability::DroppedCalls) => format!("{prefix}{api}::{} (no {})", case.name, Ability::DroppedCalls),
                Some(ability) => format!("{prefix}{api}::{} (the server has no {ability})", case.name),
                None => format!("{prefix}{api}::{}", case.name),
            };
            let handle = runtime.handle().clone();
            let factory = factory.clone();
            Trial::test(name, move || {
                handle.block_on(async move {
                    let peer = factory.make(api).await;
                    (case.run)(peer).await;
                });
                Ok(())
            })
            .with_ignored_flag(missing.is_some())
        })
        .collect()
}
