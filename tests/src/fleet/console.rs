//! The line protocol of the `fleet` program: a word and numbers in, one line of JSON out.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::{Credentials, Herd, Ramp};

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Connect more devices; answered by a [`super::RampReport`] when all have settled.
    Connect(Ramp),
    /// Cut the newest lines silently; answered by a [`super::Standing`].
    Vanish(usize),
    /// Whether lines that end are dialled again; answered by a [`super::Standing`].
    Faithful(bool),
    /// Answered by a [`super::Standing`].
    Standing,
}

/// Serves requests from standard input until it ends, then all lines end.
///
/// # Errors
/// When the fleet cannot be made ready, or a request cannot be read or carried out.
pub async fn serve(fleet: Credentials, address: SocketAddr, patience: Duration) -> Result<()> {
    let mut herd = Herd::new(fleet, address, patience)?;
    let mut requests = BufReader::new(tokio::io::stdin()).lines();
    let mut out = tokio::io::stdout();
    while let Some(line) = requests.next_line().await.context("reading standard input")? {
        let request: Request = serde_json::from_str(&line)
            .with_context(|| format!("{line:?} is no request of this program"))?;
        let mut answer = match request {
            Request::Connect(ramp) => serde_json::to_string(&herd.connect(ramp).await?)?,
            Request::Vanish(count) => {
                herd.vanish(count);
                // Aborted tasks drop their lines on their next turn.
                tokio::task::yield_now().await;
                serde_json::to_string(&herd.standing())?
            }
            Request::Faithful(faithful) => {
                herd.faithful(faithful);
                serde_json::to_string(&herd.standing())?
            }
            Request::Standing => serde_json::to_string(&herd.standing())?,
        };
        answer.push('\n');
        if out.write_all(answer.as_bytes()).await.is_err() || out.flush().await.is_err() {
            bail!("nobody reads the answers");
        }
    }
    Ok(())
}
