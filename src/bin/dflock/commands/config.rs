//! `dflock config`: shows all settings and their sources.

use std::path::PathBuf;

use dflockd_client::{SettingSource, SettingValue};
use serde::Serialize;

use crate::args::{ConfigArguments, SourceFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::sources::Sources;

/// The output of `--json`.
#[derive(Serialize)]
struct Settings<'a> {
    file: Option<&'a PathBuf>,
    settings: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    value: Option<String>,
    source: &'static str,
    #[serde(rename = "where")]
    place: Option<String>,
}

pub(super) fn config(flags: &SourceFlags, of: &ConfigArguments) -> Result<Exit, Failure> {
    let sources = Sources::read(flags, &[], &[])?;
    let values = sources.values()?;
    let rows: Vec<Row> = values
        .into_iter()
        .map(|setting| row(setting, flags, sources.file.as_ref()))
        .collect();
    if of.json {
        output::json(&Settings {
            file: sources.file.as_ref(),
            settings: rows,
        })?;
        return Ok(Exit::SUCCESS);
    }
    let mut table = Table::new(["SETTING", "VALUE", "FROM"]);
    for row in rows {
        let place = row.place.unwrap_or_else(|| row.source.to_owned());
        table.row([row.name, row.value.unwrap_or_else(|| "-".to_owned()), place]);
    }
    table.print()?;
    Ok(Exit::SUCCESS)
}

fn row(setting: SettingValue, flags: &SourceFlags, file: Option<&PathBuf>) -> Row {
    let (source, place) = match setting.source {
        SettingSource::Url if flags.url.is_some() => ("flag", Some("--url".to_owned())),
        SettingSource::Url => ("environment", Some("DFLOCKD_URL".to_owned())),
        SettingSource::Environment => ("environment", Some(setting.variable)),
        SettingSource::Data => ("file", file.map(|path| path.display().to_string())),
        SettingSource::Pairs if setting.name == "servers" && flags.servers.is_some() => {
            ("flag", Some("--servers".to_owned()))
        }
        SettingSource::Pairs => ("flag", Some("--set".to_owned())),
        _ => ("default", None),
    };
    Row {
        name: setting.name,
        value: setting.value,
        source,
        place,
    }
}
