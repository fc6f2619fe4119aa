#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use belay_proto::api::LoginAnswer;
use belay_proto::ids::UserId;
use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use belay_tunnel::pki::{CertificateAuthority, Identity, TlsKey};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

use super::*;

fn ssh_key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn answer(ssh_key_for: &PrivateKey, tls: &TlsKey, expires: UnixTime) -> LoginAnswer {
    let now = clock::now();
    let (ca, _) = CertificateAuthority::generate("relay.test", now).unwrap();
    let id: UserId = "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e".parse().unwrap();
    let identity = Identity::User { id, name: "anna".parse().unwrap() };
    let leaf = ca
        .issue_for_request(&tls.request_der().unwrap(), &identity, now, Duration::from_secs(60))
        .unwrap();
    let mut builder =
        Builder::new(vec![1; 16], ssh_key_for.public_key(), now.0 - 60, now.0 + 60).unwrap();
    builder.cert_type(CertType::User).unwrap();
    builder.valid_principal("anna").unwrap();
    let user_ca = ssh_key(2);
    LoginAnswer {
        user: "anna".parse().unwrap(),
        user_id: id,
        certificate: pem("CERTIFICATE", &leaf),
        ssh_certificate: builder.sign(&user_ca).unwrap().to_openssh().unwrap(),
        ca: pem("CERTIFICATE", ca.certificate()),
        ssh_host_cas: vec![ssh_key(3).public_key().to_openssh().unwrap()],
        expires,
        clock: now,
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64ish::encode;
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", encode(der))
}

/// Base64 for the test's PEM, by the encoder ssh-key brings along.
mod base64ish {
    pub(super) fn encode(der: &[u8]) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for chunk in der.chunks(3) {
            let mut word = [0u8; 3];
            word[..chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes([0, word[0], word[1], word[2]]);
            for i in 0..4 {
                if i <= chunk.len() {
                    let index = (bits >> (18 - 6 * i)) & 63;
                    out.push(char::from(ALPHABET[index as usize]));
                } else {
                    out.push('=');
                }
            }
        }
        out
    }
}

struct Kept {
    home: Home,
    _dir: tempfile::TempDir,
}

fn keep(expires_in: i64) -> Kept {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::locate(Some(&dir.path().join("home"))).unwrap();
    let (tls, ssh) = (TlsKey::generate().unwrap(), ssh_key(1));
    let expires = clock::now().corrected(expires_in);
    let answer = answer(&ssh, &tls, expires);
    home.keep(&NewLogin {
        relay: &"relay.test:8443".parse().unwrap(),
        tls_key: &tls,
        ssh_key: &ssh,
        answer: &answer,
        local_clock: clock::now(),
    })
    .unwrap();
    Kept { home, _dir: dir }
}

#[test]
fn everything_kept_is_private_to_its_owner_and_reads_back() {
    let kept = keep(3600);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(kept.home.dir()), 0o700);
    for entry in fs::read_dir(kept.home.dir()).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let login = kept.home.live_login().unwrap();
    assert_eq!(login.relay().to_string(), "relay.test:8443");
    assert_eq!(login.record().user.as_str(), "anna");
    assert_eq!(login.tls_identity().unwrap().0.len(), 1);
    login.ca().unwrap();
    login.ssh_identity().unwrap();
    assert_eq!(login.ssh_host_cas().unwrap().len(), 1);
    let known = fs::read_to_string(kept.home.path(File::KnownHosts)).unwrap();
    assert!(known.starts_with("@cert-authority *.belay ssh-ed25519 "), "{known}");
}

#[test]
fn an_expired_login_says_since_when_and_what_to_do() {
    let kept = keep(-3 * 3600);
    let failure = kept.home.live_login().unwrap_err();
    assert_eq!(failure.to_string(), "your login expired 3 h ago; run: belay login");
    assert_eq!(failure.token(), "login-expired");
    kept.home.login().unwrap();
}

#[test]
fn no_login_at_all_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let failure = Home::locate(Some(dir.path())).unwrap().login().unwrap_err();
    assert_eq!(failure.token(), "not-logged-in");
    assert!(failure.to_string().contains("belay login --code CODE"));
}

#[test]
fn a_home_open_to_others_is_not_used() {
    let kept = keep(3600);
    fs::set_permissions(kept.home.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let failure = kept.home.login().unwrap_err();
    assert_eq!(failure.token(), "home-open");
    assert!(failure.to_string().contains("chmod 700"));
}

#[test]
fn a_login_cut_short_between_key_and_certificate_is_found_out() {
    let kept = keep(3600);
    let other = ssh_key(9).to_openssh(LineEnding::LF).unwrap();
    kept.home.write(File::SshKey, other.as_bytes()).unwrap();
    let failure = kept.home.login().unwrap().ssh_identity().err().unwrap();
    assert_eq!(failure.token(), "home-damaged");
}

#[test]
fn damaged_and_foreign_records_are_refused_in_one_line() {
    let kept = keep(3600);
    for bad in ["", "{}", "[]", "{\"layout\":", "\u{1b}[2J"] {
        kept.home.write(File::Login, bad.as_bytes()).unwrap();
        let failure = kept.home.login().unwrap_err();
        assert_eq!(failure.token(), "home-damaged", "{bad:?}");
        assert_eq!(failure.to_string().lines().count(), 1);
    }
    kept.home.write(File::Login, &vec![b' '; 100_000]).unwrap();
    assert_eq!(kept.home.login().unwrap_err().token(), "home-damaged");
}

#[test]
fn an_answer_for_another_key_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::locate(Some(&dir.path().join("home"))).unwrap();
    let tls = TlsKey::generate().unwrap();
    let answer = answer(&ssh_key(8), &tls, clock::now());
    let kept = home.keep(&NewLogin {
        relay: &"relay.test".parse().unwrap(),
        tls_key: &tls,
        ssh_key: &ssh_key(1),
        answer: &answer,
        local_clock: clock::now(),
    });
    assert_eq!(kept.unwrap_err().token(), "protocol");
    assert!(!home.dir().exists());
}
