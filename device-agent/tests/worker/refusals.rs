//! What is refused, and that the engineer can read why.

use std::process::Command;

use crate::rig::{AGENT, Output, Rig, have_ssh, run};

/// ssh with a terminal's courtesy: without `BatchMode` it shows the reason.
#[track_caller]
fn refused(rig: &Rig, worker: &[&str], client: &[&str]) -> Output {
    let out = rig.ssh_with(
        worker,
        &[&["-oLogLevel=INFO", "-oNumberOfPasswordPrompts=1"], client].concat(),
        "true",
    );
    assert_eq!(out.code(), Some(255), "{}", out.stderr);
    out
}

#[test]
fn certificates_that_do_not_fit_are_refused_with_the_reason() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let cases: [(&str, &[&str], &str); 6] = [
        ("other-ca", &["-n", "ada"], "authority this device does not trust"),
        ("host", &["-n", "ada"], "authority this device does not trust"),
        ("ca", &["-n", "bob"], "is for `bob`, the grant for `ada`"),
        ("ca", &["-n", "ada", "-O", "force-command=true"], "`force-command`"),
        ("ca", &["-n", "ada", "-V", "-2h:-1h"], "expired"),
        ("ca", &["-n", "ada", "-V", "+1h:+2h"], "not valid yet"),
    ];
    for (authority, options, reason) in cases {
        rig.certify(authority, options);
        let out = refused(&rig, &[], &[]);
        assert!(out.stderr.contains(reason), "{options:?}: {}", out.stderr);
        assert!(out.stderr.contains("belay"), "no remedy: {}", out.stderr);
    }
    rig.certify("ca", &["-n", "ada"]);
    rig.ssh("true").ok();
}

#[test]
fn the_relays_clock_decides_not_the_devices() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    rig.certify("ca", &["-n", "ada", "-V", "+1d:+2d"]);
    refused(&rig, &[], &[]);
    rig.ssh_with(&["--clock-correction 90000"], &[], "true").ok();
    refused(&rig, &["--clock-correction 180000"], &[]);
    rig.certify("ca", &["-n", "ada", "-V", "19720101:19730101"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    rig.ssh_with(&[&format!("--clock-correction -{}", now - 70_000_000)], &[], "true").ok();
}

#[test]
fn another_login_and_another_user_name_are_refused() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let out = refused(&rig, &[], &["-lsomeone"]);
    assert!(out.stderr.contains("the grant is for login"), "{}", out.stderr);
}

#[test]
fn a_plain_key_opens_a_session_only_where_it_was_named() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let plain = |options: &[&str]| {
        let config = rig.config("plain", options);
        run(
            Command::new("ssh").arg("-F").arg(config).args(["-oLogLevel=INFO", "x", "true"]),
            vec![],
        )
    };
    plain(&[]).ok();
    std::fs::write(rig.path("authorized"), "").unwrap();
    let out = plain(&[]);
    assert_eq!(out.code(), Some(255));
    assert!(out.stderr.contains("without a certificate"), "{}", out.stderr);
}

#[test]
fn what_the_grant_does_not_allow_does_not_open() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let only = |action: &str, client: &[&str], command: &str| {
        rig.ssh_with(
            &[&format!("--action {action}")],
            &[&["-oLogLevel=INFO"], client].concat(),
            command,
        )
    };
    let out = only("shell", &[], "echo no");
    assert!(!out.status.success() && out.text().is_empty());
    assert!(out.stderr.contains("does not allow `exec`"), "{}", out.stderr);

    let out = only("exec", &["-s"], "sftp");
    assert!(!out.status.success());
    assert!(out.stderr.contains("does not allow `sftp`"), "{}", out.stderr);

    let out = only("exec", &["-W127.0.0.1:9"], "");
    assert!(!out.status.success());
    assert!(out.stderr.contains("does not allow `forward`"), "{}", out.stderr);

    let out = only("exec", &["-oExitOnForwardFailure=yes", "-R0:127.0.0.1:9"], "true");
    assert!(!out.status.success());

    only("exec", &[], "true").ok();
    only("exec", &["-X"], "true").ok();
}

#[test]
fn a_certificate_without_a_permission_restricts_a_grant_with_it() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    rig.certify("ca", &["-n", "ada", "-O", "clear"]);
    rig.ssh("true").ok();
    let out = rig.ssh_with(&[], &["-oLogLevel=INFO", "-W127.0.0.1:9"], "");
    assert!(out.stderr.contains("does not permit port forwarding"), "{}", out.stderr);
    let out = rig.ssh_with(&[], &["-oLogLevel=INFO", "-tt"], "tty");
    assert!(out.stderr.contains("PTY allocation request failed"), "{}", out.stderr);
}

#[test]
fn forwards_beneath_the_device_are_refused() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    for (target, reason) in [
        ("127.0.0.1:22", "own SSH server"),
        ("localhost:22", "own SSH server"),
        ("169.254.169.254:80", "link-local"),
        ("0.0.0.0:80", "no address of a host"),
        ("[::ffff:169.254.169.254]:80", "link-local"),
    ] {
        let out = rig.ssh_with(&[], &["-oLogLevel=INFO", &format!("-W{target}")], "");
        assert!(!out.status.success() && out.stderr.contains(reason), "{target}: {}", out.stderr);
    }
}

#[test]
fn a_session_ends_at_its_time_with_a_reason() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let out = rig.ssh_with(&["--lasts 1"], &["-oLogLevel=INFO"], "sleep 30");
    assert_eq!(out.code(), Some(255));
    assert!(out.stderr.contains("time is over"), "{}", out.stderr);
}

#[test]
fn standard_input_mode_does_not_run_under_a_supervisor() {
    let rig_free = tempfile::tempdir().unwrap();
    let key = rig_free.path().join("host");
    let out = run(
        Command::new(AGENT)
            .env("BELAY_SUPERVISED", "1")
            .args(["worker", "--stdio", "--host-key"])
            .arg(&key),
        vec![],
    );
    assert!(!out.status.success() && out.stderr.contains("supervisor"), "{}", out.stderr);
}
