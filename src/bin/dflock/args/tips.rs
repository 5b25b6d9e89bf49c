//! Tips for flags and subcommands that do not exist: the names that this program has for them.

use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use dflockd_client::LayeredOptions;

use super::Arguments;

/// Names of flags in other programs, and the flag of this program. The tip names the first flag that the subcommand
/// has.
const FLAGS: [(&[&str], &str); 13] = [
    (
        &[
            "wait",
            "max-wait",
            "wait-timeout",
            "acquire-timeout",
            "lock-timeout",
            "w",
        ],
        "timeout",
    ),
    (&["nonblock", "non-blocking", "nb", "no-wait", "n"], "try"),
    (&["lease", "lease-ttl", "lease-time", "lease-duration"], "ttl"),
    (&["slots", "permits", "max", "concurrency"], "limit"),
    (&["key", "lock"], "keys"),
    (
        &["server", "host", "addr", "address", "endpoint", "endpoints", "nodes"],
        "servers",
    ),
    (&["grace-period", "kill-after"], "grace"),
    (&["follow", "interval", "every", "refresh", "f"], "watch"),
    (&["watch", "every", "refresh"], "interval"),
    (&["pattern", "glob", "match"], "filter"),
    (&["order", "order-by", "sort-by"], "sort"),
    (&["format", "output", "o"], "json"),
    (&["config-file", "settings", "c"], "config"),
];

/// Names of flags for the auth token. The subcommands that use the settings have none, because other users of the
/// machine can see the arguments of a process.
const FLAGS_FOR_AUTH_TOKEN: [&str; 5] = ["auth-token", "auth", "token", "secret", "password"];

/// Names of flags in other programs, and the flag of `dflock serve`. For `dflock serve` they are looked up before those
/// of [`FLAGS`].
const FLAGS_OF_SERVE: [(&[&str], &str); 3] = [
    (&["addr", "address", "bind", "listen"], "host"),
    (
        &["lease", "lease-ttl", "lease-time", "lease-duration", "ttl"],
        "default-lease-ttl",
    ),
    (&["auth", "token", "secret", "password"], "auth-token-file"),
];

/// Subcommands to which the settings and the flags for them do not apply.
const WITHOUT_SETTINGS: [&str; 4] = ["serve", "man", "completions", "failover"];

/// Names of subcommands in other programs, and the subcommand of this program.
const SUBCOMMANDS: [(&[&str], &str); 10] = [
    (&["exec", "with", "start"], "run"),
    (&["acquire", "hold"], "lock"),
    (&["lead", "leader", "campaign"], "elect"),
    (&["subscribe", "sub"], "listen"),
    (&["publish", "pub", "signal", "send"], "emit"),
    (&["status", "list", "ls", "show", "info"], "stats"),
    (&["monitor"], "top"),
    (&["check", "health", "diagnose"], "doctor"),
    (&["server"], "serve"),
    (&["env", "settings"], "config"),
];

/// Adds to a refusal the flag or the subcommand that the user may have meant. It replaces the parser's own guess.
pub(crate) fn advise(refused: &mut clap::Error) {
    let whole = Arguments::description();
    match refused.kind() {
        ErrorKind::UnknownArgument => {
            let Some(ContextValue::String(flag)) = refused.get(ContextKind::InvalidArg) else {
                return;
            };
            let chosen = chosen(&whole, std::env::args_os().skip(1));
            let tip = tip(&whole, &chosen, flag.split('=').next().unwrap_or_default());
            if let Some(tip) = tip {
                refused.remove(ContextKind::SuggestedArg);
                refused.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
        }
        ErrorKind::InvalidSubcommand => {
            let Some(ContextValue::String(name)) = refused.get(ContextKind::InvalidSubcommand) else {
                return;
            };
            let known = SUBCOMMANDS
                .iter()
                .find(|(names, ours)| names.contains(&name.as_str()) && whole.find_subcommand(ours).is_some());
            if let Some((_, ours)) = known {
                refused.insert(
                    ContextKind::SuggestedSubcommand,
                    ContextValue::Strings(vec![(*ours).to_owned()]),
                );
            }
        }
        _ => {}
    }
}

/// Returns the subcommands that the arguments choose, from the outermost to the innermost.
fn chosen(whole: &Command, arguments: impl Iterator<Item = OsString>) -> Vec<Command> {
    let mut chosen: Vec<Command> = Vec::new();
    let mut is_value = false;
    for argument in arguments {
        let Some(argument) = argument.to_str() else {
            return chosen;
        };
        if std::mem::take(&mut is_value) {
            continue;
        }
        if let Some(flag) = argument.strip_prefix("--") {
            is_value = has_flag(whole, flag);
            continue;
        }
        match chosen.last().unwrap_or(whole).find_subcommand(argument) {
            Some(command) => chosen.push(command.clone()),
            None => return chosen,
        }
    }
    chosen
}

fn has_flag(command: &Command, flag: &str) -> bool {
    command.get_arguments().any(|known| known.get_long() == Some(flag))
}

/// Returns the tip for an unknown flag; `None` if there is no better one than the parser's guess.
fn tip(whole: &Command, chosen: &[Command], flag: &str) -> Option<String> {
    let flag = flag.trim_start_matches('-');
    let here = chosen.last().unwrap_or(whole);
    let name = here.get_name();
    let has_settings = !WITHOUT_SETTINGS.contains(&name);
    let has = |ours: &str| has_flag(here, ours) || (has_settings && has_flag(whole, ours));
    if matches!(name, "run" | "elect") && matches!(flag, "c" | "command") {
        return Some("write the command after '--', such as -- sh -c 'COMMAND'".to_owned());
    }
    let own = FLAGS_OF_SERVE.iter().filter(|_| name == "serve");
    let mut meant = own.chain(&FLAGS).filter(|(names, _)| names.contains(&flag));
    if let Some((_, ours)) = meant.clone().find(|(_, ours)| has(ours)) {
        return Some(format!("here this flag is called '--{ours}'"));
    }
    let setting = flag.replace('-', "_");
    if has_settings && setting == "stable_ref" {
        return Some("it is a secret: DFLOCKD_CLIENT_STABLE_REF, or stable_ref in the settings file".to_owned());
    }
    if has_settings && FLAGS_FOR_AUTH_TOKEN.contains(&flag.replace('_', "-").as_str()) {
        return Some(
            "the auth token is given in a file: DFLOCKD_AUTH_TOKEN_FILE=/path, or auth_token_file in the settings"
                .to_owned(),
        );
    }
    if has_settings && is_setting(&setting) {
        return Some(format!("'{setting}' is a setting: '--set {setting}=VALUE'"));
    }
    let flag = meant.next().map_or(flag, |(_, ours)| ours);
    if has_settings && flag == "timeout" {
        return Some(match name {
            "elect" => "candidates wait as long as it takes, so 'dflock elect' has no timeout".to_owned(),
            _ => "'--set request_timeout=D' is how long a request may take".to_owned(),
        });
    }
    let elsewhere: Vec<String> = whole
        .get_subcommands()
        .filter(|command| has_flag(command, flag))
        .map(|command| format!("'dflock {}'", command.get_name()))
        .collect();
    match elsewhere.is_empty() {
        true => None,
        false => Some(format!("'--{flag}' is a flag of {}", elsewhere.join(", "))),
    }
}

fn is_setting(name: &str) -> bool {
    let nothing = LayeredOptions::from_pairs::<&str, &str>([]);
    let all = nothing.and_then(|nothing| nothing.values()).unwrap_or_default();
    all.iter().any(|setting| setting.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str], flag: &str) -> Option<String> {
        let whole = Arguments::description();
        let chosen = chosen(&whole, arguments.iter().map(OsString::from));
        tip(&whole, &chosen, flag)
    }

    #[test]
    fn flags_of_other_programs_have_tips() {
        for (arguments, flag, part) in [
            (&["run", "key"][..], "--wait", "'--timeout'"),
            (&["--servers", "stats", "run", "key"], "--wait", "'--timeout'"),
            (&["lock"], "-n", "'--try'"),
            (&["run"], "--lease-ttl", "'--ttl'"),
            (&["stats"], "--lease-ttl", "--set lease_ttl=VALUE"),
            (&["stats"], "--follow", "'--watch'"),
            (&["top"], "--watch", "'--interval'"),
            (&["emit"], "--server", "'--servers'"),
            (&["emit"], "--timeout", "request_timeout"),
            (&["elect", "name"], "--wait", "as long as it takes"),
            (&["elect", "name"], "--try", "a flag of 'dflock run', 'dflock lock'"),
            (&["bench", "pairs"], "--keepalive", "--set keepalive=VALUE"),
            (&["run"], "--token", "DFLOCKD_AUTH_TOKEN_FILE"),
            (&["run"], "--auth_token", "DFLOCKD_AUTH_TOKEN_FILE"),
            (&["run"], "--stable-ref", "DFLOCKD_CLIENT_STABLE_REF"),
            (&["lock"], "--stable_ref", "DFLOCKD_CLIENT_STABLE_REF"),
            (&["run", "key"], "-c", "after '--'"),
            (&["elect", "name"], "-c", "after '--'"),
            (&["stats"], "-c", "'--config'"),
            (&["stats"], "--addr", "'--servers'"),
        ] {
            let tip = of(arguments, flag).unwrap_or_else(|| panic!("none for {arguments:?} {flag}"));
            assert!(tip.contains(part), "{arguments:?} {flag}: {tip}");
        }
        assert_eq!(of(&["run"], "--colour"), None);
        // The tip for a secret other than the auth token names only that secret.
        assert!(!of(&["run"], "--stable-ref").unwrap().contains("AUTH_TOKEN"));
    }

    #[test]
    fn tips_for_subcommands_without_settings_name_no_settings() {
        for arguments in [
            &["man"][..],
            &["completions"],
            #[cfg(feature = "server")]
            &["bench", "failover"],
        ] {
            for flag in ["--addr", "--server", "-c", "--keepalive", "--token", "--stable-ref"] {
                assert_eq!(of(arguments, flag), None, "{arguments:?} {flag}");
            }
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn tips_for_the_server_name_its_own_flags() {
        for (flag, ours) in [
            ("--addr", "'--host'"),
            ("--address", "'--host'"),
            ("--lease-ttl", "'--default-lease-ttl'"),
            ("--token", "'--auth-token-file'"),
        ] {
            let tip = of(&["serve"], flag).unwrap_or_else(|| panic!("none for {flag}"));
            assert!(tip.contains(ours), "{flag}: {tip}");
        }
        for flag in ["--server", "-c", "--keepalive", "--stable-ref"] {
            assert_eq!(of(&["serve"], flag), None, "{flag}");
        }
        let tip = of(&["serve"], "--timeout").unwrap();
        assert!(tip.contains("a flag of 'dflock run'"), "{tip}");
        let serve = Arguments::description().find_subcommand("serve").cloned().unwrap();
        for (_, ours) in FLAGS_OF_SERVE {
            assert!(has_flag(&serve, ours), "{ours}");
        }
    }

    #[test]
    fn tips_name_flags_and_subcommands_that_exist() {
        let whole = Arguments::description();
        let commands = || std::iter::once(&whole).chain(whole.get_subcommands());
        for (_, ours) in FLAGS {
            assert!(commands().any(|command| has_flag(command, ours)), "{ours}");
        }
        for (names, ours) in SUBCOMMANDS {
            let is_absent = ours == "serve" && !cfg!(feature = "server");
            assert!(is_absent || whole.find_subcommand(ours).is_some(), "{ours}");
            assert!(names.iter().all(|name| whole.find_subcommand(name).is_none()), "{ours}");
        }
    }
}
