//! The sources of settings: flags override the environment, which overrides a file.

use std::path::{Path, PathBuf};

use dflockd_client::{Client, ClientBuilder, ClientOptions, LayeredOptions};

use crate::args::SourceFlags;
use crate::exit::Exit;
use crate::failure::Failure;

/// The effective settings.
pub(crate) struct Sources {
    pub(crate) layered: LayeredOptions,
    /// The file that was read, if there was one.
    pub(crate) file: Option<PathBuf>,
}

impl Sources {
    /// Reads all sources. `own` are the settings from the subcommand's flags; `defaults` are its defaults, which every
    /// other source overrides.
    pub(crate) fn read(
        flags: &SourceFlags,
        own: &[(&str, String)],
        defaults: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let mut pairs: Vec<(&str, String)> = own.to_vec();
        if let Some(servers) = &flags.servers {
            pairs.push(("servers", servers.clone()));
        }
        if let Some((secret, _)) = flags.set.iter().find(|(name, _)| is_secret(name)) {
            return Err(Failure::new(
                Exit::USAGE,
                format!("--set takes no {secret}: other users of this machine see the arguments of processes"),
            )
            .remedy(
                "the environment or the settings file, or a file with the secret alone, named by auth_token_file",
            ));
        }
        pairs.extend(flags.set.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let mut above = LayeredOptions::from_pairs(pairs)?;
        if let Some(url) = &flags.url {
            above = above.over(LayeredOptions::from_url(url)?);
        }
        // An invalid flag is a usage error; an invalid value of another source is a settings error.
        above.read()?;
        let environment = LayeredOptions::from_env().map_err(|error| Failure::of_settings(&error))?;
        let (file, below) = match file(flags)? {
            Some(path) => {
                let below = read(&path)?;
                (Some(path), below)
            }
            None => (None, LayeredOptions::from_pairs::<&str, &str>([])?),
        };
        let defaults = LayeredOptions::from_pairs(defaults.iter().copied())?;
        Ok(Self {
            layered: above.over(environment).over(below).over(defaults),
            file,
        })
    }

    /// What all of them together ask for, unchecked.
    pub(crate) fn options(&self) -> Result<ClientOptions, Failure> {
        self.layered.read().map_err(|error| Failure::of_settings(&error))
    }

    /// Returns a client, which connects in the background.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let client = self.builder()?.build();
        client.map_err(|error| Failure::of_settings(&error))
    }

    /// What clients are made with.
    pub(crate) fn builder(&self) -> Result<ClientBuilder, Failure> {
        self.options().map(ClientBuilder::from)
    }
}

/// Returns whether a setting is a secret, of all shards or of one.
fn is_secret(name: &str) -> bool {
    ["auth_token", "stable_ref"].contains(&name.split('.').next().unwrap_or_default())
}

/// Returns the settings file: the named one, or the first default one that exists.
fn file(flags: &SourceFlags) -> Result<Option<PathBuf>, Failure> {
    if let Some(path) = &flags.config {
        return Ok(Some(path.clone()));
    }
    let folder = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let of_user = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
    let of_user = of_user.map(|folder| folder.join("dflock.toml"));
    let candidates = of_user.into_iter().chain([PathBuf::from("/etc/dflock.toml")]);
    for path in candidates {
        match path.try_exists() {
            Ok(true) => return Ok(Some(path)),
            Ok(false) => {}
            // A folder that this user may not read does not count.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(unreadable(&path, &error.to_string())),
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<LayeredOptions, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error.to_string()))?;
    toml::from_str(&text).map_err(|error| {
        // The parser's own message shows the line, which may contain a secret.
        let line = error
            .span()
            .map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        let place = line.map_or_else(String::new, |line| format!(", line {line}"));
        unreadable(path, &format!("{}{place}", error.message()))
    })
}

fn unreadable(path: &Path, problem: &str) -> Failure {
    Failure::new(
        Exit::SETTINGS,
        format!("the settings file {} cannot be used: {problem}", path.display()),
    )
    .remedy("see docs/guide/src/configuration.md for what may stand in it, or name another with --config")
}
