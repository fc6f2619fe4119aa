//! A session as its users have it: `belay exec`, and plain OpenSSH.

use anyhow::Result;
use belay_tests::world::{DEVICE, World, run, run_with_input};

#[test]
fn a_command_runs_on_the_device_with_its_own_status_streams_and_name() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let script = "echo out; echo err >&2; echo $BELAY_USER; exit 7";
    let ran = run(&mut world.belay(&["exec", DEVICE, "--", script]))?.expect_status(7)?;
    assert_eq!(ran.stdout, "out\nadmin\n");
    assert_eq!(ran.stderr, "err\n");
    let mut ssh = world.openssh("ssh")?;
    let ran = run(ssh.arg(format!("root@{DEVICE}.belay")).arg(script))?.expect_status(7)?;
    assert_eq!(ran.stdout, "out\nadmin\n");
    assert_eq!(ran.stderr, "err\n");
    Ok(())
}

#[test]
fn standard_input_reaches_the_command_and_its_end_too() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let input: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let ran =
        run_with_input(&mut world.belay(&["exec", DEVICE, "--", "cat"]), &input)?.success()?;
    assert!(ran.bytes == input, "what came back is not what was sent");
    let mut ssh = world.openssh("ssh")?;
    let ran =
        run_with_input(ssh.arg(format!("root@{DEVICE}.belay")).arg("cat"), &input)?.success()?;
    assert!(ran.bytes == input, "what came back is not what was sent");
    Ok(())
}
