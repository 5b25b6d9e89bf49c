//! The sides: their names and their programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;

use crate::child::Child;
use crate::guard::guarded;
use crate::places;
use crate::service::System;

/// The time limit for installing or building one program.
const PATIENCE: Duration = Duration::from_secs(300);

/// A client or system that the comparison measures.
pub(crate) struct Side {
    /// The name of the side in `--sides`.
    pub(crate) name: &'static str,
    /// The name of the side in the tables.
    pub(crate) label: &'static str,
    pub(crate) system: System,
    /// Installs or builds the side's program. The error says why this failed.
    prepare: fn(&Packages) -> Result<Program, String>,
}

/// Packages that are used only if the command line names them.
#[derive(Args)]
pub(crate) struct Packages {
    /// The npm package of the TypeScript client, with its version. Without this option, the side `typescript` is left
    /// out. npm runs no script of the package.
    #[arg(long, value_name = "NAME@VERSION", value_parser = with_version)]
    typescript: Option<String>,
}

/// The program of a side.
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    /// Whether the program is this benchmark itself, which ends when its standard input ends. Other programs need a
    /// guard.
    is_own: bool,
}

pub(crate) const SIDES: [Side; 9] = [
    Side {
        name: "tasks",
        label: "this client, tasks",
        system: System::Dflockd,
        prepare: |_| own("tasks"),
    },
    Side {
        name: "threads",
        label: "this client, threads",
        system: System::Dflockd,
        prepare: |_| own("threads"),
    },
    Side {
        name: "python-2-tasks",
        label: "Python 2.1.1, tasks",
        system: System::Dflockd,
        prepare: |_| python("client-2", "tasks"),
    },
    Side {
        name: "python-2-threads",
        label: "Python 2.1.1, threads",
        system: System::Dflockd,
        prepare: |_| python("client-2", "threads"),
    },
    Side {
        name: "python-1-tasks",
        label: "Python 1.9.0, tasks",
        system: System::Dflockd,
        prepare: |_| python("client-1", "tasks"),
    },
    Side {
        name: "python-1-threads",
        label: "Python 1.9.0, threads",
        system: System::Dflockd,
        prepare: |_| python("client-1", "threads"),
    },
    Side {
        name: "typescript",
        label: "TypeScript (promises)",
        system: System::Dflockd,
        prepare: typescript,
    },
    Side {
        name: "redis",
        label: "Redis: redis-py's lock, tasks",
        system: System::Redis,
        prepare: |_| redis(),
    },
    Side {
        name: "etcd",
        label: "etcd: Go client's mutex, goroutines",
        system: System::Etcd,
        prepare: |_| etcd(),
    },
];

impl Side {
    pub(crate) fn prepare(&self, packages: &Packages) -> Result<Program, String> {
        (self.prepare)(packages)
    }
}

impl Program {
    /// Starts the program with its own arguments, followed by `arguments`.
    pub(crate) fn start(&self, name: &str, arguments: &[String]) -> Result<Child, String> {
        let mut command = match self.is_own {
            true => Command::new(&self.path),
            false => guarded(&self.path).map_err(|error| error.to_string())?,
        };
        command.args(&self.arguments).args(arguments);
        Child::start(name, &mut command)
    }
}

fn own(kind: &str) -> Result<Program, String> {
    Ok(Program {
        path: std::env::current_exe().map_err(|error| error.to_string())?,
        arguments: vec!["work".into(), kind.into()],
        is_own: true,
    })
}

fn python(environment: &str, kind: &str) -> Result<Program, String> {
    find("python3", "python3 python3-venv")?;
    let setup = places::root().join("tests/interop/setup");
    run("tests/interop/setup", guarded_command(&setup)?.arg(environment))?;
    Ok(script(environment, "python.py", Some(kind)))
}

/// Installs the npm package that `--typescript` names. There is no default, because the name of the client's package is
/// not known: the registry answers `E404` for `dflockd-client`.
fn typescript(packages: &Packages) -> Result<Program, String> {
    let Some(package) = &packages.typescript else {
        return Err("its package has to be named: --typescript NAME@VERSION".to_owned());
    };
    let node = find("node", "nodejs")?;
    let npm = find("npm", "npm")?;
    let folder = places::compare().map_err(|error| error.to_string())?.join("typescript");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let mut install = guarded_command(&npm)?;
    install
        .args([
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--prefix",
        ])
        .arg(&folder)
        // `typescript.mjs` imports `dflockd-client`, so the package is installed under this name.
        .arg(format!("dflockd-client@npm:{package}"));
    run(&format!("npm install {package}"), &mut install)?;
    // Node looks for packages only in the folder of the script and in its parent folders, so the script is copied.
    let script = folder.join("typescript.mjs");
    std::fs::copy(sides().join("typescript.mjs"), &script).map_err(|error| error.to_string())?;
    Ok(Program {
        path: node,
        arguments: vec![script.into()],
        is_own: false,
    })
}

fn redis() -> Result<Program, String> {
    find("redis-server", "redis-server")?;
    find("python3", "python3 python3-venv")?;
    let environment = places::root().join("tests/interop/environment");
    run(
        "tests/interop/environment",
        guarded_command(&environment)?.args(["redis-py", "redis==8.1.0"]),
    )?;
    Ok(script("redis-py", "redis_lock.py", None))
}

fn etcd() -> Result<Program, String> {
    find("etcd", "etcd-server")?;
    let go = find("go", "golang-go")?;
    let built = places::compare().map_err(|error| error.to_string())?.join("etcd-side");
    let mut build = guarded_command(&go)?;
    build
        .current_dir(sides().join("etcd"))
        .args(["build", "-o"])
        .arg(&built)
        .arg(".");
    run("go build", &mut build)?;
    Ok(Program {
        path: built,
        arguments: Vec::new(),
        is_own: false,
    })
}

fn sides() -> PathBuf {
    places::root().join("benches/compare/sides")
}

/// Returns a script for Python, in an environment that `tests/interop/environment` made.
fn script(environment: &str, name: &str, kind: Option<&str>) -> Program {
    let script = sides().join(name);
    Program {
        path: places::target().join("interop").join(environment).join("bin/python"),
        arguments: [script.into()].into_iter().chain(kind.map(OsString::from)).collect(),
        is_own: false,
    }
}

fn find(program: &str, package: &str) -> Result<PathBuf, String> {
    places::program(program).ok_or_else(|| format!("no {program} in PATH (Debian: apt-get install {package})"))
}

fn guarded_command(program: &Path) -> Result<Command, String> {
    guarded(program).map_err(|error| error.to_string())
}

/// Runs a command that installs or builds something. Returns an error if the command fails.
fn run(name: &str, command: &mut Command) -> Result<(), String> {
    Child::start(name, command)?.succeed(PATIENCE)
}

/// Returns the package if the text names one version of it. A range of versions is an error.
fn with_version(package: &str) -> Result<String, String> {
    let is_one = |version: &str| {
        let numbers: Vec<&str> = version.splitn(3, '.').collect();
        numbers.len() == 3
            && numbers
                .iter()
                .all(|number| number.starts_with(|first: char| first.is_ascii_digit()))
    };
    match package.rsplit_once('@') {
        Some((name, version)) if !name.is_empty() && is_one(version) => Ok(package.to_owned()),
        _ => Err("it has to be NAME@VERSION, where VERSION is like 1.2.3".to_owned()),
    }
}
