//! `ringfence lock acquire`: take a lock, and leave it to the time of its lease or keep it.

use clap::Args;
use ringfence_proto::v3lockpb::LockResponse;
use serde_json::json;

use super::session::{Session, SessionFlags, interrupted};
use crate::cli::Shared;
use crate::exit::Failure;
use crate::output::{Output, print_json, print_line};
use crate::record::shown;

/// Take a lock, and print its fencing token, its key and its lease.
#[derive(Debug, Args)]
pub(crate) struct Acquire {
    /// The lock's name.
    name: String,
    #[command(flatten)]
    session: SessionFlags,
    /// Keep the lock until the command is interrupted, then give it back. Without this the command ends at once, and the lock
    /// is lost after the time of its lease, unless `lease keep-alive` keeps it.
    #[arg(long)]
    keep: bool,
}

impl Acquire {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let mut session = Session::begin(shared.client()?, &self.session).await?;
        let name = self.name.clone();
        let what = format!("the lock {name:?}");
        let lock = session.win(&what, |client, lease| async move { client.lock(name, lease).await }).await?;
        if !self.keep {
            // What is told of the lease's time is true from now on.
            session.renew().await?;
            return self.tell(shared.output, &lock, &session);
        }
        if let Err(failure) = self.tell(shared.output, &lock, &session) {
            session.end().await;
            return Err(failure);
        }
        let ended = tokio::select! {
            failure = session.keep_alive() => Err(failure),
            interrupted = interrupted() => interrupted,
        };
        session.end().await;
        ended
    }

    fn tell(&self, output: Output, lock: &LockResponse, session: &Session) -> Result<(), Failure> {
        let (key, token, lease) = (shown(&lock.key), lock.token, session.lease);
        let seconds = session.ttl.as_secs();
        match output {
            Output::Json => print_json(
                &json!({ "name": self.name, "token": token, "key": key, "lease": lease, "ttl": seconds }),
            ),
            Output::Plain => print_line(&format!("{token}\n{key}\n{lease}")),
            Output::Table => {
                print_line(&format!("the lock {:?} is held", self.name))?;
                print_line(&format!("token  {token}\nkey    {key}\nlease  {lease}, of {seconds} s"))
            }
        }
    }
}
