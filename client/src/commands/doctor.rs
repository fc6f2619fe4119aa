//! `belay doctor`: everything between here and the relay, one line each.

use std::time::{Duration, Instant};

use belay_proto::api::{WhoAmI, path};
use belay_proto::limits::MAX_CLOCK_SKEW;
use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api::{Api, connect_tls};
use crate::failure::{EXIT_FAILED, EXIT_OK, Failure};
use crate::home::Login;
use crate::line::Line;
use crate::output;
use crate::run::Context;
use crate::span;

/// Patience with one address.
const TCP_WITHIN: Duration = Duration::from_secs(5);

/// A login with less than this left is worth a word.
const ENDS_SOON: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    ok: bool,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

fn good(check: &'static str, detail: impl Into<String>) -> Check {
    Check { check, ok: true, detail: detail.into(), remedy: String::new() }
}

fn bad(check: &'static str, detail: impl Into<String>, remedy: &str) -> Check {
    Check { check, ok: false, detail: detail.into(), remedy: remedy.into() }
}

fn failed(check: &'static str, failure: &Failure) -> Check {
    // A failure brings its own remedy in its line.
    bad(check, failure.to_string(), "")
}

/// Checks; exits with 1 when something is wrong.
///
/// # Errors
/// When the result cannot be written.
pub async fn run(context: &Context) -> Result<u8, Failure> {
    let mut checks = Vec::new();
    let dir = context.home.dir().display().to_string();
    checks.push(match context.home.check_private() {
        Ok(()) => good("home", dir),
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
    let all_good = checks.iter().all(|check| check.ok);
    output::show(context.format, &checks, |checks| {
        checks.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if all_good { EXIT_OK } else { EXIT_FAILED })
}

fn line(check: &Check) -> String {
    let verdict = if check.ok { "ok " } else { "BAD" };
    let remedy =
        if check.remedy.is_empty() { String::new() } else { format!("; {}", check.remedy) };
    let detail = belay_proto::error_line::printable(&check.detail);
    format!("{verdict}  {:<8} {detail}{remedy}", check.check)
}

fn age(login: &Login) -> Check {
    let (record, now) = (login.record(), login.relay_time());
    let who = format!("{} at {}", record.user, login.relay());
    if now >= record.expires {
        let ago = span::rough(record.expires.distance(now));
        return bad("login", format!("{who}, expired {ago} ago"), "run: belay login");
    }
    let left = record.expires.distance(now);
    let soon = if left < ENDS_SOON { " (soon: run belay login)" } else { "" };
    good("login", format!("{who}, good for {}{soon}", span::rough(left)))
}

fn ssh_certificate(login: &Login) -> Check {
    let identity = match login.ssh_identity() {
        Ok(identity) => identity,
        Err(failure) => return failed("ssh", &failure),
    };
    let now = login.relay_time();
    let ends = UnixTime(identity.certificate.valid_before());
    if now >= ends {
        return bad("ssh", "the SSH certificate has expired", "run: belay login");
    }
    if now.0 < identity.certificate.valid_after() {
        return bad(
            "ssh",
            "the SSH certificate is not valid yet",
            "set this machine's clock and run: belay login",
        );
    }
    good("ssh", format!("certificate good for {}", span::rough(ends.distance(now))))
}

async fn network(login: &Login, checks: &mut Vec<Check>) {
    let relay = login.relay();
    let addresses = match relay.resolve().await {
        Ok(addresses) => addresses,
        Err(error) => {
            checks.push(bad(
                "dns",
                error.to_string(),
                "check the name, and this machine's network and DNS",
            ));
            return;
        }
    };
    let shown: Vec<_> = addresses.iter().map(|a| a.ip().to_string()).collect();
    checks.push(good("dns", format!("{} is {}", relay.host(), shown.join(", "))));
    for address in &addresses {
        let started = Instant::now();
        checks.push(match timeout(TCP_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(_)) => good("tcp", format!("{address} in {}", ms(started))),
            Ok(Err(error)) => bad(
                "tcp",
                format!("{address}: {error}"),
                "check that the relay runs and no firewall is in between",
            ),
            Err(_) => bad(
                "tcp",
                format!("{address}: no answer within {} s", TCP_WITHIN.as_secs()),
                "check that the relay runs and no firewall is in between",
            ),
        });
    }
    checks.push(https(login).await);
    match ask_clock(login).await {
        Ok(relay_clock) => checks.push(skew(clock::now(), relay_clock)),
        Err(failure) => checks.push(failed("api", &failure)),
    }
    checks.push(quic(login).await);
}

async fn https(login: &Login) -> Check {
    let started = Instant::now();
    let connected = async {
        let api = Api::of(login)?;
        connect_tls(api.relay(), api.tls()).await
    };
    match connected.await {
        Ok(_) => good("tls", format!("the relay proved itself in {}", ms(started))),
        Err(failure) => failed("tls", &failure),
    }
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
        return bad("clock", text, "set this machine's clock");
    }
    good("clock", if off.as_secs() < 2 { "agrees with the relay's".into() } else { text })
}

async fn quic(login: &Login) -> Check {
    let started = Instant::now();
    let line = match Line::connect(login).await {
        Ok(line) => line,
        Err(failure) => return failed("quic", &failure),
    };
    let check = match line.welcome().await {
        Ok(welcome) => good(
            "quic",
            format!(
                "line held in {}, round trip {:.1} ms, protocol {}",
                ms(started),
                line.round_trip().as_secs_f64() * 1000.0,
                welcome.version
            ),
        ),
        Err(failure) => failed("quic", &failure),
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
        assert!(skew(relay, relay).ok);
        assert!(skew(relay.plus(MAX_CLOCK_SKEW), relay).ok);
        let wrong = skew(UnixTime(0), relay);
        assert!(!wrong.ok);
        assert!(line(&wrong).contains("behind the relay's; set this machine's clock"));
        assert!(skew(UnixTime(4_102_444_800), relay).detail.contains("ahead of"));
    }

    #[test]
    fn a_line_stays_a_line() {
        let check = bad("x", "a\n\u{1b}[2Jb", "do c");
        assert_eq!(line(&check).lines().count(), 1);
    }
}
