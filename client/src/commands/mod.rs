//! One file a command: its arguments, what it asks, how it shows the answer.

pub mod attach;
pub mod audit;
mod break_glass;
pub mod completions;
pub mod device;
pub mod devices;
pub mod doctor;
pub mod evidence;
pub mod exec;
pub mod hold;
pub mod join;
pub mod kill;
pub mod login;
pub mod play;
pub mod proxy;
pub mod recording;
pub mod search;
mod session;
pub mod sessions;
pub mod shell;
pub mod ssh_config;
pub mod token;
pub mod user;
pub mod watch;
mod which;
pub mod whoami;

use std::collections::BTreeMap;

use belay_proto::names::{Label, LabelKey, LabelValue};

use crate::failure::{EXIT_USAGE, Failure};

/// Labels of repeated `--label` flags.
fn labels_of(labels: Vec<Label>) -> Result<BTreeMap<LabelKey, LabelValue>, Failure> {
    let mut map = BTreeMap::new();
    for Label { key, value } in labels {
        if map.contains_key(&key) {
            return Err(Failure::new("usage", format!("the label \"{key}\" is given twice"))
                .remedy("give each label once")
                .exit(EXIT_USAGE));
        }
        map.insert(key, value);
    }
    Ok(map)
}

fn joined(labels: &BTreeMap<LabelKey, LabelValue>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
