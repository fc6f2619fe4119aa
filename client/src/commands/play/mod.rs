//! `belay play`: what was recorded of a session, checked and then shown.
//!
//! Its law: nothing of a recording is shown before all of it was checked, the device's certificate
//! against the CA this login has pinned and each segment against that; and nothing a device recorded
//! acts on this terminal but with `--raw`.
//!
//! `proof` checks, `logged` holds it against the audit log, `open` has an auditor's key, `track` reads,
//! `player` plays with `draw`, `transcript` and `cast` write.

mod cast;
pub(super) mod draw;
pub(super) mod logged;
mod marks;
pub(super) mod open;
pub(super) mod player;
pub(super) mod proof;
pub(super) mod track;
pub(super) mod transcript;

use std::path::{Path, PathBuf};
use std::time::Duration;

use belay_proto::api::{Recording, path};
use belay_proto::ids::SessionId;
use serde::Serialize;

use self::proof::Proven;
use self::track::{Track, tracks};
use crate::api::Api;
use crate::failure::{EXIT_USAGE, Failure};
use crate::home::Home;
use crate::output::{self, Format};
use crate::run::Context;
use crate::{span, table};

/// Longest file read, in bytes: a day of work is some ten megabytes.
const FILE_MAX: usize = 1024 * 1024 * 1024;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys while it plays: space pauses, the arrows go 5 s back and on (with shift 60 s), ] goes to the next mark, . one event on, + and - change the speed, q quits.\n\nA recording is checked before anything of it is shown: a changed, missing or exchanged segment is named, and so is a missing end.\n\nExample:\n  belay play\n  belay play 0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e --speed 2 --idle-limit 1\n  belay play 0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e --text\n  belay play 0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e --identity ~/auditor.age"
)]
pub struct Args {
    /// The session, or a file that --save wrote; without one, lists the recordings there are
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    /// Which terminal or command of the session [default: its first terminal]
    #[arg(long, value_name = "N")]
    track: Option<u32>,
    /// Begin there: seconds, or 0:12:34 since the track began, as belay search shows it
    #[arg(long, value_name = "TIME", value_parser = clock, conflicts_with_all = ["text", "raw", "cast"])]
    at: Option<Duration>,
    /// So many times as fast as it happened
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    speed: f64,
    /// A pause is no longer than so many seconds
    #[arg(long, value_name = "SECONDS")]
    idle_limit: Option<f64>,
    /// Print what was shown as plain text, all terminals and commands and what else happened
    #[arg(long, conflicts_with_all = ["raw", "cast"])]
    text: bool,
    /// Pass the recorded bytes to this terminal as they are: they can do to it what they like
    #[arg(long, conflicts_with = "cast")]
    raw: bool,
    /// Write one terminal or command as an asciicast v3 file for other players
    #[arg(long, value_name = "FILE")]
    cast: Option<PathBuf>,
    /// With --text, --cast or --json: also what was typed, as far as it was recorded
    #[arg(long)]
    input: bool,
    /// Keep the recording as it is, signatures and all
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// An age identity file with your secret key, for a recording that is sealed to it
    #[arg(long, value_name = "FILE", env = "BELAY_IDENTITY")]
    identity: Option<PathBuf>,
}

impl Args {
    /// Nothing of it is to be shown.
    const fn only_saves(&self) -> bool {
        self.save.is_some() && self.cast.is_none() && !self.raw && !self.text
    }
}

/// Shows one recording, or lists them.
///
/// # Errors
/// When there is no such recording, or it is not what its device signed.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let Some(wanted) = &args.session else { return list(context).await };
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(Failure::new("usage", "--speed must be above 0").exit(EXIT_USAGE));
    }
    let shows_input = args.text || args.cast.is_some() || context.format == Format::Json;
    if args.input && !shows_input {
        return Err(
            Failure::new("usage", "--input goes with --text, --cast or --json").exit(EXIT_USAGE)
        );
    }
    // Asked before: what ends meanwhile is no recording that was cut.
    let logged = match wanted.parse() {
        Ok(session) => logged::Asked::of(context, session).await?,
        Err(_) => None,
    };
    let (bytes, ca) = read(&context.home, wanted).await?;
    let proven = proof::prove(&bytes, &ca)?;
    if let Ok(session) = wanted.parse::<SessionId>()
        && proven.session != session
    {
        let cause = format!("the relay gave the recording of session {}", proven.session);
        return Err(proof::broken(cause));
    }
    if let Some(file) = &args.save {
        keep(file, &bytes)?;
    }
    drop(bytes);
    if let Some(logged) = logged {
        logged.check(&proven).await?;
    }
    for line in proven.remarks() {
        output::note(line);
    }
    let sealed = open::is_sealed(&proven);
    let opener = match args.identity.as_deref().filter(|_| sealed) {
        Some(file) => Some(open::opener(&proven, file)?),
        None if !sealed => None,
        // What anybody may know of it, who may have it.
        None if context.format == Format::Json => {
            return output::json(&summary(&proven, &[]));
        }
        None if args.only_saves() => return Ok(()),
        None => return Err(open::locked()),
    };
    let tracks = tracks(&proven, opener.as_ref())?;
    if context.format == Format::Json {
        let mut summary = summary(&proven, &tracks);
        if args.input {
            summary.add_input(&tracks);
        }
        return output::json(&summary);
    }
    if args.text {
        let only = args.track.map(|_| chosen(&tracks, args.track)).transpose()?;
        return transcript::print(&proven, &tracks, only, args.input);
    }
    if args.only_saves() {
        return Ok(());
    }
    let track = chosen(&tracks, args.track)?;
    if let Some(file) = &args.cast {
        return keep(file, cast::of(track, args.input).as_bytes());
    }
    if args.raw {
        return player::raw(track, args.speed, args.idle_limit);
    }
    if !output::is_terminal() {
        return transcript::print(&proven, &tracks, Some(track), args.input);
    }
    player::play(track, args.speed, args.idle_limit, args.at.unwrap_or_default())
}

/// Seconds, or minutes or hours with colons.
fn clock(text: &str) -> Result<Duration, String> {
    let bad = || "write seconds, or a time such as 0:12:34".to_owned();
    let mut total: u64 = 0;
    for part in text.splitn(3, ':') {
        let part: u64 = part.parse().map_err(|_| bad())?;
        total = total.checked_mul(60).and_then(|t| t.checked_add(part)).ok_or_else(bad)?;
    }
    Ok(Duration::from_secs(total))
}

async fn list(context: &Context) -> Result<(), Failure> {
    let recordings: Vec<Recording> = Api::of_home(&context.home)?.get(path::RECORDINGS).await?;
    if context.format == Format::Json {
        return output::json(&recordings);
    }
    if recordings.is_empty() {
        output::note("no recordings");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = recordings
        .iter()
        .map(|recording| {
            let Recording { session, user, device, login, opened, last, segments, state, .. } =
                recording;
            let name = |name: Option<String>| name.unwrap_or_else(|| "?".to_owned());
            let target = format!(
                "{}@{}",
                name(login.clone()),
                name(device.as_ref().map(ToString::to_string))
            );
            let from = opened.unwrap_or(*last);
            vec![
                session.to_string(),
                name(user.as_ref().map(ToString::to_string)),
                target,
                span::at(from),
                span::rough(from.distance(*last)),
                segments.to_string(),
                state.clone(),
            ]
        })
        .collect();
    let heading = ["session", "user", "device", "opened", "for", "segments", "recording"];
    output::line(table::render(&heading, &rows))
}

/// The recording's file and the CA to check it by.
async fn read(
    home: &Home,
    wanted: &str,
) -> Result<(Vec<u8>, rustls_pki_types::CertificateDer<'static>), Failure> {
    if wanted.parse::<SessionId>().is_err() {
        let file = Path::new(wanted);
        let bytes = std::fs::read(file).map_err(|error| {
            Failure::new("file", format!("cannot read {}: {error}", file.display()))
                .remedy("name a session; belay play lists those that were recorded")
        })?;
        let ca = home.pinned_ca()?.ok_or_else(|| {
            Failure::new(
                "not-logged-in",
                "no deployment's CA is known here, so nothing can be checked",
            )
            .remedy("run: belay login")
        })?;
        return Ok((bytes, ca));
    }
    let login = home.live_login()?;
    let api = Api::of(&login)?;
    Ok((download(&api, wanted).await?, login.ca()?))
}

/// A session's recording, as the relay has it: its file.
pub(super) async fn download(api: &Api, session: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    loop {
        let page = api.bytes(&path_to(session, bytes.len())).await?;
        if page.is_empty() {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&page);
        if bytes.len() > FILE_MAX {
            return Err(Failure::new(
                "file",
                format!("the recording is longer than {FILE_MAX} bytes"),
            )
            .remedy("copy it from the relay's DATA/recordings and play parts of it"));
        }
    }
}

fn path_to(session: &str, from: usize) -> String {
    let with_session = crate::api::path_of(path::RECORDING, session);
    crate::api::path_of(&with_session, &from.to_string())
}

fn keep(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(file, bytes)
        .map_err(|e| Failure::new("file", format!("cannot write {}: {e}", file.display())))?;
    output::note(format!("written: {}", file.display()));
    Ok(())
}

/// The track asked for, or the one most people mean.
fn chosen(tracks: &[Track], wanted: Option<u32>) -> Result<&Track, Failure> {
    let found = match wanted {
        Some(number) => tracks.iter().find(|track| track.number == number),
        None => tracks
            .iter()
            .find(|track| track.is_terminal())
            .or_else(|| tracks.iter().find(|track| track.number != 0))
            .or_else(|| tracks.first()),
    };
    found.ok_or_else(|| {
        let all: Vec<String> = tracks.iter().map(Track::words).collect();
        Failure::new("usage", format!("there is no such track; it has {}", all.join(", ")))
            .exit(EXIT_USAGE)
    })
}

#[derive(Serialize)]
struct Summary<'a> {
    session: SessionId,
    device: belay_proto::ids::DeviceId,
    state: &'static str,
    sealed: bool,
    segments: u64,
    missing: Vec<(u64, u64)>,
    head: String,
    tracks: Vec<track::Brief<'a>>,
}

impl<'a> Summary<'a> {
    fn add_input(&mut self, tracks: &'a [Track]) {
        for (brief, track) in self.tracks.iter_mut().zip(tracks) {
            brief.add_input(track);
        }
    }
}

fn summary<'a>(proven: &Proven, tracks: &'a [Track]) -> Summary<'a> {
    Summary {
        session: proven.session,
        device: proven.device,
        state: proven.state(),
        sealed: open::is_sealed(proven),
        segments: proven.segments.len() as u64,
        missing: proven.gaps.iter().map(|gap| (gap.from, gap.to)).collect(),
        head: proven.head.iter().map(|byte| format!("{byte:02x}")).collect(),
        tracks: tracks.iter().map(Track::brief).collect(),
    }
}

#[cfg(test)]
mod tests;
