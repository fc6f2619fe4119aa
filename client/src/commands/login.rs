//! `belay login`

use std::io::{self, BufRead as _, Read as _};

use belay_proto::api::{LoginAnswer, LoginProof, LoginRequest, MAX_PASSWORD, MIN_PASSWORD, path};
use belay_proto::names::UserName;
use belay_proto::token::{Fingerprint, Invitation, Purpose};
use belay_tunnel::clock;
use belay_tunnel::pki::TlsKey;
use hyper::Method;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use ssh_key::PrivateKey;
use ssh_key::private::Ed25519Keypair;
use zeroize::Zeroizing;

use crate::api::Api;
use crate::failure::{EXIT_USAGE, Failure};
use crate::home::NewLogin;
use crate::output;
use crate::run::Context;
use crate::{span, terminal};
use belay_tunnel::address::RelayAddress;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The first time, with the code an administrator gave you; after that, with your password.\n\nExamples:\n  belay login --code belay-code-…\n  belay login\n  belay login relay.example.com --user anna\n  pass show belay | belay login --user anna --password-stdin"
)]
pub struct Args {
    /// The relay, HOST or HOST:PORT [default: the one in the code, or of the last login]
    relay: Option<RelayAddress>,
    /// The one-time code; brings the relay's address and the CA to believe
    #[arg(long, env = "BELAY_CODE", hide_env_values = true, conflicts_with = "user")]
    code: Option<String>,
    /// Who you are [default: who logged in last]
    #[arg(long, value_name = "NAME")]
    user: Option<UserName>,
    /// Read the password from the first line of standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
}

/// Logs in and keeps what came back.
///
/// # Errors
/// When the code or password is wrong, the relay is not the one it should be, or cannot be reached.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let (api, proof, ca) = prepare(context, args).await?;
    let tls_key = TlsKey::generate().map_err(internal)?;
    let ssh_key = new_ssh_key()?;
    let request = LoginRequest {
        proof,
        csr: tls_key.request_pem().map_err(internal)?,
        ssh_key: ssh_key.public_key().to_openssh().map_err(internal)?,
        clock: clock::now(),
    };
    let answer: LoginAnswer = api.send(Method::POST, path::LOGIN, &request).await?;
    let local_clock = clock::now();
    let answered_ca =
        CertificateDer::from_pem_slice(answer.ca.as_bytes()).map_err(|_| wrong_ca(api.relay()))?;
    if Fingerprint::of_certificate(&answered_ca) != ca {
        return Err(wrong_ca(api.relay()));
    }
    let record = context.home.keep(&NewLogin {
        relay: api.relay(),
        tls_key: &tls_key,
        ssh_key: &ssh_key,
        answer: &answer,
        local_clock,
    })?;
    #[derive(Serialize)]
    struct Done {
        user: String,
        relay: String,
        expires: u64,
        home: String,
    }
    let done = Done {
        user: record.user.to_string(),
        relay: record.relay.clone(),
        expires: record.expires.0,
        home: context.home.dir().display().to_string(),
    };
    output::show(context.format, &done, |done| {
        let left = span::rough(answer.expires.distance(answer.clock));
        format!("logged in to {} as {}, for {left}", done.relay, done.user)
    })
}

/// Whom to ask, with what, believing which CA.
async fn prepare(context: &Context, args: Args) -> Result<(Api, LoginProof, Fingerprint), Failure> {
    let pinned = context.home.pinned_ca()?;
    let last = if pinned.is_some() { context.home.login().ok() } else { None };
    let code = match (&args.code, &pinned) {
        (Some(code), _) => Some(Zeroizing::new(code.clone())),
        (None, None) if args.user.is_none() && !args.password_stdin => Some(ask_code().await?),
        (None, _) => None,
    };
    if let Some(code) = code {
        let invitation = Invitation::from_text(&code, Purpose::Login)
            .map_err(|e| Failure::new("code", e.to_string()))?;
        let relay: RelayAddress = invitation.relay.parse().map_err(|_| {
            Failure::new("code", "the code names no relay").remedy("ask for a new one")
        })?;
        if let Some(asked) = args.relay.filter(|asked| *asked != relay) {
            return Err(Failure::new("code", format!("this code is for {relay}, not for {asked}"))
                .remedy("leave the address out, or ask for a code of that relay"));
        }
        let password = new_password(args.password_stdin).await?;
        let proof = LoginProof::Code {
            secret: invitation.secret.to_hex(),
            new_password: password.to_string(),
        };
        return Ok((Api::first_contact(relay, invitation.ca)?, proof, invitation.ca));
    }
    let known = last.as_ref().map(|login| login.relay().clone());
    let no_code = |cause: String| {
        Failure::new("no-ca", cause)
            .remedy("ask an administrator for a login code and run: belay login --code CODE")
    };
    let (relay, ca) = match (args.relay, known, pinned) {
        (Some(asked), Some(known), _) if asked != known => {
            return Err(no_code(format!(
                "you have logged in to {known} only; nothing proves that {asked} is genuine"
            )));
        }
        (_, Some(known), Some(ca)) => (known, ca),
        (asked, _, _) => {
            let whom = asked.map_or_else(|| "a relay".into(), |relay| relay.to_string());
            return Err(no_code(format!("this is the first login, and nothing proves {whom}")));
        }
    };
    let user = match (args.user, last) {
        (Some(user), _) => user,
        (None, Some(last)) => last.record().user.clone(),
        (None, None) => {
            return Err(Failure::new("usage", "whose login is it?")
                .remedy("add --user NAME")
                .exit(EXIT_USAGE));
        }
    };
    let password = password(&user, args.password_stdin).await?;
    let fingerprint = Fingerprint::of_certificate(&ca);
    let proof = LoginProof::Password { user: user.to_string(), password: password.to_string() };
    Ok((Api::pinned(relay, ca)?, proof, fingerprint))
}

fn new_ssh_key() -> Result<PrivateKey, Failure> {
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(seed.as_mut_slice())
        .map_err(|_| Failure::new("internal", "no random numbers"))?;
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    key.set_comment("belay");
    Ok(key)
}

async fn ask_code() -> Result<Zeroizing<String>, Failure> {
    need_person("code", "add --code CODE, or put the code in BELAY_CODE")?;
    terminal::ask(|| dialoguer::Password::new().with_prompt("One-time code").report(false)).await
}

async fn new_password(stdin: bool) -> Result<Zeroizing<String>, Failure> {
    let password = if stdin {
        first_line()?
    } else {
        need_person("password", "add --password-stdin and give it there")?;
        output::note(format!("Choose a password of at least {MIN_PASSWORD} characters."));
        terminal::ask(|| {
            dialoguer::Password::new()
                .with_prompt("New password")
                .with_confirmation("Once more", "the two are not the same")
                .validate_with(|password: &String| check(password))
                .report(false)
        })
        .await?
    };
    check(&password).map_err(|e| Failure::new("password", e))?;
    Ok(password)
}

async fn password(user: &UserName, stdin: bool) -> Result<Zeroizing<String>, Failure> {
    if stdin {
        return first_line();
    }
    need_person("password", "add --password-stdin and give it there")?;
    let prompt = format!("Password of {user}");
    terminal::ask(move || dialoguer::Password::new().with_prompt(prompt).report(false)).await
}

fn need_person(what: &str, remedy: &str) -> Result<(), Failure> {
    if terminal::is_interactive() {
        return Ok(());
    }
    Err(Failure::new("usage", format!("cannot ask for the {what}: there is no terminal"))
        .remedy(remedy)
        .exit(EXIT_USAGE))
}

fn check(password: &str) -> Result<(), String> {
    let count = password.chars().count();
    if count < MIN_PASSWORD {
        return Err(format!(
            "the password has {count} characters; it must have at least {MIN_PASSWORD}"
        ));
    }
    if password.len() > MAX_PASSWORD {
        return Err(format!(
            "the password has {} bytes; it may have at most {MAX_PASSWORD}",
            password.len()
        ));
    }
    Ok(())
}

fn first_line() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    // One byte more than can be right, and the line's end.
    let limit = u64::try_from(MAX_PASSWORD).unwrap_or(u64::MAX).saturating_add(3);
    io::stdin().lock().take(limit).read_line(&mut line).map_err(|e| {
        Failure::new("input", format!("cannot read the password from standard input: {e}"))
    })?;
    let kept = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(kept);
    if line.is_empty() {
        return Err(Failure::new("password", "standard input holds no password")
            .remedy("write it there as the first line"));
    }
    if line.len() > MAX_PASSWORD {
        return Err(Failure::new("password", format!("the password is over {MAX_PASSWORD} bytes")));
    }
    Ok(line)
}

fn wrong_ca(relay: &RelayAddress) -> Failure {
    Failure::new("foreign-certificate", format!("{relay} answered with another CA than it showed"))
        .remedy("tell the relay's operator; nothing was kept")
}

fn internal(error: impl std::error::Error + 'static) -> Failure {
    Failure::new("internal", belay_proto::error_line::one_line(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_measured_before_it_is_sent() {
        assert!(check("short").is_err());
        assert!(check("ünïcödé passwörd").is_ok());
        assert!(check(&"ü".repeat(14)).is_err(), "characters count, not bytes");
        assert!(check(&"x".repeat(MAX_PASSWORD + 1)).is_err());
    }
}
