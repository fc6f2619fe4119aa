//! `belay-agent doctor`: what stands between this device and its relay, one line each.
//!
//! Its law: it disturbs nothing. A second `Hello` with the device's key would take the running
//! agent's line away, so it proves the relay by TLS alone and reads the rest from the agent's own
//! word. It tries the network with the settings of the running agent, where it may read them.

mod environment;

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::error_line::{one_line, printable};
use belay_proto::keeping::Known;
use belay_proto::limits::MAX_CLOCK_SKEW;
use belay_proto::time::UnixTime;
use belay_proto::version;
use belay_tunnel::address::RelayAddress;
use belay_tunnel::carrier::picker::Wanted;
use belay_tunnel::carrier::quic::Role;
use belay_tunnel::pki::{PeerCertificate, RelayVerifier};
use belay_tunnel::probe::{self, Check};
use belay_tunnel::{clock, https, tls};
use serde::Serialize;

use crate::enrol::SOFTWARE;
use crate::state::{State, StateError};
use crate::supervisor::{StatusFile, known_nat};
use environment::Environment;

/// A certificate with less than this left should have been renewed twenty days ago.
const ENDS_SOON: Duration = Duration::from_secs(10 * 24 * 3600);

/// A loss older than this says nothing of today.
const LOSS_OF_INTEREST: Duration = Duration::from_secs(24 * 3600);

/// What was found.
#[derive(Debug)]
pub struct Findings(Vec<Check>);

/// Looks at everything.
pub async fn examine(state: &State) -> Findings {
    let mut checks = vec![directory(state)];
    let enrolment = match state.enrolment() {
        Ok(enrolment) => enrolment,
        Err(error) => {
            checks.push(wrong("enrolment", &error));
            return Findings(checks);
        }
    };
    checks.push(Check::well(
        "enrolment",
        format!("{} ({}) at {}", enrolment.name, enrolment.device, enrolment.relay),
    ));
    checks.push(certificate(state));
    // The running agent holds the lock; whoever gets it knows that none runs.
    let running = matches!(state.lock(), Err(StateError::Running(_)));
    let said = state.status().and_then(|text| serde_json::from_str::<StatusFile>(&text).ok());
    checks.extend(agent(running, said.as_ref()));
    let environment = Environment::of(said.as_ref().filter(|_| running).map(|said| said.pid));
    if let Some(check) = environment.check() {
        checks.push(check);
    }
    match enrolment.relay_address() {
        Ok(relay) => network(state, &relay, &environment, &mut checks).await,
        Err(error) => checks.push(wrong("enrolment", &error)),
    }
    Findings(checks)
}

fn wrong(name: &'static str, error: &StateError) -> Check {
    // Its own line says what to do.
    Check::bad(name, one_line(error), "")
}

fn directory(state: &State) -> Check {
    let dir = state.dir();
    let shown = dir.display();
    match std::fs::metadata(dir) {
        Err(error) => {
            let remedy = "run as the user the agent runs as, or name the directory with --state";
            Check::bad("state", format!("cannot look at {shown}: {error}"), remedy)
        }
        Ok(found) if found.mode() & 0o077 != 0 => {
            let mode = found.mode() & 0o777;
            let remedy = format!("run: chmod 700 {shown}");
            Check::bad("state", format!("{shown} is open to others (mode {mode:o})"), remedy)
        }
        Ok(_) => Check::well("state", shown.to_string()),
    }
}

fn certificate(state: &State) -> Check {
    const NAME: &str = "certificate";
    let read = state.certificate();
    let certificate = match &read {
        Ok(der) => PeerCertificate::from_der(der),
        Err(error) => return wrong(NAME, error),
    };
    match certificate {
        // A clock that is behind the last time a relay told is wrong by at least that much.
        Ok(certificate) => ends(certificate.not_after, clock::now().max(state.relay_time())),
        Err(error) => Check::bad(NAME, one_line(&error), "enrol this device again"),
    }
}

fn ends(end: UnixTime, now: UnixTime) -> Check {
    const NAME: &str = "certificate";
    if now > end {
        let ago = end.distance(now).as_secs() / 3600;
        let remedy = "keep the agent running: it renews an expired certificate by itself";
        return Check::note(NAME, format!("it expired {ago} h ago"), remedy);
    }
    let left = end.distance(now);
    let days = left.as_secs() / (24 * 3600);
    if left < ENDS_SOON {
        let remedy = "keep the agent running: it renews the certificate by itself";
        return Check::note(NAME, format!("it is good for {days} more days only"), remedy);
    }
    Check::well(NAME, format!("good for {days} days"))
}

/// What the running agent says of itself.
fn agent(running: bool, said: Option<&StatusFile>) -> Vec<Check> {
    const NAME: &str = "agent";
    let Some(said) = said.filter(|_| running) else {
        let remedy = "start it with: systemctl start belay-agent, or: belay-agent run";
        return vec![Check::bad(NAME, "no agent runs", remedy)];
    };
    let now = clock::now();
    let ago = now.0.saturating_sub(said.since.0);
    let mut checks = Vec::new();
    if said.online {
        let over = printable(said.carrier.as_deref().unwrap_or("an unknown carrier"));
        checks.push(Check::well(NAME, format!("line up for {ago} s over {over}")));
    } else {
        let why = printable(said.reason.as_deref().unwrap_or("not connected yet"));
        checks.push(Check::bad(NAME, format!("no line for {ago} s: {why}"), ""));
    }
    if said.online
        && let Some(loss) = &said.last_loss
        && loss.at.distance(now) < LOSS_OF_INTEREST
    {
        let ago = now.0.saturating_sub(loss.at.0);
        let why = printable(&loss.reason);
        checks.push(Check::note("loss", format!("the line was lost {ago} s ago: {why}"), ""));
    }
    checks
}

async fn network(
    state: &State,
    relay: &RelayAddress,
    environment: &Environment,
    checks: &mut Vec<Check>,
) {
    let prepared = wanted(state, relay, environment);
    let wanted = match prepared {
        Ok(wanted) => wanted,
        Err(error) => {
            checks.push(Check::bad("settings", one_line(error.as_ref()), ""));
            return;
        }
    };
    checks.extend(probe::network(&wanted).await);
    checks.extend(nat_timeout(state, relay).await);
    checks.extend(relay_clock(state, &wanted).await);
}

fn wanted(
    state: &State,
    relay: &RelayAddress,
    environment: &Environment,
) -> anyhow::Result<Wanted> {
    let own = (vec![state.certificate()?], state.key()?.to_der());
    let verifier = RelayVerifier::pinned(state.ca()?, state.relay_time());
    let config = tls::client(verifier, Some(own), &[version::ALPN])?;
    let (relay, history) = (relay.clone(), Arc::default());
    Ok(Wanted::from_variables(relay, config, Role::Device, history, |name| environment.get(name))?)
}

/// What the agent has found out of this network's NAT while it held lines through it.
async fn nat_timeout(state: &State, relay: &RelayAddress) -> Option<Check> {
    // That a name has no address is a line of its own.
    let address = relay.resolve().await.ok()?.into_iter().next()?;
    known_nat(state, address).map(|known| timeout_of(&known))
}

/// Linux forgets a quiet mapping after 30 s (`nf_conntrack_udp_timeout`), most others later.
const SHORT_TIMEOUT: u32 = 30;

fn timeout_of(Known { holds, fails }: &Known) -> Check {
    const NAME: &str = "nat-timeout";
    let Some(fails) = fails else {
        let text = format!("a quiet UDP mapping lives {holds} s here, the longest that was tried");
        return Check::well(NAME, text);
    };
    let text = format!("a quiet UDP mapping lives {holds} s here, and not {fails} s");
    if *fails <= SHORT_TIMEOUT {
        let remedy = "it costs data: raise the router's UDP timeout to 5 minutes (RFC 4787, REQ-5)";
        return Check::note(NAME, text, remedy);
    }
    Check::well(NAME, text)
}

/// `None` when the relay cannot be asked over TCP, of which there is a line already.
async fn relay_clock(state: &State, wanted: &Wanted) -> Option<Check> {
    let verifier = RelayVerifier::pinned(state.ca().ok()?, state.relay_time());
    let config = Arc::new(tls::client(verifier, None, &[b"http/1.1"]).ok()?);
    let told = https::relay_time(&wanted.relay, &wanted.proxies, &config, SOFTWARE).await;
    told.ok().flatten().map(|relay| skew(clock::now(), relay))
}

fn skew(local: UnixTime, relay: UnixTime) -> Check {
    const NAME: &str = "clock";
    let off = relay.distance(local);
    let which = if local > relay { "ahead of" } else { "behind" };
    let text = format!("this device's clock is {} s {which} the relay's", off.as_secs());
    if off > MAX_CLOCK_SKEW {
        let remedy = "set it; the agent goes by the relay's time meanwhile, other programs do not";
        return Check::bad(NAME, text, remedy);
    }
    Check::well(NAME, if off.as_secs() < 2 { "agrees with the relay's".into() } else { text })
}

impl Findings {
    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.0.iter().all(Check::is_ok)
    }

    /// A line each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(Check::line)
    }

    /// For programs.
    ///
    /// # Errors
    /// When it does not encode.
    pub fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Shown<'a> {
            check: &'static str,
            ok: bool,
            detail: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            remedy: &'a str,
        }
        let shown = self.0.iter().map(|check| Shown {
            check: check.name,
            ok: check.is_ok(),
            detail: &check.detail,
            remedy: &check.remedy,
        });
        serde_json::to_string(&shown.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use belay_tunnel::probe::Verdict;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const DAY: u64 = 24 * 3600;

    #[test]
    fn a_certificate_that_ends_is_remarked_before_and_after() {
        for (end, verdict) in [
            (NOW.0 + 60 * DAY, Verdict::Well),
            (NOW.0 + 5 * DAY, Verdict::Note),
            (NOW.0 - DAY, Verdict::Note),
        ] {
            assert_eq!(ends(UnixTime(end), NOW).verdict, verdict, "{end}");
        }
    }

    #[test]
    fn a_clock_is_wrong_only_beyond_what_a_person_would_be_refused_for() {
        assert!(skew(NOW, NOW).is_ok());
        let wrong = skew(UnixTime(0), NOW);
        assert!(!wrong.is_ok() && wrong.detail.contains("behind"), "{wrong:?}");
    }

    #[test]
    fn what_a_nat_keeps_is_told_and_one_that_forgets_soon_is_remarked() {
        let told = |holds, fails| timeout_of(&Known { holds, fails });
        let short = told(14, Some(28));
        assert_eq!(short.verdict, Verdict::Note);
        assert!(short.detail.contains("14 s here, and not 28 s"), "{short:?}");
        assert_eq!(told(58, Some(118)).verdict, Verdict::Well);
        assert!(told(285, None).detail.contains("285 s here, the longest that was tried"));
    }

    #[tokio::test]
    async fn a_device_that_never_enrolled_is_told_what_to_do_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("none"));
        let found = examine(&state).await;
        assert!(!found.is_well());
        assert!(found.lines().any(|line| line.contains("belay-agent enroll")));
        assert!(!state.dir().exists());
    }
}
