use belay_proto::token::{Fingerprint, Invitation, Purpose, Secret};

use crate::support::Place;

fn invitation(relay: &str, purpose: Purpose) -> String {
    let invitation = Invitation {
        relay: relay.into(),
        ca: Fingerprint::of_certificate(b"a ca"),
        secret: Secret::from_bytes([7; 20]),
    };
    invitation.to_text(purpose).unwrap()
}

const PASSWORD: &[u8] = b"correct horse battery staple\n";

#[test]
fn help_lists_every_command_and_asks_nothing_of_the_home() {
    let ran = Place::new().belay(&["--help"]);
    assert_eq!(ran.status, 0);
    for command in [
        "login",
        "whoami",
        "devices",
        "shell",
        "exec",
        "proxy",
        "ssh-config",
        "token",
        "device",
        "user",
        "doctor",
        "completions",
    ] {
        assert!(ran.out.contains(&format!("  {command} ")), "{command} is missing:\n{}", ran.out);
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = Place::new().belay(&["completions", shell]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        assert!(ran.out.contains("ssh-config"), "{shell}");
    }
}

#[test]
fn a_wrong_command_line_is_status_2() {
    let place = Place::new();
    for args in [
        &["nonsense"][..],
        &["exec", "pump-17"],
        &["exec", "pump 17", "--", "true"],
        &["shell", "pump-17", "--login", "ro ot"],
        &["token", "create", "--expires", "soon"],
        &["token", "create", "--expires", "900d"],
        &["token", "create", "--uses", "0"],
        &["token", "create", "--label", "site=a", "--label", "site=b"],
        &["device", "rename", "pump-17", "Pump 18"],
        &["device", "label", "pump-17"],
        &["user", "add", "anna", "--role", "engineer"],
        &["login", "relay.example.com", "--code", "x", "--user", "anna"],
        &["login", "relay.example.com:0"],
    ] {
        let ran = place.belay(args);
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?}");
    }
}

#[test]
fn without_a_login_every_command_says_how_to_get_one() {
    let place = Place::new();
    for (args, status) in [
        (&["devices"][..], 1),
        (&["whoami"], 1),
        (&["token", "create"], 1),
        (&["device", "quarantine", "pump-17"], 1),
        (&["user", "list"], 1),
        (&["shell", "pump-17"], 255),
        (&["exec", "pump-17", "--", "true"], 255),
        (&["proxy", "pump-17.belay"], 255),
    ] {
        let ran = place.belay(args);
        assert_eq!(ran.status, status, "{args:?}: {}", ran.err);
        assert_eq!(
            ran.complaint(),
            "belay: you are not logged in; ask an administrator for a login code and run: \
             belay login --code CODE",
            "{args:?}"
        );
    }
}

#[test]
fn with_json_an_error_is_one_object_on_standard_error() {
    let ran = Place::new().belay(&["devices", "--json"]);
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    let error: serde_json::Value = serde_json::from_str(ran.complaint()).unwrap();
    assert_eq!(error["error"]["code"], "not-logged-in");
    assert!(error["error"]["remedy"].as_str().unwrap().contains("belay login"));
}

#[test]
fn a_mistyped_a_foreign_and_a_wrong_code_are_told_apart() {
    let place = Place::new();
    let code = invitation("relay.example.com:443", Purpose::Login);
    let mistyped = code.replace("belay-code-o", "belay-code-p");
    assert_ne!(mistyped, code);
    let token = invitation("relay.example.com:443", Purpose::Enrol);
    for (code, says) in [
        (mistyped.as_str(), "mistyped or cut short"),
        (&code[..code.len() - 4], "mistyped or cut short"),
        (token.as_str(), "this is an enrolment token; a login code is needed here"),
        ("hello", "this is not a login code"),
        ("", "this is not a login code"),
    ] {
        let ran = place.belay_with(&["login", "--password-stdin", "--code", code], PASSWORD);
        assert_eq!(ran.status, 1, "{}", ran.err);
        assert!(ran.complaint().contains(says), "{}", ran.err);
    }
}

#[test]
fn a_code_of_another_relay_than_the_one_named_is_refused() {
    let code = invitation("relay.example.com:443", Purpose::Login);
    let ran = Place::new()
        .belay_with(&["login", "other.example.com", "--password-stdin", "--code", &code], PASSWORD);
    assert_eq!(ran.status, 1);
    assert!(
        ran.complaint()
            .contains("this code is for relay.example.com:443, not for other.example.com:443"),
        "{}",
        ran.err
    );
}

#[test]
fn without_code_or_pinned_ca_nothing_is_sent_to_anybody() {
    let ran = Place::new()
        .belay_with(&["login", "127.0.0.1:9", "--user", "anna", "--password-stdin"], PASSWORD);
    assert_eq!(ran.status, 1);
    assert!(ran.complaint().contains("nothing proves 127.0.0.1:9"), "{}", ran.err);
    assert!(ran.complaint().contains("ask an administrator for a login code"), "{}", ran.err);
}

#[test]
fn a_new_password_is_measured_before_anything_is_sent() {
    let code = invitation("127.0.0.1:9", Purpose::Login);
    let ran =
        Place::new().belay_with(&["login", "--code", &code, "--password-stdin"], b"too short\n");
    assert_eq!(ran.status, 1);
    assert!(ran.complaint().contains("it must have at least 15"), "{}", ran.err);
    let none = Place::new().belay_with(&["login", "--code", &code, "--password-stdin"], b"");
    assert!(none.complaint().contains("standard input holds no password"), "{}", none.err);
}

#[test]
fn a_relay_that_is_not_there_is_one_line_and_keeps_nothing() {
    // A port that was just ours and is closed again.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let place = Place::new();
    let code = invitation(&address, Purpose::Login);
    let ran = place.belay_with(&["login", "--code", &code, "--password-stdin"], PASSWORD);
    assert_eq!(ran.status, 1);
    assert!(ran.complaint().contains("cannot reach the relay"), "{}", ran.err);
    assert!(ran.complaint().contains(&address), "{}", ran.err);
    assert!(!place.user_home().join(".local/state/belay").exists());
}

#[test]
fn a_server_that_speaks_something_else_is_told_from_a_relay() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
    });
    let code = invitation(&address, Purpose::Login);
    let ran = Place::new().belay_with(&["login", "--code", &code, "--password-stdin"], PASSWORD);
    server.join().unwrap();
    assert_eq!(ran.status, 1);
    assert!(ran.complaint().contains("check that the address is a Belay relay's"), "{}", ran.err);
}

#[test]
fn doctor_without_a_login_says_so_and_exits_with_1() {
    let place = Place::new();
    let ran = place.belay(&["doctor"]);
    assert_eq!(ran.status, 1);
    assert!(ran.out.contains("BAD  login"), "{}", ran.out);
    let json: serde_json::Value =
        serde_json::from_str(&place.belay(&["doctor", "--json"]).out).unwrap();
    assert!(json.as_array().unwrap().iter().any(|c| c["check"] == "login" && c["ok"] == false));
}

#[test]
fn the_home_is_chosen_by_flag_variable_and_default_in_this_order() {
    let place = Place::new();
    let by_flag = place.dir.path().join("flag");
    let ran = place.belay(&["--home", by_flag.to_str().unwrap(), "doctor"]);
    assert!(ran.out.contains(by_flag.to_str().unwrap()), "{}", ran.out);
    let ran = place.belay(&["doctor"]);
    let default = place.user_home().join(".local/state/belay");
    assert!(ran.out.contains(default.to_str().unwrap()), "{}", ran.out);
}
