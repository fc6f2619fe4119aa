//! Many devices at once: all of them come back to a relay that went away.

use std::time::Duration;

use anyhow::{Result, ensure};
use belay_tests::bench::herd::measure_return;
use belay_tests::lab::{Lab, Topology};

#[test]
fn a_herd_comes_back_after_its_relay_stopped_and_after_it_was_killed() -> Result<()> {
    const DEVICES: u32 = 300;
    let Some(lab) = Lab::new_or_skip(&Topology::default())? else { return Ok(()) };
    belay_tunnel::tls::install_provider();
    for back in measure_return(&lab, DEVICES, Duration::ZERO, |said| println!("{said}"))? {
        println!("{back:?}");
        ensure!(back.missing == 0, "{} of {DEVICES} are missing: {back:?}", back.missing);
        // The longest wait of a device that tries in vain is as long.
        ensure!(back.seconds < 60.0, "{back:?}");
    }
    Ok(())
}
