//! `ringfence top`: a live view of a cluster.
//!
//! Reading order: `figures` (what the members tell, and the rates between two looks), `view` (what of it is shown, as text, JSON
//! and on a screen), `screen` (the terminal, which is given back as it was).

mod figures;
mod screen;
mod view;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use ringfence_client::Client;
use tokio::sync::mpsc;

use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};
use crate::units::HumanDuration;
use figures::Look;
use view::View;

/// The shortest time between two looks: more would be a load of its own.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Show a cluster live: who leads, how far each node is, what it is asked for and how large it is, and which prefixes of keys
/// are asked for most (estimated from one call in 16). Ends with q, Esc or
/// Ctrl-C. Asks each member itself, found through any endpoint.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Time between two looks.
    #[arg(long, default_value = "1s")]
    interval: HumanDuration,
    /// Look twice, print what was seen, and end; needs no terminal.
    #[arg(long)]
    once: bool,
}

impl Top {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        if self.interval.0 < INTERVAL_MIN {
            return Err(Failure::new(Exit::Usage, "--interval is at least 100ms"));
        }
        let client = shared.client()?;
        if self.once {
            return self.print(&client, shared).await;
        }
        if !io::stdout().is_terminal() {
            return Err(Failure::new(Exit::Usage, "standard output is no terminal").next("use --once"));
        }
        let (sender, looks) = mpsc::channel(1);
        tokio::spawn(look_on(client, shared.timeout(), self.interval.0, sender));
        screen::show(looks).await
    }

    async fn print(&self, client: &Client, shared: &Shared) -> Result<(), Failure> {
        let first = Look::take(client, shared.timeout()).await?;
        tokio::time::sleep(self.interval.0).await;
        let view = View::new(Look::take(client, shared.timeout()).await?, Some(&first));
        match shared.output {
            Output::Json => print_json(&view)?,
            Output::Plain => view.plain_lines().iter().try_for_each(|line| print_line(line))?,
            Output::Table => {
                print_line(&view.summary())?;
                view.print_table()?;
                view.hottest_lines().iter().try_for_each(|line| print_line(line))?;
                view.problems().iter().try_for_each(|line| print_line(line))?;
            }
        }
        if view.is_dark() {
            return Err(Failure::new(Exit::Unavailable, "no node answers")
                .next("check --endpoints, and that the nodes run"));
        }
        Ok(())
    }
}

/// Looks again and again, for as long as somebody wants to see it.
async fn look_on(client: Client, timeout: Duration, interval: Duration, looks: mpsc::Sender<View>) {
    let mut last: Option<Look> = None;
    loop {
        // A cluster that cannot be asked is shown as such, by what was known of it.
        if let Ok(look) = Look::take(&client, timeout.min(interval.max(Duration::from_secs(1)))).await {
            let view = View::new(look.clone(), last.as_ref());
            last = Some(look);
            if looks.send(view).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(interval).await;
    }
}
