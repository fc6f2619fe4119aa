//! Where the relay wants it, what is typed is recorded: as far as the terminal echoed it, and for who
//! asks for it.

use anyhow::{Result, ensure};
use belay_tests::world::{DEVICE, World, run};

use crate::attach::Desk;
use crate::recording::{last_session, text, whole};

const PASSWORD: &str = "hunter2-is-not-kept";

/// With these lines more in its configuration, and a device that has greeted it since.
pub(crate) fn relay_with(world: &mut World, settings: &str) -> Result<()> {
    let config = world.relay_data().join("relay.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("{settings}\n{text}"))?;
    world.relay()?.kill()?;
    world.relay = None;
    world.start_relay()?;
    world.wait_online(DEVICE)
}

#[test]
fn what_is_typed_with_echo_is_an_auditors_to_read_and_a_password_is_nobodys() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    relay_with(&mut world, "recording = \"required\"\nrecording_input = true")?;
    let desk = Desk::new(&world)?;
    let command = "echo na''me; read name; stty -echo; echo se''cret; read pw; stty echo; \
                   echo got-${#pw}-$name; read last";
    desk.window("one", &world.belay(&["exec", "-t", DEVICE, "--", command]))?;
    desk.shows("one", "name")?;
    desk.keys("one", &["anna", "Enter"])?;
    desk.shows("one", "secret")?;
    desk.keys("one", &[PASSWORD, "Enter"])?;
    desk.shows("one", &format!("got-{}-anna", PASSWORD.len()))?;
    desk.keys("one", &["bye", "Enter"])?;
    ensure!(desk.status("one")? == "0", "status {}", desk.status("one")?);

    let id = last_session(&world)?;
    whole(&world, &id)?;
    let typed = run(&mut world.belay(&["play", &id, "--text", "--input"]))?.success()?.stdout;
    for part in ["typed: anna", "typed: bye", "input=what is echoed"] {
        ensure!(typed.contains(part), "{part} is not in {typed}");
    }
    ensure!(!typed.contains(PASSWORD), "a password that was not echoed is recorded");
    ensure!(!text(&world, &id)?.contains("typed:"), "it is shown to who has not asked");
    let told = world.belay_json(&["play", &id, "--input"])?.to_string();
    ensure!(told.contains("\"input\":[") && !told.contains(PASSWORD), "{told}");
    Ok(())
}
