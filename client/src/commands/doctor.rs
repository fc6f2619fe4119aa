//! `belay doctor`: everything between here and the relay, one line each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use belay_proto::api::{WhoAmI, path};
use belay_proto::limits::MAX_CLOCK_SKEW;
use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use belay_tunnel::probe::{self, Check};
use serde::Serialize;

use crate::api::Api;
use crate::failure::{EXIT_FAILED, EXIT_OK, Failure};
use crate::home::Login;
use crate::line::{Line, dial};
use crate::output;
use crate::run::Context;
use crate::span;

/// A login with less than this left is worth a word.
const ENDS_SOON: Duration = Duration::from_secs(15 * 60);

fn failed(name: &'static str, failure: &Failure) -> Check {
    Check::bad(name, failure.cause(), failure.remedy_text())
}

/// Checks; exits with 1 when something is wrong.
///
/// # Errors
/// When the result cannot be written.
pub async fn run(context: &Context) -> Result<u8, Failure> {
    let mut checks = Vec::new();
    let dir = context.home.dir().display().to_string();
    checks.push(match context.home.check_private() {
        Ok(()) => Check::well("home", dir),
        Err(failure) => failed("home", &failure),
    });
    match context.home.login() {
        Err(failure) => checks.push(failed("login", &failure)),
        Ok(login) => {
            checks.push(age(&login));
            checks.push(ssh_certificate(&login));
            network(&login, &mut checks).await;
        }
    }
    let all_good = checks.iter().all(Check::is_ok);
    let shown: Vec<_> = checks.iter().map(Shown::of).collect();
    output::show(context.format, &shown, |_| {
        checks.iter().map(Check::line).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if all_good { EXIT_OK } else { EXIT_FAILED })
}

/// A finding for a program.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    check: &'static str,
    ok: bool,
    detail: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    remedy: &'a str,
}

impl<'a> Shown<'a> {
    fn of(check: &'a Check) -> Self {
        Self { check: check.name, ok: check.is_ok(), detail: &check.detail, remedy: &check.remedy }
    }
}

fn age(login: &Login) -> Check {
    let (record, now) = (login.record(), login.relay_time());
    let who = format!("{} at {}", record.user, login.relay());
    if now >= record.expires {
        let ago = span::rough(record.expires.distance(now));
        return Check::bad("login", format!("{who}, expired {ago} ago"), "run: belay login");
    }
    let left = record.expires.distance(now);
    let soon = if left < ENDS_SOON { " (soon: run belay login)" } else { "" };
    Check::well("login", format!("{who}, good for {}{soon}", span::rough(left)))
}

fn ssh_certificate(login: &Login) -> Check {
    let identity = match login.ssh_identity() {
        Ok(identity) => identity,
        Err(failure) => return failed("ssh", &failure),
    };
    let now = login.relay_time();
    let ends = UnixTime(identity.certificate.valid_before());
    if now >= ends {
        return Check::bad("ssh", "the SSH certificate has expired", "run: belay login");
    }
    if now.0 < identity.certificate.valid_after() {
        return Check::bad(
            "ssh",
            "the SSH certificate is not valid yet",
            "set this machine's clock and run: belay login",
        );
    }
    Check::well("ssh", format!("certificate good for {}", span::rough(ends.distance(now))))
}

async fn network(login: &Login, checks: &mut Vec<Check>) {
    match dial::wanted(login, &Arc::default()) {
        Ok(wanted) => checks.extend(probe::network(&wanted).await),
        Err(failure) => {
            checks.push(failed("settings", &failure));
            return;
        }
    }
    match ask_clock(login).await {
        Ok(relay_clock) => checks.push(skew(clock::now(), relay_clock)),
        Err(failure) => checks.push(failed("api", &failure)),
    }
    checks.push(line(login).await);
}

async fn ask_clock(login: &Login) -> Result<UnixTime, Failure> {
    let who: WhoAmI = Api::of(login)?.get(path::WHOAMI).await?;
    Ok(who.clock)
}

fn skew(local: UnixTime, relay: UnixTime) -> Check {
    let off = relay.distance(local);
    let which = if local > relay { "ahead of" } else { "behind" };
    let text = format!("this clock is {} {which} the relay's", span::rough(off));
    if off > MAX_CLOCK_SKEW {
        return Check::bad("clock", text, "set this machine's clock");
    }
    Check::well("clock", if off.as_secs() < 2 { "agrees with the relay's".into() } else { text })
}

/// The line as every command would have it. A client may hold as many as it likes, so that this
/// one says hello.
async fn line(login: &Login) -> Check {
    let started = Instant::now();
    let line = match Line::connect(login).await {
        Ok(line) => line,
        Err(failure) => return failed("line", &failure),
    };
    let check = match line.welcome().await {
        Ok(welcome) => Check::well(
            "line",
            format!(
                "held over {} in {}, round trip {:.1} ms, protocol {}",
                line.carrier_name(),
                ms(started),
                line.round_trip().as_secs_f64() * 1000.0,
                welcome.version
            ),
        ),
        Err(failure) => failed("line", &failure),
    };
    line.close().await;
    check
}

fn ms(since: Instant) -> String {
    format!("{:.1} ms", since.elapsed().as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_bad_only_beyond_what_certificates_allow_for() {
        let relay = UnixTime(1_800_000_000);
        assert!(skew(relay, relay).is_ok());
        assert!(skew(relay.plus(MAX_CLOCK_SKEW), relay).is_ok());
        let wrong = skew(UnixTime(0), relay);
        assert!(!wrong.is_ok());
        assert!(wrong.line().contains("behind the relay's; set this machine's clock"));
        assert!(skew(UnixTime(4_102_444_800), relay).detail.contains("ahead of"));
    }
}
