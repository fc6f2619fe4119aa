//! `lab-link`: the lab's user-space link for shell scripts and for trying
//! things by hand. Two TUN devices, packets between them delayed, shaped and
//! lost as told; lines on standard input change that while it runs; it ends
//! with its standard input.

#![allow(clippy::print_stdout, reason = "answers on standard output are what this program is for")]

use std::fs::File;
use std::io::BufRead as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use belay_tests::lab::{Direction, Link, LinkConfig, tun};
use nix::sched::{CloneFlags, setns};

const USAGE: &str = "\
usage: lab-link [NETNS:]DEVICE [NETNS:]DEVICE [WAY.]KEY=VALUE...

NETNS is a path, such as /run/netns/a; without one, the present namespace.
KEY=VALUE, for both ways or after \"down.\" (first to second) or \"up.\":
  delay=25ms  jitter=2ms  rate=100mbit (off: no limit)  queue=262144 (bytes)
  loss=0.01  reorder=0.01  duplicate=0.01  hole=on|off  seed=7
Lines on standard input:  set [WAY.]KEY=VALUE...  |  counts
It answers each with a line: \"ok\", \"error: ...\", or the counts.";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(first), Some(second)) = (arguments.next(), arguments.next()) else {
        bail!(USAGE);
    };
    let mut config = LinkConfig::both(Direction::default());
    for setting in arguments {
        apply(&mut config, &setting).context(USAGE)?;
    }
    let link = Link::between(open(&first)?, open(&second)?, config)?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        println!("{}", answer(&link, &line.context("reading standard input")?));
    }
    Ok(())
}

/// Makes a device on a thread that first goes where the device is to be.
fn open(place: &str) -> Result<File> {
    let (netns, device) = match place.rsplit_once(':') {
        Some((netns, device)) => (Some(netns.to_owned()), device.to_owned()),
        None => (None, place.to_owned()),
    };
    let opener = std::thread::spawn(move || {
        if let Some(netns) = netns {
            let file = File::open(Path::new(&netns)).with_context(|| format!("opening {netns}"))?;
            setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {netns}"))?;
        }
        tun::open(&device)
    });
    match opener.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn answer(link: &Link, line: &str) -> String {
    let mut words = line.split_whitespace();
    match words.next() {
        Some("counts") => {
            let (down, up) = link.counts();
            format!("down {down:?} up {up:?}")
        }
        Some("set") => {
            let mut outcome = Ok(());
            // All of a line or nothing of it.
            link.configure(|config| {
                let mut wanted = config.clone();
                outcome = words.try_for_each(|setting| apply(&mut wanted, setting));
                if outcome.is_ok() {
                    *config = wanted;
                }
            });
            match outcome {
                Ok(()) => "ok".into(),
                Err(error) => format!("error: {error:#}"),
            }
        }
        _ => "error: say \"set KEY=VALUE...\" or \"counts\"".into(),
    }
}

fn apply(config: &mut LinkConfig, setting: &str) -> Result<()> {
    let (key, value) =
        setting.split_once('=').with_context(|| format!("{setting:?} is not KEY=VALUE"))?;
    match key.split_once('.') {
        Some(("down", key)) => config.down.set(key, value),
        Some(("up", key)) => config.up.set(key, value),
        Some((way, _)) => bail!("no way {way:?}: down or up"),
        None => {
            config.down.set(key, value)?;
            config.up.set(key, value)
        }
    }
}
