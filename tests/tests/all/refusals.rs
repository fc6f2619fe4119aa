//! Everything that must be refused: one line with cause and remedy, and an entry in the store.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use belay_proto::ids::UserId;
use belay_proto::time::UnixTime;
use belay_proto::token::{Invitation, Purpose};
use belay_proto::wire::control::Hello;
use belay_relay::ca::Authority;
use belay_tests::world::{
    DEVICE, Identity, Outcome, PASSWORD, World, binary, honest_hello, run, run_with_input,
};
use belay_tunnel::clock;

/// Failed with this status, in one line of `belay` that says each of these.
fn refused(ran: &Outcome, status: i32, says: &[&str]) -> Result<()> {
    let ran = ran.clone().expect_status(status)?;
    let lines: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("belay")).collect();
    ensure!(lines.len() == 1, "not one line: {}", ran.stderr);
    for word in says {
        ensure!(lines[0].contains(word), "{word:?} is not in: {}", lines[0]);
    }
    Ok(())
}

fn exec(world: &World, user: &str, arguments: &[&str]) -> Result<Outcome> {
    run(&mut world.belay_as(user, &[&["exec"], arguments, &["--", "true"]].concat()))
}

#[test]
fn what_a_role_does_not_allow_is_refused_and_recorded() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("olga", &["--role", "engineer", "--label", "site=oslo", "--login", "nobody"])?;

    // The role without the label: the device is not even there for her.
    refused(&exec(&world, "olga", &[DEVICE])?, 255, &["no device \"demo\"", "belay devices"])?;
    ensure!(world.recorded("session-refused", Some("unknown-device"))?, "not recorded");
    let listed = run(world.belay_as("olga", &["devices"]).arg("--json"))?.success()?;
    ensure!(!listed.stdout.contains(DEVICE), "she sees it: {}", listed.stdout);

    run(&mut world.belay(&["device", "label", DEVICE, "site=oslo"]))?.success()?;
    refused(&exec(&world, "olga", &[DEVICE])?, 255, &["login \"root\"", "nobody"])?;
    ensure!(world.recorded("session-refused", Some("login-not-allowed"))?, "not recorded");

    refused(&exec(&world, "admin", &["no-such-device"])?, 255, &["no device", "belay devices"])?;
    refused(
        &exec(&world, "admin", &[DEVICE, "--login", "no-such-login"])?,
        255,
        &["no-such-login"],
    )?;

    // An engineer administers nothing.
    for arguments in [
        &["token", "create", "--name", "x"][..],
        &["user", "add", "eve", "--role", "admin"],
        &["device", "quarantine", DEVICE],
        &["device", "rename", DEVICE, "mine"],
    ] {
        let ran = run(&mut world.belay_as("olga", arguments))?;
        refused(&ran, 1, &["role"]).with_context(|| format!("{arguments:?}"))?;
    }
    ensure!(world.recorded("request-refused", Some("not-allowed"))?, "not recorded");

    // Offline: since when, and why.
    world.agents.remove(DEVICE);
    world.wait_offline(DEVICE)?;
    refused(&exec(&world, "admin", &[DEVICE])?, 255, &["offline for", "("])?;
    ensure!(world.recorded("session-refused", Some("device-offline"))?, "not recorded");
    Ok(())
}

#[test]
fn a_quarantined_device_is_cut_at_once_and_a_disabled_person_too() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let mut shell =
        world.lab.spawn("session", world.belay(&["exec", DEVICE, "--", "echo in; sleep 600"]))?;
    shell.wait_for_log("in", std::time::Duration::from_secs(20))?;
    run(&mut world.belay(&["device", "quarantine", DEVICE]))?.success()?;
    let ended = shell.wait(std::time::Duration::from_secs(2))?;
    assert_eq!(ended.code(), Some(255), "{}", shell.log());
    ensure!(shell.log().contains("quarantined"), "it does not say why: {}", shell.log());
    refused(&exec(&world, "admin", &[DEVICE])?, 255, &["quarantined", "activate"])?;
    ensure!(world.recorded("session-refused", Some("device-quarantined"))?, "not recorded");
    world.wait_for("the device's refused line is recorded", || {
        world.recorded("line-refused", Some("device-quarantined"))
    })?;
    run(&mut world.belay(&["device", "activate", DEVICE]))?.success()?;
    world.wait_online(DEVICE)?;

    world.add_user("olga", &["--role", "admin"])?;
    let command = world.belay_as("olga", &["exec", DEVICE, "--", "echo in; sleep 600"]);
    let mut session = world.lab.spawn("olga", command)?;
    session.wait_for_log("in", std::time::Duration::from_secs(20))?;
    run(&mut world.belay(&["user", "disable", "olga"]))?.success()?;
    let ended = session.wait(std::time::Duration::from_secs(2))?;
    assert_eq!(ended.code(), Some(255), "{}", session.log());
    refused(&exec(&world, "olga", &[DEVICE])?, 255, &["disabled"])?;
    ensure!(world.recorded("client-refused", Some("user-disabled"))?, "not recorded");

    run(&mut world.belay(&["device", "decommission", DEVICE]))?.success()?;
    world.wait_for("the line is refused for good", || {
        world.recorded("line-refused", Some("device-decommissioned"))
    })?;
    world.agents.clear();
    Ok(())
}

#[test]
fn tokens_and_codes_that_are_no_good_are_told_apart() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let enrol = |device: &str, token: &str| run(&mut world.enrol(device, "device", token));
    let used = world.token(&["--name", "one"])?;
    enrol("one", &used)?.success()?;
    refused(&enrol("two", &used)?, 1, &["token", "no uses left", "new"])?;
    ensure!(world.recorded("enrol-refused", Some("token-used-up"))?, "not recorded");

    let late = world.belay_json(&["token", "create", "--name", "late", "--expires", "1s"])?;
    let ends = UnixTime(late["expires"].as_u64().context("no end")?);
    world.wait_for("the token has ended", || Ok(clock::now() > ends))?;
    let late = late["token"].as_str().context("no token")?;
    refused(&enrol("late", late)?, 1, &["token ended", "new"])?;
    ensure!(world.recorded("enrol-refused", Some("token-expired"))?, "not recorded");

    let mut mistyped = world.token(&["--name", "typo"])?;
    let at = mistyped.len() - 3..mistyped.len() - 2;
    let other = if &mistyped[at.clone()] == "A" { "B" } else { "A" };
    mistyped.replace_range(at, other);
    refused(&enrol("typo", &mistyped)?, 1, &["mistyped"])?;

    // A token whose digits fit and whose secret is nobody's.
    let good = world.token(&["--name", "guess"])?;
    let mut invitation = Invitation::from_text(&good, Purpose::Enrol)?;
    invitation.secret = belay_proto::token::Secret::from_bytes([9; 20]);
    refused(&enrol("guess", &invitation.to_text(Purpose::Enrol)?)?, 1, &["token"])?;
    ensure!(world.recorded("enrol-refused", Some("wrong-secret"))?, "not recorded");

    // With another relay's fingerprint: nothing is sent at all.
    invitation.ca = belay_proto::token::Fingerprint::of_certificate(b"another CA");
    refused(&enrol("mitm", &invitation.to_text(Purpose::Enrol)?)?, 1, &["does not show"])?;

    let misnamed = world.token(&["--name", "pump-*"])?;
    let mut command = world.enrol("misnamed", "device", &misnamed);
    refused(&run(command.args(["--name", "fan-1"]))?, 1, &["name"])?;
    ensure!(world.recorded("enrol-refused", Some("name-refused"))?, "not recorded");

    let mut login = world.belay_as("admin", &["login", "--user", "admin", "--password-stdin"]);
    refused(&run_with_input(&mut login, b"not the password at all\n")?, 1, &["password"])?;
    ensure!(world.recorded("login-refused", Some("wrong-secret"))?, "not recorded");
    let added = world.belay_json(&["user", "add", "nils", "--role", "admin"])?;
    let code = added["login_code"].as_str().context("no code")?.to_owned();
    world.log_in("nils", Some(&code))?;
    let mut again = world.belay_as("nils2", &["login", "--password-stdin", "--code", &code]);
    refused(&run_with_input(&mut again, format!("{PASSWORD}\n").as_bytes())?, 1, &["code"])?;
    Ok(())
}

/// Puts other certificates in a person's home, made by `make`, and says what `exec` says then.
fn with_certificates(
    world: &World,
    user: &str,
    make: impl FnOnce(&Authority, &[u8], &str) -> Result<(Vec<u8>, String)>,
) -> Result<Outcome> {
    let home = world.home(user);
    let authority = Authority::load(&world.relay_data(), "relay.lab")?;
    let tls = home.join("tls.pem");
    let key = belay_tunnel::pki::TlsKey::from_pem(&fs::read_to_string(&tls)?)?;
    let ssh_key = fs::read_to_string(home.join("id_ed25519.pub"))?;
    let (certificate, ssh) = make(&authority, &key.request_der()?, ssh_key.trim())?;
    let pem = belay_tunnel::pki::certificate_to_pem(&certificate);
    fs::write(tls, format!("{}{pem}", *key.to_pem()))?;
    fs::write(home.join("id_ed25519-cert.pub"), format!("{ssh}\n"))?;
    exec(world, user, &[DEVICE])
}

#[test]
fn certificates_that_prove_nothing_are_refused_in_words() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("olga", &["--role", "admin"])?;
    let who = run(world.belay_as("olga", &["whoami"]).arg("--json"))?.success()?.json()?;
    let id: UserId = who["user_id"].as_str().context("no id")?.parse()?;
    let day = std::time::Duration::from_secs(24 * 3600);
    let now = clock::now();

    let expired = with_certificates(&world, "olga", |ca, request, ssh| {
        let issued = ca.issue_user(id, &"olga".parse()?, request, ssh, now.minus(day))?;
        Ok((issued.certificate.to_vec(), issued.ssh_certificate))
    })?;
    refused(&expired, 255, &["expired", "belay login"])?;
    ensure!(world.recorded("client-refused", Some("certificate-expired"))?, "not recorded");

    let early = with_certificates(&world, "olga", |ca, request, ssh| {
        let issued = ca.issue_user(id, &"olga".parse()?, request, ssh, now.plus(day))?;
        Ok((issued.certificate.to_vec(), issued.ssh_certificate))
    })?;
    refused(&early, 255, &["good in", "clock"])?;
    ensure!(world.recorded("client-refused", Some("certificate-not-yet-valid"))?, "not recorded");

    // Of another deployment altogether.
    let elsewhere = world.path("elsewhere");
    fs::create_dir_all(&elsewhere)?;
    let foreign_ca = Authority::make(&elsewhere, "relay.lab", now)?;
    let foreign = with_certificates(&world, "olga", |_, request, ssh| {
        let issued = foreign_ca.issue_user(id, &"olga".parse()?, request, ssh, now)?;
        Ok((issued.certificate.to_vec(), issued.ssh_certificate))
    })?;
    refused(&foreign, 255, &["certificate", "belay login"])?;
    world.wait_for("the foreign certificate is recorded", || {
        world.recorded("peer-refused", Some("foreign-certificate"))
    })?;

    // The X.509 certificate is hers, the SSH certificate is somebody else's: the second lock.
    let borrowed = with_certificates(&world, "olga", |ca, request, ssh| {
        let hers = ca.issue_user(id, &"olga".parse()?, request, ssh, now)?;
        let other = ca.issue_user(id, &"eve".parse()?, request, ssh, now)?;
        Ok((hers.certificate.to_vec(), other.ssh_certificate))
    })?;
    refused(&borrowed, 255, &["certificate", "belay login"])?;

    // A person's SSH certificate signed by another deployment's CA.
    let wrong_ssh_ca = with_certificates(&world, "olga", |ca, request, ssh| {
        let hers = ca.issue_user(id, &"olga".parse()?, request, ssh, now)?;
        let other = foreign_ca.issue_user(id, &"olga".parse()?, request, ssh, now)?;
        Ok((hers.certificate.to_vec(), other.ssh_certificate))
    })?;
    ensure!(wrong_ssh_ca.status == Some(255), "{wrong_ssh_ca:?}");
    Ok(())
}

#[test]
fn a_persons_wrong_clock_is_named_and_a_devices_is_shown_and_forgiven() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    if run(Command::new("faketime").args(["-f", "+0", "true"])).is_err() {
        belay_tests::lab::loud("SKIPPED clock test: faketime is not installed");
        return Ok(());
    }
    let mut ahead = world.lab.ns("laptop").command("faketime");
    ahead.args(["-f", "+2h"]).arg(binary("belay")).args(["exec", DEVICE, "--", "true"]);
    let ran = run(ahead.env("BELAY_HOME", world.home("admin")))?;
    refused(&ran, 255, &["clock", "ahead"])?;
    ensure!(world.recorded("client-refused", Some("clock-wrong"))?, "not recorded");

    // A device that woke in 1971 or 2100 is welcomed, told the relay's time, and shown as off.
    world.agents.remove(DEVICE);
    world.wait_offline(DEVICE)?;
    let credentials = world.credentials(Identity::Device)?;
    for (theirs, sign) in [(UnixTime(31_536_000), -1), (UnixTime(4_102_444_800), 1)] {
        world.inside("device", || async {
            let peer = credentials.dial().await?;
            let hello = Hello { clock: Some(theirs), ..honest_hello() };
            let (answer, _send, _recv) = peer.greet(&hello).await?;
            let welcome = answer.clone().welcome.with_context(|| format!("{answer:?}"))?;
            ensure!(welcome.clock.distance(clock::now()).as_secs() < 60, "not the relay's time");
            // The welcome leaves the relay a little before the line stands in the list.
            world.wait_for("it is shown how far its clock is off", || {
                let shown = world.device(DEVICE)?;
                let off = shown["line"]["clock_ahead_s"].as_i64();
                Ok(off.is_some_and(|off| off.signum() == sign && off.abs() > 1_000_000))
            })
        })?;
    }
    Ok(())
}
