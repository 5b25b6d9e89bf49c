//! `dflock man`: prints manual pages, or writes them into a folder.

use std::io::Write;

use crate::args::{Arguments, ManArguments};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::unwritten;

pub(super) fn man(of: &ManArguments) -> Result<Exit, Failure> {
    match &of.folder {
        Some(folder) => clap_mangen::generate_to(Arguments::description(), folder).map_err(|error| {
            let folder = folder.display();
            Failure::new(Exit::IO, format!("the pages cannot be written into {folder}: {error}"))
                .remedy("a folder that exists, in which files may be written")
        })?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::description())
                .render(&mut page)
                .and_then(|()| std::io::stdout().lock().write_all(&page))
                .map_err(unwritten)?;
        }
    }
    Ok(Exit::SUCCESS)
}
