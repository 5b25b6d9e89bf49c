//! The settings of one source, as texts. Error messages name the source.

use std::borrow::Cow;

use super::ClientOptions;
use super::nearest::nearest;
use super::settings::{AUTH, Draft, TABLE, find, full_name};
use super::value::Text;
use crate::error::{Error, ErrorKind, Result};
use crate::escape::Shortened;
use crate::shards::Datum;

/// The source of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Url,
    Environment,
    /// The URL in this variable.
    Variable(&'static str),
    Data,
    Pairs,
}

/// The settings of one source, or of several that [`over`](Self::over) has joined, each given once.
#[derive(Clone)]
pub(super) struct SourceSettings {
    source: Source,
    items: Vec<Item>,
}

#[derive(Clone)]
struct Item {
    /// The index of the setting in the table.
    setting: usize,
    /// The shard, if it is the setting of one shard.
    shard: Option<usize>,
    text: Text,
    source: Source,
}

/// Settings whose variables have no prefix of the client, because servers read them, too, or because they name the
/// servers. All other variables have the client's prefix, because servers read variables such as `DFLOCKD_MAX_WAITERS`
/// with another meaning.
const SHARED_VARIABLES: [&str; 3] = ["servers", "auth_token", "auth_token_file"];

/// The prefix of the variables of clients and servers.
pub(super) const VARIABLES: &str = "DFLOCKD_";

/// The prefix of the client's own variables.
pub(super) const OWN_VARIABLES: &str = "DFLOCKD_CLIENT_";

impl Source {
    /// Returns the name of a setting in this source.
    pub(super) fn spell(self, name: &str) -> String {
        match self {
            Self::Url | Self::Variable(_) | Self::Data | Self::Pairs => name.to_owned(),
            Self::Environment if SHARED_VARIABLES.contains(&name) => format!("DFLOCKD_{}", name.to_ascii_uppercase()),
            Self::Environment => format!("{OWN_VARIABLES}{}", name.to_ascii_uppercase()),
        }
    }

    fn noun(self) -> Cow<'static, str> {
        match self {
            Self::Url => "URL parameter".into(),
            Self::Environment => "environment variable".into(),
            Self::Variable(name) => format!("environment variable {name}: URL parameter").into(),
            Self::Data | Self::Pairs => "setting".into(),
        }
    }

    /// Returns a description of a setting and its source. In a URL, the servers and the secret are not parameters.
    fn called(self, name: &str) -> String {
        let place = match self {
            Self::Url => "",
            Self::Variable(variable) => &format!("environment variable {variable}: "),
            Self::Environment | Self::Data | Self::Pairs => return format!("{} {}", self.noun(), self.spell(name)),
        };
        match name {
            "servers" => format!("{place}servers of the URL"),
            "auth_token" => format!("{place}the auth token of the URL"),
            _ => format!("{} {}", self.noun(), self.spell(name)),
        }
    }

    fn is_url(self) -> bool {
        matches!(self, Self::Url | Self::Variable(_))
    }

    /// Returns whether a setting may be given by name in this source. In a URL, the servers and the secret are not
    /// parameters.
    fn is_named(self, setting: usize) -> bool {
        !self.is_url() || !["servers", "auth_token"].contains(&TABLE[setting].name())
    }

    /// Returns the index of the setting with this name in the table, and its shard.
    pub(super) fn find(self, name: &str) -> Option<(usize, Option<usize>)> {
        let named = |name: &str| (0..TABLE.len()).find(|setting| self.spell(TABLE[*setting].name()) == name);
        if let Some(setting) = named(name) {
            return self.is_named(setting).then_some((setting, None));
        }
        let numbers_shards = self.is_url() || self == Self::Pairs;
        let (name, shard) = name.rsplit_once('.').filter(|_| numbers_shards)?;
        let setting = named(name).filter(|setting| TABLE[*setting].is_of_shards())?;
        let is_plain = shard == "0" || !shard.starts_with(['0', '+']);
        Some((setting, Some(shard.parse().ok().filter(|_| is_plain)?)))
    }

    /// Returns the error for an unknown name. The message suggests similar names.
    pub(super) fn unknown(self, name: &str) -> Error {
        let near: Vec<String> = nearest(&self.bare(name), self.named().map(|setting| TABLE[setting].name()))
            .into_iter()
            .map(|name| self.spell(name))
            .collect();
        let remedy = match near.as_slice() {
            [] => "docs/guide/src/configuration.md lists all settings".to_owned(),
            [one] => format!("the nearest is {one}"),
            several => format!("the nearest are {}", several.join(", ")),
        };
        Error::invalid(
            &self.noun(),
            Shortened(name),
            &format!("there is no such setting; {remedy}"),
        )
    }

    /// Returns the settings that have a name in this source.
    fn named(self) -> impl Iterator<Item = usize> {
        (0..TABLE.len()).filter(move |setting| self.is_named(*setting))
    }

    /// Returns a name of this source in the form of the table: without the prefix of variables, and without the number
    /// of a shard.
    fn bare(self, name: &str) -> String {
        match self {
            Self::Environment => bare_variable(name),
            Self::Url | Self::Variable(_) | Self::Data | Self::Pairs => {
                name.split('.').next().unwrap_or_default().to_owned()
            }
        }
    }
}

/// Returns the name of a variable without its prefix, in the form of the table.
pub(super) fn bare_variable(name: &str) -> String {
    let rest = name
        .strip_prefix(OWN_VARIABLES)
        .or_else(|| name.strip_prefix(VARIABLES));
    rest.unwrap_or(name).to_ascii_lowercase()
}

impl SourceSettings {
    pub(super) fn nothing(source: Source) -> Self {
        Self {
            source,
            items: Vec::new(),
        }
    }

    /// Adds a setting by its name in the table.
    pub(super) fn add(&mut self, name: &str, text: Text) -> Result<()> {
        match find(name) {
            Some(setting) => self.add_found(setting, None, text),
            None => Err(self.source.unknown(name)),
        }
    }

    /// Adds a setting by its name in this source.
    pub(super) fn add_named(&mut self, name: &str, text: Text) -> Result<()> {
        match self.source.find(name) {
            Some((setting, shard)) => self.add_found(setting, shard, text),
            None => Err(self.source.unknown(name)),
        }
    }

    /// Adds a value of deserialized data.
    pub(super) fn add_datum(&mut self, name: &str, value: Datum) -> Result<()> {
        let Some((setting, shard)) = self.source.find(name) else {
            return Err(self.source.unknown(name));
        };
        let found = TABLE[setting];
        let text = value.text_of(found.kind()).map_err(|problem| {
            let what = self.source.called(name);
            let message = format!("{what} is not acceptable: {problem}: write {}", found.form());
            Error::new(ErrorKind::InvalidInput, message)
        })?;
        match text {
            Some(text) => self.add_found(setting, shard, text),
            None => Ok(()),
        }
    }

    /// Adds the shards of a source, with their own settings.
    pub(super) fn add_shards(&mut self, shards: &ClientOptions) -> Result<()> {
        for (setting, row) in TABLE.iter().enumerate() {
            let is_meant = row.name() == "servers" || row.is_of_shards();
            for (shard, text) in row.write(shards).into_iter().filter(|_| is_meant) {
                self.add_found(setting, shard, text)?;
            }
        }
        Ok(())
    }

    /// Returns the source of a setting. For a setting of shards, this is the source of the value for all shards. If
    /// there is no such value, it is the source of the value for the first shard that has one.
    pub(super) fn source_of(&self, name: &str) -> Option<Source> {
        let setting = find(name)?;
        let said = self.items.iter().filter(|item| item.setting == setting);
        said.min_by_key(|item| item.shard).map(|item| item.source)
    }

    fn add_found(&mut self, setting: usize, shard: Option<usize>, text: Text) -> Result<()> {
        for item in &self.items {
            let is_again = item.setting == setting && (item.shard == shard || item.shard.is_none() || shard.is_none());
            let is_other_way = is_secret_of_servers(item.setting) && is_secret_of_servers(setting);
            let (this, before) = (self.spelled(setting, shard), self.spelled(item.setting, item.shard));
            if is_again && this == before {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("{} {this} is given twice: give it once", self.source.noun()),
                ));
            }
            if is_again || is_other_way {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("{before} and {this} are both given: give one of them"),
                ));
            }
        }
        self.items.push(Item {
            setting,
            shard,
            text,
            source: self.source,
        });
        Ok(())
    }

    /// Marks this as the URL of a variable.
    pub(super) fn of_variable(mut self, name: &'static str) -> Self {
        self.source = Source::Variable(name);
        self.items
            .iter_mut()
            .for_each(|item| item.source = Source::Variable(name));
        self
    }

    /// Returns whether this source contains the setting.
    pub(super) fn has(&self, name: &str) -> bool {
        find(name).is_some_and(|setting| self.items.iter().any(|item| item.setting == setting))
    }

    /// Adds the settings of a lower source that this source does not contain. If this source names the servers, the
    /// settings of shards in the lower source are ignored, because they belong to other shards.
    pub(super) fn over(mut self, lower: Self) -> Self {
        let names_servers = self.has("servers");
        let is_kept = |item: &Item| {
            let is_of_other_shards = names_servers && TABLE[item.setting].is_of_shards();
            let is_said_above = self.items.iter().any(|above| {
                let is_other_way = is_secret_of_servers(above.setting) && is_secret_of_servers(item.setting);
                above.setting == item.setting || is_other_way
            });
            !is_of_other_shards && !is_said_above
        };
        let kept: Vec<Item> = lower.items.into_iter().filter(is_kept).collect();
        self.items.extend(kept);
        self
    }

    /// Parses all settings and applies them to `start`.
    ///
    /// # Errors
    ///
    /// `InvalidInput`. The message names the setting and its source, and says which values are valid.
    pub(super) fn into_options(mut self, start: ClientOptions) -> Result<ClientOptions> {
        self.items.sort_by_key(|item| (item.setting, item.shard));
        let mut draft = Draft::starting_with(start);
        for item in &self.items {
            let setting = TABLE[item.setting];
            let read = setting.apply(&mut draft, item.shard, &item.text);
            read.map_err(|remedy| refused(item, &remedy))?;
        }
        draft.finish(|name| {
            let setting = find(name);
            let item = self.items.iter().find(|item| Some(item.setting) == setting);
            item.map_or(self.source, |item| item.source).called(name)
        })
    }

    fn spelled(&self, setting: usize, shard: Option<usize>) -> String {
        self.source.spell(&full_name(TABLE[setting], shard))
    }
}

fn is_secret_of_servers(setting: usize) -> bool {
    AUTH.contains(&TABLE[setting].name())
}

/// Returns the error for a text that cannot be parsed. It shows the text unless the text is a secret.
fn refused(item: &Item, remedy: &str) -> Error {
    let setting = TABLE[item.setting];
    let what = item.source.called(&full_name(setting, item.shard));
    match setting.is_secret() {
        true => Error::new(ErrorKind::InvalidInput, format!("{what} is not acceptable: {remedy}")),
        // The remedy shows the invalid part of a list. The rest may contain a secret, so it is not shown.
        false if ["servers", "previous_servers"].contains(&setting.name()) => {
            Error::new(ErrorKind::InvalidInput, format!("{what}: {remedy}"))
        }
        false => Error::invalid(&what, Shortened(&item.text), remedy),
    }
}
