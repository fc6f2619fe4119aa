#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use belay_tunnel::pki::TlsKey;
use ssh_key::certificate::CertType;
use ssh_key::{Certificate, HashAlg, PublicKey};
use uuid::Uuid;

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn authority(dir: &Path) -> Authority {
    Authority::make(dir, "relay.test", NOW).unwrap()
}

fn ssh_public_key() -> String {
    let private = ssh::generate("test").unwrap();
    ssh_key::PrivateKey::from_openssh(&*private).unwrap().public_key().to_openssh().unwrap()
}

#[test]
fn keys_are_private_files_that_load_again_and_are_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let made = authority(dir.path());
    let loaded = Authority::load(dir.path(), "relay.test").unwrap();
    assert_eq!(made.fingerprint(), loaded.fingerprint());
    assert_eq!(made.ssh_user_cas(), loaded.ssh_user_cas());
    assert_eq!(made.grant_keys(), loaded.grant_keys());
    assert_ne!(made.ssh_user_cas(), made.ssh_host_cas());
    let keys = dir.path().join("keys");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&keys), 0o700);
    let mut files = 0;
    for file in fs::read_dir(&keys).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
        files += 1;
    }
    assert_eq!(files, 7);
    assert!(matches!(Authority::make(dir.path(), "x", NOW), Err(FilesError::Exists(_))));
    assert_eq!(Authority::load(dir.path(), "x").unwrap().fingerprint(), made.fingerprint());
}

#[test]
fn a_key_file_others_can_read_stops_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let key = dir.path().join("keys/grant.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Authority::load(dir.path(), "x"), Err(FilesError::NotPrivate(p)) if p == key));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "damaged").unwrap();
    assert!(Authority::load(dir.path(), "x").is_err());
    fs::remove_file(&key).unwrap();
    assert!(matches!(Authority::load(dir.path(), "x"), Err(FilesError::Read(..))));
}

#[test]
fn a_persons_ssh_certificate_has_one_principal_and_no_more_rights_than_meant() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let id = UserId::from_uuid(Uuid::from_u128(7));
    let request = TlsKey::generate().unwrap().request_der().unwrap();
    let name = "anna@example.com".parse().unwrap();
    let issued = authority.issue_user(id, &name, &request, &ssh_public_key(), NOW).unwrap();
    let ssh = Certificate::from_openssh(&issued.ssh_certificate).unwrap();
    assert_eq!(ssh.cert_type(), CertType::User);
    assert_eq!(ssh.valid_principals(), ["anna@example.com"]);
    assert_eq!((ssh.valid_after(), ssh.valid_before()), (NOW.0 - 300, NOW.0 + 12 * 3600));
    assert!(ssh.critical_options().is_empty());
    let extensions: Vec<_> = ssh.extensions().keys().map(String::as_str).collect();
    assert_eq!(extensions, EXPECTED_EXTENSIONS);
    let ca = |lines: Vec<String>| {
        let line = lines.into_iter().next().unwrap();
        PublicKey::from_openssh(&line).unwrap().fingerprint(HashAlg::Sha256)
    };
    ssh.validate_at(NOW.0, &[ca(authority.ssh_user_cas())]).unwrap();
    assert!(ssh.validate_at(NOW.0, &[ca(authority.ssh_host_cas())]).is_err());
    assert!(ssh.validate_at(NOW.0 + 13 * 3600, &[ca(authority.ssh_user_cas())]).is_err());
    let x509 = PeerCertificate::from_der(&issued.certificate).unwrap();
    assert_eq!(x509.identity, Identity::User { id, name });
    assert_eq!(x509.not_after, issued.expires);
}

const EXPECTED_EXTENSIONS: [&str; 3] =
    ["permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];

#[test]
fn a_devices_host_certificate_answers_to_name_and_id() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let id = DeviceId::from_uuid(Uuid::from_u128(9));
    let request = TlsKey::generate().unwrap().request_der().unwrap();
    let name = "pump-17".parse().unwrap();
    let issued = authority.issue_device(id, &name, &request, &ssh_public_key(), NOW).unwrap();
    let ssh = Certificate::from_openssh(&issued.ssh_certificate).unwrap();
    assert_eq!(ssh.cert_type(), CertType::Host);
    let by_id = id.to_string();
    let with_domain = format!("{id}.belay");
    assert_eq!(ssh.valid_principals(), ["pump-17", "pump-17.belay", &by_id, &with_domain]);
    assert!(ssh.extensions().is_empty());
    assert_eq!(ssh.valid_before(), NOW.plus(90 * DAY).0);
}

#[test]
fn only_modern_ssh_keys_and_requests_with_proof_are_certified() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let request = TlsKey::generate().unwrap().request_der().unwrap();
    let name: UserName = "anna".parse().unwrap();
    let id = UserId::from_uuid(Uuid::from_u128(7));
    for good in [ssh_public_key(), p256_public_key()] {
        assert!(authority.issue_user(id, &name, &request, &good, NOW).is_ok(), "{good}");
    }
    let dsa = "ssh-dss AAAAB3NzaC1kc3MAAACBAA==";
    for bad in [dsa, "", "ssh-ed25519", "ssh-ed25519 AAAA", "hello", &"x".repeat(5000)] {
        let refused = authority.issue_user(id, &name, &request, bad, NOW);
        assert!(matches!(refused, Err(IssueError::Ssh(SshError::Key))), "{bad}");
    }
    let mut forged = request.clone();
    *forged.last_mut().unwrap() ^= 1;
    let refused = authority.issue_user(id, &name, &forged, &ssh_public_key(), NOW);
    assert_eq!(Refused::from(&refused.unwrap_err()).code(), Code::BadRequest);
}

fn p256_public_key() -> String {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let point = ssh_key::public::EcdsaPublicKey::from_sec1_bytes(key.public_key().as_ref());
    PublicKey::from(ssh_key::public::KeyData::Ecdsa(point.unwrap())).to_openssh().unwrap()
}

#[test]
fn the_relays_certificate_renews_at_two_thirds_and_when_the_clock_went_back() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = RelayCertificate::new(authority(dir.path()).into(), NOW).unwrap();
    assert_eq!(certificate.ends(), NOW.plus(30 * DAY));
    assert!(!certificate.renew_if_due(NOW.plus(19 * DAY)).unwrap());
    assert_eq!(certificate.ends(), NOW.plus(30 * DAY));
    assert!(certificate.renew_if_due(NOW.plus(21 * DAY)).unwrap());
    assert_eq!(certificate.ends(), NOW.plus(51 * DAY));
    assert!(!certificate.renew_if_due(NOW.plus(21 * DAY)).unwrap());
    assert!(certificate.renew_if_due(NOW).unwrap(), "made in what is now the future");
}

#[test]
fn pem_is_read_back_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let pem = certificate_to_pem(authority.ca());
    assert_eq!(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(), *authority.ca());
    assert!(pem.lines().all(|line| line.len() <= 64));
    let request = TlsKey::generate().unwrap();
    let der = request_from_pem(&request.request_pem().unwrap()).unwrap();
    assert!(belay_tunnel::pki::requested_key_digest(&der).is_ok());
    assert!(request_from_pem("-----BEGIN CERTIFICATE REQUEST-----").is_err());
}
