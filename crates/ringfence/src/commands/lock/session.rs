//! The session of a command: a lease that it keeps alive while it runs, and on which its locks hang.

use std::future::Future;
use std::time::Duration;

use clap::Args;
use ringfence_client::{Client, Error};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::exit::{Exit, Failure};
use crate::units::HumanDuration;

/// A session's lease is kept alive three times in its time: two answers may be lost.
const KEEP_ALIVES_A_LEASE: u32 = 3;
/// The bound of a wait that has none.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Pause before a lost connection is used again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The flags of a command that takes something for its session.
#[derive(Debug, Clone, Args)]
pub(crate) struct SessionFlags {
    /// The lock is lost when the cluster has not heard of this command for so long: whole seconds.
    #[arg(long, default_value = "10s", value_parser = parse_ttl)]
    ttl: HumanDuration,
    /// Longest that the command waits for its turn; for ever if left out.
    #[arg(long)]
    wait: Option<HumanDuration>,
}

/// A lease of this command's own.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    pub(crate) lease: i64,
    pub(crate) ttl: Duration,
    /// The moment at which the newest keep-alive that was answered was sent: the lease's time counts from there.
    renewed: Instant,
    wait: Option<HumanDuration>,
}

impl Session {
    /// Has a lease granted.
    pub(crate) async fn begin(client: Client, flags: &SessionFlags) -> Result<Session, Failure> {
        let seconds = i64::try_from(flags.ttl.0.as_secs()).unwrap_or(i64::MAX);
        let renewed = Instant::now();
        let granted = client.lease_grant(seconds, 0).await?;
        let ttl = Duration::from_secs(granted.ttl.unsigned_abs());
        Ok(Session { client, lease: granted.id, ttl, renewed, wait: flags.wait })
    }

    /// Waits for what `ask` asks for with a client that has all the time there is, and keeps the lease alive meanwhile. Where
    /// it is not had, the session ends with the wait, so that it cannot be had afterwards.
    pub(crate) async fn win<T, F>(
        &mut self,
        what: &str,
        ask: impl FnOnce(Client, i64) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let asking = ask(self.client.with_timeout(FOR_EVER), self.lease);
        let wait = self.wait;
        let outcome = tokio::select! {
            won = asking => won.map_err(Failure::from),
            failure = self.keep_alive() => Err(failure),
            () = tokio::time::sleep(wait.map_or(FOR_EVER, |wait| wait.0)) => {
                let wait = wait.map_or_else(String::new, |wait| format!(" within {wait}"));
                Err(Failure::new(Exit::Unavailable, format!("{what} is not had{wait}: others come first")))
            }
            signal = interrupted() => {
                Err(signal.err().unwrap_or_else(|| Failure::new(Exit::General, "interrupted while it waited")))
            }
        };
        if outcome.is_err() {
            self.end().await;
        }
        outcome
    }

    /// Keeps the lease alive until it is surely lost, and tells why.
    pub(crate) async fn keep_alive(&mut self) -> Failure {
        loop {
            tokio::time::sleep_until(self.renewed + self.ttl / KEEP_ALIVES_A_LEASE).await;
            if let Err(failure) = self.renew().await {
                return failure;
            }
        }
    }

    /// Lets the lease begin anew.
    pub(crate) async fn renew(&mut self) -> Result<(), Failure> {
        loop {
            let sent = Instant::now();
            let left = (self.renewed + self.ttl).saturating_duration_since(sent);
            if left.is_zero() {
                return Err(Failure::new(
                    Exit::LockLost,
                    format!("the session is lost: no keep-alive was answered for {:?}", self.ttl),
                ));
            }
            match self.client.with_timeout(left).lease_keep_alive_once(self.lease).await {
                Ok(answer) if answer.ttl > 0 => {
                    self.renewed = sent;
                    return Ok(());
                }
                Ok(_) => {
                    return Err(Failure::new(
                        Exit::NotFound,
                        format!("the session's lease {} has ended", self.lease),
                    ));
                }
                Err(Error::Unavailable { .. }) => tokio::time::sleep(RETRY_PAUSE.min(left)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the lease with all that hangs on it. Where that fails it ends by itself, within its time.
    pub(crate) async fn end(&self) {
        if let Err(error) = self.client.lease_revoke(self.lease).await {
            eprintln!("the lease {} is left to its time: {error}", self.lease);
        }
    }
}

/// Waits for a signal that asks the command to stop.
pub(crate) async fn interrupted() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}

fn parse_ttl(text: &str) -> Result<HumanDuration, String> {
    let ttl: HumanDuration = text.parse()?;
    if ttl.0.subsec_nanos() != 0 || ttl.0.is_zero() {
        return Err(format!("a lease lasts whole seconds, and {text} is none"));
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_whole_seconds() {
        for (text, seconds) in
            [("10s", Some(10)), ("2m", Some(120)), ("0s", None), ("1500ms", None), ("x", None)]
        {
            assert_eq!(parse_ttl(text).ok().map(|ttl| ttl.0.as_secs()), seconds, "{text}");
        }
    }
}
