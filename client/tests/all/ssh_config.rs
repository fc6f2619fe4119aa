use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::Place;

#[test]
fn the_block_is_printed_and_changes_nothing() {
    let place = Place::new();
    let ran = place.belay(&["ssh-config"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.out.contains("Host *.belay\n"));
    assert!(ran.out.contains("proxy --login '%r' '%h'"), "{}", ran.out);
    assert!(!ran.out.contains("--home"), "the default home needs no flag");
    assert!(!place.user_home().join(".ssh").exists());
}

#[test]
fn another_home_is_carried_into_the_proxy_command() {
    let place = Place::new();
    let home = place.dir.path().join("my home");
    let ran = place.belay(&["ssh-config", "--home", home.to_str().unwrap()]);
    assert!(ran.out.contains(&format!("--home '{}' proxy", home.display())), "{}", ran.out);
}

#[test]
fn installing_twice_is_installing_once() {
    let place = Place::new();
    for round in 0..2 {
        let ran = place.belay(&["ssh-config", "--install", "--json"]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        let done: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(done["changed"], round == 0);
    }
    let config = place.user_home().join(".ssh/config");
    let text = fs::read_to_string(&config).unwrap();
    assert_eq!(text.matches("Include").count(), 1, "{text}");
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    let home = place.user_home().join(".local/state/belay");
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(home.join("ssh_config")).unwrap().permissions().mode() & 0o777, 0o600);
}
