//! `belay device rename|label|quarantine|activate|decommission`

use std::collections::BTreeSet;

use belay_proto::api::{Device, DeviceChange, DeviceStatus, path};
use belay_proto::names::{DeviceName, Label, LabelKey};
use clap::Subcommand;
use hyper::Method;

use super::{joined, labels_of};
use crate::api::{Api, path_of};
use crate::device_ref::DeviceRef;
use crate::failure::{EXIT_USAGE, Failure};
use crate::output;
use crate::run::Context;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Give a device another name
    #[command(after_help = "Example:\n  belay device rename pump-17 pump-oslo-17")]
    Rename {
        /// Name or UUID
        device: DeviceRef,
        /// The new name
        name: DeviceName,
    },
    /// Set labels, and take them off
    #[command(
        after_help = "Example:\n  belay device label pump-17 site=oslo line=3 --remove spare"
    )]
    Label {
        /// Name or UUID
        device: DeviceRef,
        /// Labels to set, NAME=VALUE
        set: Vec<Label>,
        /// A label to take off; may be repeated
        #[arg(long, value_name = "NAME")]
        remove: Vec<LabelKey>,
    },
    /// Hold a device back: its line is cut at once and it is refused until made active again
    #[command(after_help = "Example:\n  belay device quarantine pump-17 --reason 'seen twice'")]
    Quarantine(Status),
    /// Let a quarantined device in again
    #[command(after_help = "Example:\n  belay device activate pump-17")]
    Activate(Status),
    /// Take a device out of service for good: its certificate never opens anything again
    #[command(after_help = "Example:\n  belay device decommission pump-17 --reason scrapped")]
    Decommission(Status),
}

#[derive(Debug, clap::Args)]
struct Status {
    /// Name or UUID
    device: DeviceRef,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

/// Changes a device.
///
/// # Errors
/// When there is no live login, or the relay refuses.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let (device, change) = change(args.what)?;
    let api = Api::of_home(&context.home)?;
    let path = path_of(path::DEVICE, &device.to_string());
    let device: Device = api.send(Method::PATCH, &path, &change).await?;
    output::show(context.format, &device, |device| {
        let labels = joined(&device.labels);
        let labels = if labels.is_empty() { String::new() } else { format!(", {labels}") };
        format!("{} ({}): {}{labels}", device.name, device.id, device.status.token())
    })
}

fn change(what: What) -> Result<(DeviceRef, DeviceChange), Failure> {
    let to = |status: Status, standing| {
        let change = DeviceChange {
            status: Some(standing),
            reason: status.reason,
            ..DeviceChange::default()
        };
        (status.device, change)
    };
    Ok(match what {
        What::Rename { device, name } => {
            (device, DeviceChange { name: Some(name), ..DeviceChange::default() })
        }
        What::Label { device, set, remove } => {
            if set.is_empty() && remove.is_empty() {
                return Err(Failure::new("usage", "no label given")
                    .remedy("write NAME=VALUE to set one, --remove NAME to take one off")
                    .exit(EXIT_USAGE));
            }
            let set_labels = labels_of(set)?;
            let remove_labels: BTreeSet<_> = remove.into_iter().collect();
            (device, DeviceChange { set_labels, remove_labels, ..DeviceChange::default() })
        }
        What::Quarantine(status) => to(status, DeviceStatus::Quarantined),
        What::Activate(status) => to(status, DeviceStatus::Active),
        What::Decommission(status) => to(status, DeviceStatus::Decommissioned),
    })
}
