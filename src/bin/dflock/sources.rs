//! The sources of settings: flags override the environment, which overrides a file.

use std::path::{Path, PathBuf};

use dflockd_client::{Client, ClientBuilder, ClientOptions, Error, LayeredOptions, SettingValue};

use crate::args::SourceFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::tell;

/// The effective settings.
pub(crate) struct Sources {
    pub(crate) layered: LayeredOptions,
    /// The settings of the flags alone.
    flags: LayeredOptions,
    /// The settings without the flags.
    others: LayeredOptions,
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
                "give it in the environment or in the settings file; auth_token may also stand alone in a file that \
                 auth_token_file names",
            ));
        }
        pairs.extend(flags.set.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let mut above = LayeredOptions::from_pairs(pairs)?;
        if let Some(url) = &flags.url {
            above = above.over(LayeredOptions::from_url(url)?);
        }
        let environment = LayeredOptions::from_env().map_err(|error| Failure::of_settings(&error))?;
        let (file, below) = match file(flags)? {
            Some(path) => {
                let below = read(&path)?;
                (Some(path), below)
            }
            None => (None, LayeredOptions::from_pairs::<&str, &str>([])?),
        };
        let defaults = LayeredOptions::from_pairs(defaults.iter().copied())?;
        let others = environment.over(below).over(defaults);
        let sources = Self {
            layered: above.clone().over(others.clone()),
            flags: above,
            others,
            file,
        };
        sources.options()?;
        Ok(sources)
    }

    /// Adds settings that override all others.
    pub(crate) fn below(self, above: LayeredOptions) -> Self {
        Self {
            layered: above.over(self.layered),
            ..self
        }
    }

    /// Returns the options from all sources, unchecked.
    pub(crate) fn options(&self) -> Result<ClientOptions, Failure> {
        self.layered.read().map_err(|error| self.refused(&error))
    }

    /// Returns the options from all sources, checked as clients check them.
    pub(crate) fn checked(&self) -> Result<ClientOptions, Failure> {
        let options = self.options()?;
        options.validate().map_err(|error| self.refused(&error))?;
        Ok(options)
    }

    /// Returns all settings, and where each comes from.
    pub(crate) fn values(&self) -> Result<Vec<SettingValue>, Failure> {
        self.layered.values().map_err(|error| self.refused(&error))
    }

    /// Returns a client, which connects in the background.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let client = ClientBuilder::from(self.options()?).build();
        client.map_err(|error| self.refused(&error))
    }

    /// Returns a builder for clients with checked options.
    pub(crate) fn builder(&self) -> Result<ClientBuilder, Failure> {
        self.checked().map(ClientBuilder::from)
    }

    /// Returns the failure for settings that are refused: a usage error if the flags are to blame, and a settings error
    /// otherwise. The flags are to blame if they are refused by themselves with the same error, or if all is right
    /// without them.
    fn refused(&self, error: &Error) -> Failure {
        let check = |options: &LayeredOptions| options.read().and_then(|options| options.validate());
        let is_same = check(&self.flags).is_err_and(|own| own.to_string() == error.to_string());
        match is_same || check(&self.others).is_ok() {
            true => Failure::from(error.clone()),
            false => Failure::of_settings(error),
        }
    }
}

/// Returns the names of the environment variables for clients and servers. They are meant for this client and for other
/// servers, and not for a server that this process starts.
#[cfg(feature = "server")]
pub(crate) fn variables() -> impl Iterator<Item = std::ffi::OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("DFLOCKD_"))
}

/// Warns of environment variables that nothing reads and whose names are near to known ones. The others are no
/// mistakes: images of containers set `DFLOCKD_VERSION`, for example.
pub(crate) fn warn_of_ignored_variables() {
    for ignored in ClientOptions::ignored_vars(std::env::vars_os()) {
        if !ignored.nearest.is_empty() {
            tell::warn(&ignored.to_string());
        }
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
