//! `init` and `code`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use belay_proto::error_line::one_line;
use belay_proto::token::{Invitation, Purpose};
use belay_relay::ca::Authority;
use belay_relay::config::Config;
use belay_relay::init::{InitError, Wanted, code, init};
use belay_relay::store::Store;
use belay_tunnel::clock;

fn wanted(data: &Path) -> Wanted {
    Wanted {
        data: data.to_owned(),
        address: "relay.test:8443".parse().unwrap(),
        listen: "[::1]:8443".parse().unwrap(),
        admin: "anna".parse().unwrap(),
    }
}

#[tokio::test]
async fn init_makes_a_deployment_whose_code_is_good_for_its_ca() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    let way_in = init(&wanted(&data)).await.unwrap();
    let invitation = Invitation::from_text(&way_in.code, Purpose::Login).unwrap();
    let config = Config::load(&data).unwrap();
    let authority = Authority::load(&data, config.address.host()).unwrap();
    assert_eq!(invitation.relay, "relay.test:8443");
    assert_eq!(invitation.ca, authority.fingerprint());
    let store = Store::open(&data).await.unwrap();
    let digest = invitation.secret.digest();
    let admin = store.check_code(digest, clock::now()).await.unwrap();
    assert_eq!(admin.name.as_str(), "anna");
    let kinds: Vec<_> = store.decisions(0).await.unwrap().into_iter().map(|d| d.kind).collect();
    assert_eq!(kinds, ["initialised", "user-added", "code-created"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    store.close().await;

    let second = code(&data, "anna".parse().unwrap()).await.unwrap();
    let second = Invitation::from_text(&second.code, Purpose::Login).unwrap();
    let store = Store::open(&data).await.unwrap();
    assert!(store.check_code(digest, clock::now()).await.is_err(), "replaced");
    assert!(store.check_code(second.secret.digest(), clock::now()).await.is_ok());
    assert_eq!(store.decisions(0).await.unwrap().pop().unwrap().kind, "code-created");
    assert!(matches!(code(&data, "eve".parse().unwrap()).await, Err(InitError::User(_))));
}

#[tokio::test]
async fn init_overwrites_nothing_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    init(&wanted(&data)).await.unwrap();
    let ca = || Authority::load(&data, "x").unwrap().fingerprint();
    let before = ca();
    let again = init(&wanted(&data)).await.unwrap_err();
    assert!(matches!(again, InitError::Exists(_)));
    assert!(one_line(&again).contains("belay-relay run --data"), "{again}");
    assert_eq!(ca(), before);
    for stray in ["keys", "belay.db"] {
        let data = dir.path().join(format!("with-{stray}"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join(stray), "precious").unwrap();
        assert!(matches!(init(&wanted(&data)).await, Err(InitError::InTheWay(_))));
        assert_eq!(fs::read(data.join(stray)).unwrap(), b"precious");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn init_that_fails_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    // A directory where the store's file would have to be made, made in the way after the check.
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let under_a_file = wanted(&file.join("data"));
    assert!(matches!(init(&under_a_file).await, Err(InitError::Directory(..))));
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::create_dir(data.join("belay.db-wal")).unwrap();
    assert!(init(&wanted(&data)).await.is_err());
    assert!(!data.join("keys").exists() && !data.join("relay.toml").exists());
    assert!(!data.join("belay.db").exists());
}

#[tokio::test]
async fn a_missing_deployment_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let error = code(dir.path(), "anna".parse().unwrap()).await.unwrap_err();
    assert!(one_line(&error).contains("belay-relay init"), "{error}");
}
