//! The recorded figures, in `recorded.txt`.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::callgrind::Cost;

/// Figures, and the toolchain for which they hold.
pub(crate) struct Record {
    pub(crate) toolchain: String,
    pub(crate) costs: Vec<(String, Cost)>,
}

impl Record {
    pub(crate) fn cost(&self, name: &str) -> Option<Cost> {
        self.costs
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, cost)| *cost)
    }

    /// Reads the file. The first line is the toolchain. Each later line has the instructions, the allocations and the
    /// name of a program.
    pub(crate) fn read() -> Result<Self, Box<dyn Error>> {
        let text = fs::read_to_string(path()).unwrap_or_default();
        let mut lines = text.lines();
        let toolchain = lines.next().unwrap_or("none").to_owned();
        let costs = lines.map(|line| {
            let mut words = line.split_whitespace();
            let mut number = || words.next().unwrap_or_default().parse::<f64>();
            let cost = Cost {
                instructions: number()?,
                allocations: number()?,
            };
            Ok((words.collect::<Vec<_>>().join(" "), cost))
        });
        let costs = costs.collect::<Result<_, Box<dyn Error>>>()?;
        Ok(Self { toolchain, costs })
    }

    pub(crate) fn write(&self) -> Result<(), Box<dyn Error>> {
        let mut text = format!("{}\n", self.toolchain);
        for (name, cost) in &self.costs {
            writeln!(text, "{:>10.0} {:>8.2} {name}", cost.instructions, cost.allocations)?;
        }
        Ok(fs::write(path(), text)?)
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/recorded.txt")
}

/// Describes what the figures depend on besides the programs: the compiler, the architecture and the C library. The C
/// library matters because the instructions of its allocator count too.
pub(crate) fn toolchain() -> Result<String, Box<dyn Error>> {
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let told = |command: &mut Command| -> Result<String, Box<dyn Error>> {
        Ok(String::from_utf8_lossy(&command.output()?.stdout).trim().to_owned())
    };
    let compiler = told(Command::new(compiler).arg("--version"))?;
    let library = told(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    Ok(format!("{compiler}, {}, {library}", std::env::consts::ARCH))
}
