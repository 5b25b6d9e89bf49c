//! Runs the SQL of the chapter on fencing on a new PostgreSQL server, with the fences of real grants.
//!
//! Without PostgreSQL, the test prints that it is skipped, and passes. If `DFLOCKD_REQUIRE_POSTGRES` is set, as in CI,
//! the test fails instead.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dflockd_client::testing::TestServer;
use dflockd_client::{Fence, Fencing};

use crate::{blocks, chapter};

#[tokio::test(flavor = "multi_thread")]
async fn a_late_holder_writes_nothing_to_postgresql() {
    let Some(database) = Postgres::start() else {
        assert!(
            std::env::var_os("DFLOCKD_REQUIRE_POSTGRES").is_none(),
            "PostgreSQL is required, and initdb was not found"
        );
        println!("skipped: PostgreSQL was not found; Debian's package is `postgresql`");
        return;
    };
    let sql = blocks(&chapter("fencing.md"), "sql");
    let [table, claim, write] = &sql[..] else {
        panic!("the chapter has {} blocks of SQL", sql.len());
    };
    assert_eq!(database.run(table, &[]), "CREATE TABLE");

    let server = TestServer::start().await.unwrap();
    let client = server
        .client_builder()
        .fencing(Fencing::Required)
        .connect()
        .await
        .unwrap();
    let late = client.lock("accounts/7").unwrap().acquire().await.unwrap();
    let late = late.require_fence().unwrap();
    assert_eq!(database.run(claim, &account(late, 0)), "0\nINSERT 0 1");

    server.lose("accounts/7").unwrap();
    let next = client.lock("accounts/7").unwrap().acquire().await.unwrap();
    let next = next.require_fence().unwrap();
    assert!(next > late);
    assert_eq!(database.run(claim, &account(next, 0)), "0\nINSERT 0 1");

    // The database refuses a write of the late holder, both before and after a write of the next holder.
    assert_eq!(database.run(write, &account(late, 5)), "UPDATE 0");
    assert_eq!(database.run(write, &account(next, 100)), "UPDATE 1");
    assert_eq!(database.run(write, &account(late, 5)), "UPDATE 0");
    // The database also refuses a claim of the late holder, and returns no balance.
    assert_eq!(database.run(claim, &account(late, 0)), "INSERT 0 0");
    // A holder may claim and write more than once.
    assert_eq!(database.run(claim, &account(next, 0)), "100\nINSERT 0 1");
    assert_eq!(database.run(write, &account(next, 110)), "UPDATE 1");
    assert_eq!(database.run("SELECT balance FROM accounts;", &[]), "110");
}

fn account(fence: Fence, balance: i64) -> [String; 3] {
    [
        "id=7".to_owned(),
        format!("fence={}", fence.0),
        format!("balance={balance}"),
    ]
}

/// A PostgreSQL server in its own folder. It listens only on a Unix socket. Dropping this value stops the server.
struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    user: Option<String>,
}

impl Postgres {
    /// Returns `None` if PostgreSQL is not installed.
    fn start() -> Option<Self> {
        let programs = programs()?;
        // The path of a socket may have at most 107 bytes, and the path of the target folder may be longer.
        let folder = std::env::temp_dir().join(format!("dflockd-pg-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // PostgreSQL refuses to run as root. Debian's package has the user `postgres` to run it.
        let is_root = rustix::process::geteuid().is_root();
        let user = is_root.then(|| "postgres".to_owned());
        let database = Self { programs, folder, user };
        if is_root {
            succeed(Command::new("chown").arg("postgres").arg(&database.folder));
        }
        let data = database.folder.join("data");
        succeed(
            database
                .command("initdb")
                .args(["-A", "trust", "-U", "postgres", "-N", "-D"])
                .arg(&data),
        );
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off",
            database.folder.display()
        );
        let log = database.folder.join("log");
        let mut start = database.command("pg_ctl");
        start
            .args(["start", "-w", "-s", "-o", &options, "-D"])
            .arg(&data)
            .arg("-l")
            .arg(&log);
        // The server inherits these streams. If they were pipes, they would stay open as long as the server runs.
        let status = start
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{}", fs::read_to_string(&log).unwrap_or_default());
        Some(database)
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match &self.user {
            None => Command::new(program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", user, "--regid", user, "--clear-groups", "--"])
                    .arg(program);
                command
            }
        };
        command.current_dir(&self.folder).env_remove("PGDATA");
        command
    }

    /// Runs statements with named parameters, and returns the output of `psql`.
    fn run(&self, sql: &str, parameters: &[String]) -> String {
        let file = self.folder.join("statement.sql");
        fs::write(&file, sql).unwrap();
        let mut psql = self.command("psql");
        psql.args([
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-h",
        ]);
        psql.arg(&self.folder);
        for parameter in parameters {
            psql.args(["-v", parameter]);
        }
        let output = succeed(psql.arg("-f").arg(&file));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.folder.join("data");
        let stopped = self
            .command("pg_ctl")
            .args(["stop", "-s", "-m", "immediate", "-D"])
            .arg(&data)
            .status();
        drop(stopped);
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Returns the folder of `initdb`, `pg_ctl` and `psql`: a folder of `PATH`, or the folder of Debian's package.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut of_debian: Vec<PathBuf> = debian.map(|version| version.unwrap().path().join("bin")).collect();
    of_debian.sort();
    let has_all = |folder: &&PathBuf| {
        let programs = ["initdb", "pg_ctl", "psql"].map(OsStr::new);
        programs.iter().all(|program| Path::new(folder).join(program).exists())
    };
    on_path.iter().chain(of_debian.iter().rev()).find(has_all).cloned()
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
