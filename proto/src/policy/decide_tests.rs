#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::policy::Selector;
use proptest::prelude::*;

fn labels(text: &str) -> BTreeMap<LabelKey, LabelValue> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<crate::names::Label>().unwrap())
        .map(|label| (label.key, label.value))
        .collect()
}

fn engineer(selector: &str, logins: &[&str]) -> Role {
    Role::Engineer {
        selector: selector.parse().unwrap(),
        logins: logins.iter().map(|login| login.parse().unwrap()).collect(),
        break_glass: false,
    }
}

fn trusted(selector: &str, logins: &[&str]) -> Role {
    Role::Engineer {
        selector: selector.parse().unwrap(),
        logins: logins.iter().map(|login| login.parse().unwrap()).collect(),
        break_glass: true,
    }
}

fn ask(roles: &[Role], device: &str, login: &str) -> Decision {
    let (labels, login) = (labels(device), login.parse().unwrap());
    let break_glass = false;
    decide(&Facts { roles, labels: &labels, kind: kind::SSH, login: &login, break_glass })
}

fn ask_breaking(roles: &[Role], device: &str, login: &str) -> Decision {
    let (labels, login) = (labels(device), login.parse().unwrap());
    let break_glass = true;
    decide(&Facts { roles, labels: &labels, kind: kind::SSH, login: &login, break_glass })
}

#[test]
fn the_glass_is_broken_by_who_may_where_they_may_and_by_nobody_by_default() {
    let no = |roles: &[Role], device, login| ask_breaking(roles, device, login).unwrap_err().code;
    let roles = [engineer("site=oslo", &["root"]), trusted("site=bergen", &["root"])];
    assert_eq!(no(&roles, "site=oslo", "root"), Code::NotAllowed);
    assert!(ask(&roles, "site=oslo", "root").is_ok());
    assert_eq!(
        ask_breaking(&roles, "site=bergen", "root"),
        ask(&roles, "site=bergen", "root"),
        "it gives nothing but that"
    );
    assert_eq!(no(&roles, "site=bergen", "pi"), Code::LoginNotAllowed);
    assert!(ask_breaking(&[Role::Administrator], "", "root").is_ok());
    assert_eq!(no(&[Role::Auditor], "site=bergen", "root"), Code::NotAllowed);
    // One role's login is not another's right.
    let roles = [engineer("site=oslo", &["root"]), trusted("site=oslo", &["pi"])];
    assert_eq!(no(&roles, "site=oslo", "root"), Code::NotAllowed);
    assert!(ask_breaking(&roles, "site=oslo", "pi").is_ok());
}

#[test]
fn nobody_may_do_anything_without_a_role() {
    assert_eq!(ask(&[], "site=oslo", "root").unwrap_err().code, Code::NotAllowed);
}

#[test]
fn an_engineer_may_use_the_logins_of_the_role_on_the_devices_of_its_labels() {
    let roles = [engineer("site=oslo", &["support"])];
    assert!(ask(&roles, "site=oslo,line=3", "support").is_ok());
    assert_eq!(ask(&roles, "site=oslo", "root").unwrap_err().code, Code::LoginNotAllowed);
    assert_eq!(ask(&roles, "site=bergen", "support").unwrap_err().code, Code::NotAllowed);
    assert_eq!(ask(&roles, "", "support").unwrap_err().code, Code::NotAllowed);
}

#[test]
fn one_roles_login_is_not_lent_to_another_roles_devices() {
    let roles = [engineer("site=oslo", &["root"]), engineer("site=bergen", &["support"])];
    assert!(ask(&roles, "site=bergen", "support").is_ok());
    assert_eq!(ask(&roles, "site=bergen", "root").unwrap_err().code, Code::LoginNotAllowed);
}

#[test]
fn an_engineer_gets_no_listener_and_no_agent_on_the_device() {
    let allowed = ask(&[engineer("site=oslo", &["root"])], "site=oslo", "root").unwrap();
    assert!(!allowed.actions().contains(&Action::Reverse));
    assert!(!allowed.actions().contains(&Action::Agent));
}

#[test]
fn an_auditor_opens_nothing_anywhere_and_lends_nothing_to_other_roles() {
    assert_eq!(ask(&[Role::Auditor], "site=oslo", "root").unwrap_err().code, Code::NotAllowed);
    let roles = [Role::Auditor, engineer("site=oslo", &["support"])];
    assert!(ask(&roles, "site=oslo", "support").is_ok());
    assert_eq!(ask(&roles, "site=oslo", "root").unwrap_err().code, Code::LoginNotAllowed);
    assert_eq!(ask(&roles, "site=bergen", "support").unwrap_err().code, Code::NotAllowed);
}

#[test]
fn an_unknown_kind_is_refused_even_to_an_administrator() {
    let (labels, login) = (labels(""), "root".parse().unwrap());
    let roles = &[Role::Administrator];
    let facts = Facts { roles, labels: &labels, kind: "x", login: &login, break_glass: false };
    assert_eq!(decide(&facts).unwrap_err().code, Code::BadRequest);
}

fn some_role() -> impl Strategy<Value = Role> {
    let value = prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![6 => some_engineer(value), 1 => Just(Role::Auditor)]
}

fn some_engineer(value: impl Strategy<Value = &'static str>) -> impl Strategy<Value = Role> {
    let logins = prop::collection::btree_set(prop::sample::select(vec!["root", "pi", "ops"]), 0..3);
    (prop::collection::btree_map(prop::sample::select(vec!["k", "l"]), value, 1..3), logins)
        .prop_map(|(selector, logins)| {
            let text: Vec<_> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
            engineer(&text.join(","), &logins.into_iter().collect::<Vec<_>>())
        })
}

proptest! {
    /// Roles only ever add, and what is allowed is allowed by one single role.
    #[test]
    fn roles_add_up_and_never_combine(
        roles in prop::collection::vec(some_role(), 0..5),
        device in prop::collection::btree_map(
            prop::sample::select(vec!["k", "l", "m"]),
            prop::sample::select(vec!["a", "b", "c"]), 0..3),
        login in prop::sample::select(vec!["root", "pi", "ops"]),
    ) {
        let device: Vec<_> = device.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let device = device.join(",");
        let together = ask(&roles, &device, login);
        let alone = roles.iter().any(|role| ask(std::slice::from_ref(role), &device, login).is_ok());
        prop_assert_eq!(together.is_ok(), alone);
    }

    /// More labels on the selector never widen a role.
    #[test]
    fn a_longer_selector_never_covers_more(
        selector in prop::collection::btree_map("[kl]", "[ab]", 1..3),
        device in prop::collection::btree_map("[klm]", "[ab]", 0..4),
    ) {
        let join = |m: &BTreeMap<String, String>| {
            m.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
        };
        let shorter: Selector = join(&selector).parse().unwrap();
        let mut more = selector.clone();
        more.insert("m".into(), "a".into());
        let longer: Selector = join(&more).parse().unwrap();
        let device = labels(&join(&device));
        prop_assert!(!longer.covers(&device) || shorter.covers(&device));
    }
}

#[test]
fn nobodys_own_session_joins_and_who_may_have_a_shell_may_join() {
    for role in [Role::Administrator, engineer("site=oslo", &["root"])] {
        let allowed = ask(&[role], "site=oslo", "root").unwrap();
        assert!(!allowed.actions().contains(&Action::Join));
        assert!(allowed.may_join());
    }
}
