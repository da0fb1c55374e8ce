//! The example of a PostgreSQL table that refuses former holders (`examples/postgresql`), on a real PostgreSQL.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use ringfence_tests::cli::{self, Ran};
use ringfence_tests::cluster::Cluster;
use ringfence_tests::process::Process;
use ringfence_tests::skip;
use ringfence_tests::wait::{self, PATIENCE};
use tempfile::TempDir;

/// The example as its readers get it.
const FENCE_SQL: &str = include_str!("../../examples/postgresql/fence.sql");
/// What a table of the example's readers looks like.
const ACCOUNT_SQL: &str = "
    CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
    INSERT INTO account VALUES (1, 100);
    CREATE TRIGGER fenced BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON account
      FOR EACH STATEMENT EXECUTE FUNCTION ringfence_demand('lock:jobs');
";

/// A server of its own on a socket in a directory of its own. Dropping it ends it.
struct Postgres {
    home: TempDir,
    _server: Process,
}

/// The directory with Debian's newest server programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    programs.filter(|bin| bin.join("initdb").exists() && bin.join("psql").exists()).max()
}

/// A user and a group without rights: PostgreSQL refuses to run as root.
fn unprivileged() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let fields: Vec<&str> = line.split(':').collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody"))
}

impl Postgres {
    /// A server that takes connections, or nothing where PostgreSQL is not installed.
    fn start(test: &str) -> Option<Postgres> {
        let Some(programs) = programs() else {
            skip::skipped(test, "PostgreSQL is not installed: apt-get install postgresql");
            return None;
        };
        let home = tempfile::Builder::new().prefix("ringfence-pg-").tempdir();
        let home = home.expect("the temporary directory is writable");
        let owner = if skip::is_root() { unprivileged() } else { None };
        if let Some((user, group)) = owner {
            chown(home.path(), Some(user), Some(group)).expect("root may give a directory away");
        }
        let program = |name: &str| {
            let mut command = Command::new(programs.join(name));
            command.current_dir(home.path()).env_clear().env("LC_ALL", "C");
            if let Some((user, group)) = owner {
                command.uid(user).gid(group);
            }
            command
        };
        let data = home.path().join("data");
        let mut initdb = program("initdb");
        initdb.args(["--auth=trust", "--username=tester", "--no-sync", "--encoding=UTF8", "-D"]).arg(&data);
        drop(cli::capture(initdb, "").succeeded());
        let log = File::create(home.path().join("log")).expect("the directory is writable");
        let mut server = program("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(home.path());
        // No address at all: the socket is the only way in.
        server.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let server = Process::start(server);
        let postgres = Postgres { home, _server: server };
        wait::until("PostgreSQL to take connections", PATIENCE, || {
            let asked = cli::capture(psql(postgres.home.path(), &["-c", "SELECT 1"]), "");
            if asked.code == Some(0) { Ok(()) } else { Err(asked.stderr) }
        });
        Some(postgres)
    }

    /// Runs statements, each on its own unless they say otherwise, up to the first that fails.
    fn run(&self, statements: &str) -> Ran {
        cli::capture(psql(self.home.path(), &[]), statements)
    }

    /// The one value that a statement asks for.
    fn value(&self, statement: &str) -> String {
        self.run(statement).line()
    }
}

fn psql(socket: &Path, more: &[&str]) -> Command {
    let mut command = Command::new("psql");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--set=ON_ERROR_STOP=1"]);
    // Refusals are known by their SQLSTATE.
    command.args(["--set=VERBOSITY=verbose", "--username=tester", "--dbname=postgres", "--host"]);
    command.arg(socket).args(more);
    command
}

/// A withdrawal by a holder of the lock with this token.
fn withdrawal(token: i64, amount: u32) -> String {
    format!(
        "BEGIN; SELECT ringfence_present('lock:jobs', {token});\n\
         UPDATE account SET balance = balance - {amount} WHERE id = 1; COMMIT;\n"
    )
}

/// Takes the lock and returns its token. Its lease is left to its time.
fn acquire(cluster: &Cluster, ttl: &str) -> i64 {
    let held = cluster.run(["lock", "acquire", "jobs", "--ttl", ttl, "--wait=60s", "--output=json"]).json();
    held["token"].as_i64().unwrap_or_else(|| panic!("it has a token: {held}"))
}

/// A holder with a connection of its own, which does what it is told.
struct Holder {
    psql: Process,
    orders: ChildStdin,
    said: PathBuf,
}

impl Holder {
    fn connect(postgres: &Postgres, name: &str) -> Holder {
        let said = postgres.home.path().join(name);
        let mut command = psql(postgres.home.path(), &[]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(File::create(&said).expect("the directory is writable"));
        let mut psql = Process::start(command);
        let orders = psql.stdin().expect("it was asked for");
        Holder { psql, orders, said }
    }

    fn order(&mut self, statements: &str) {
        self.orders.write_all(statements.as_bytes()).expect("the pipe has room");
    }

    /// What it has said when it has ended, which it does with the first statement that fails.
    fn failure(mut self) -> String {
        let code = self.psql.exit_code_within(PATIENCE);
        let said = fs::read_to_string(&self.said).expect("it can be read");
        assert!(code != 0, "it should have failed: {said}");
        said
    }
}

#[test]
fn a_paused_holders_late_update_is_refused_by_postgresql() {
    let test = "a_paused_holders_late_update_is_refused_by_postgresql";
    let Some(postgres) = Postgres::start(test) else { return };
    let cluster = Cluster::start(1);
    drop(postgres.run(FENCE_SQL).succeeded());
    drop(postgres.run(ACCOUNT_SQL).succeeded());
    let balance = || postgres.value("SELECT balance FROM account");

    let first = acquire(&cluster, "2s");
    let mut holder = Holder::connect(&postgres, "first");
    holder.order(&withdrawal(first, 10));
    wait::until("the first withdrawal", PATIENCE, || match balance().as_str() {
        "90" => Ok(()),
        other => Err(other.to_owned()),
    });
    // It was going to withdraw once more, and does not get to it.
    holder.psql.stop();
    holder.order(&withdrawal(first, 20));
    let second = acquire(&cluster, "60s");
    assert!(second > first, "tokens grow: {second} after {first}");
    for _ in 0..2 {
        drop(postgres.run(&withdrawal(second, 1)).succeeded());
    }
    holder.psql.go_on();
    let said = holder.failure();
    let words = format!("RF001: stale fence: token {first} of lock:jobs came after token {second}");
    assert!(said.contains(&words), "{said}");
    assert_eq!(balance(), "88", "nothing of the late withdrawal is there");

    // Whoever forgets the fence, or has that of another lock, writes nothing, in whatever way.
    for statement in [
        "UPDATE account SET balance = 0",
        "DELETE FROM account",
        "INSERT INTO account VALUES (2, 0)",
        "TRUNCATE account",
        "BEGIN; SELECT ringfence_present('lock:other', 999); UPDATE account SET balance = 0; COMMIT",
    ] {
        let refused = postgres.run(&format!("{statement};"));
        refused.failed(3, &["RF002: the table account is fenced: a write of it needs a token of lock:jobs"]);
    }
    // Nor does a fence outlive its transaction.
    let later = format!("{} UPDATE account SET balance = 0;", withdrawal(second, 1));
    postgres.run(&later).failed(3, &["RF002"]);
    assert_eq!(postgres.value("SELECT count(*), sum(balance) FROM account"), "1|87");
}

#[test]
fn a_holder_that_is_paused_in_its_transaction_is_ended_by_postgresql() {
    let test = "a_holder_that_is_paused_in_its_transaction_is_ended_by_postgresql";
    let Some(postgres) = Postgres::start(test) else { return };
    drop(postgres.run(FENCE_SQL).succeeded());
    drop(postgres.run(ACCOUNT_SQL).succeeded());
    let mut holder = Holder::connect(&postgres, "first");
    holder.order(
        "SET idle_in_transaction_session_timeout = '1s'; BEGIN; SELECT ringfence_present('lock:jobs', 33);\n",
    );
    let question = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    wait::until("the holder to be in its transaction", PATIENCE, || {
        match postgres.value(question).as_str() {
            "1" => Ok(()),
            other => Err(format!("{other} connections are")),
        }
    });
    holder.psql.stop();
    // Waits for the scope until the transaction is undone.
    drop(postgres.run(&withdrawal(34, 1)).succeeded());
    assert_eq!(postgres.value(question), "0", "it did not wait");
    holder.order("UPDATE account SET balance = 0; COMMIT;\n");
    holder.psql.go_on();
    let said = holder.failure();
    assert!(said.contains("idle-in-transaction timeout"), "{said}");
    assert_eq!(postgres.value("SELECT balance FROM account"), "99");
    assert_eq!(postgres.value("SELECT token FROM ringfence_fence"), "34");
}
