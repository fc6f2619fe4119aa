//! `belay audit` as an auditor has it: reading, exporting, proving; and what it says when somebody has
//! been at the file or at the relay's database.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, Outcome, World, run};

fn audit(world: &World, arguments: &[&str]) -> Result<Outcome> {
    run(&mut world.belay_as("ida", &[&["audit"], arguments].concat()))
}

/// The file is found out, in these words.
fn found_out(world: &World, file: &Path, more: &[&str], says: &str) -> Result<()> {
    let file = file.to_str().context("no path")?;
    let ran = audit(world, &[&["verify", file], more].concat())?.expect_status(1)?;
    ensure!(ran.stdout.contains(says), "{says:?} is not in: {}", ran.stdout);
    Ok(())
}

#[test]
fn an_auditor_proves_the_log_and_finds_every_kind_of_tampering() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("ida", &["--role", "auditor"])?;
    world.add_user("olga", &["--role", "engineer", "--label", "site=oslo", "--login", "nobody"])?;
    run(&mut world.belay(&["exec", DEVICE, "--", "true"]))?.success()?;

    let refused = run(&mut world.belay_as("olga", &["audit", "tail"]))?.expect_status(1)?;
    ensure!(refused.stderr.contains("none of your roles allows this"), "{}", refused.stderr);
    let refused = run(&mut world.belay_as("ida", &["exec", DEVICE, "--", "true"]))?;
    let refused = refused.expect_status(255)?;
    ensure!(refused.stderr.contains("opens no session"), "{}", refused.stderr);

    let tail = audit(&world, &["tail", "-n", "100"])?.success()?.stdout;
    ensure!(tail.contains("session-opened  admin  root@demo"), "{tail}");
    ensure!(tail.contains("session-refused  ida  root@demo  [not-allowed]"), "{tail}");
    let json = audit(&world, &["tail", "-n", "3", "--json"])?.success()?.stdout;
    ensure!(json.lines().count() == 3, "{json}");
    for line in json.lines() {
        serde_json::from_str::<belay_proto::audit::Entry>(line)?;
    }

    // Twice, the second time only what is new.
    let file = world.path("log.ndjson");
    let name = file.to_str().context("no path")?;
    audit(&world, &["export", name])?.success()?;
    let first = fs::read_to_string(&file)?;
    run(&mut world.belay(&["exec", DEVICE, "--", "true"]))?.success()?;
    audit(&world, &["export", name])?.success()?;
    let text = fs::read_to_string(&file)?;
    ensure!(text.starts_with(&first) && text.len() > first.len(), "it was written over");
    let proven = audit(&world, &["verify", name])?.success()?.stdout;
    ensure!(proven.starts_with("intact: "), "{proven}");
    let witness = world.path("witness");
    fs::write(&witness, audit(&world, &["checkpoint"])?.success()?.stdout)?;
    let witness = witness.to_str().context("no path")?;

    let lines: Vec<&str> = text.lines().collect();
    let entries: Vec<usize> =
        (0..lines.len()).filter(|n| lines[*n].starts_with("{\"seq\":")).collect();
    let copy = world.path("copy.ndjson");
    let write = |lines: &[&str]| fs::write(&copy, lines.join("\n") + "\n");
    let tenth = entries[9];
    ensure!(lines[tenth].starts_with("{\"seq\":10,"), "{}", lines[tenth]);

    let mut bytes = text.clone().into_bytes();
    let at = text.find("{\"seq\":10,").context("no entry 10")? + 20;
    bytes[at] ^= 1;
    fs::write(&copy, bytes)?;
    found_out(&world, &copy, &[], "entry 10 was changed")?;
    let mut less = lines.clone();
    less.remove(tenth);
    write(&less)?;
    found_out(&world, &copy, &[], "entry 10 was removed")?;
    let mut moved = lines.clone();
    moved.swap(tenth, entries[19]);
    write(&moved)?;
    found_out(&world, &copy, &[], "entry 20 was moved: it stands behind entry 9")?;
    let mut more = lines.clone();
    let forged = lines[tenth].replace("\"seq\":10,", "\"seq\":11,");
    more.insert(tenth + 1, &forged);
    write(&more)?;
    found_out(&world, &copy, &[], "put in behind entry 10")?;
    let mut cut = lines.clone();
    cut.remove(*entries.last().context("no entry")?);
    write(&cut)?;
    found_out(&world, &copy, &[], "the end was cut off")?;
    // What was a whole export once is found short by whoever has seen more.
    fs::write(&copy, &first)?;
    let first_name = copy.to_str().context("no path")?;
    audit(&world, &["verify", first_name])?.success()?;
    found_out(&world, &copy, &["--checkpoint", witness], "truncated or rolled back")?;
    let elsewhere = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let foreign = runtime.block_on(belay_relay::store::Store::open(elsewhere.path()))?;
    let foreign = foreign.log_key().to_string();
    let own = lines[0].split("\"vkey\":\"").nth(1).and_then(|rest| rest.strip_suffix("\"}"));
    let own = own.context("no key")?.to_owned();
    fs::write(&copy, text.replace(&own, &foreign))?;
    found_out(&world, &copy, &["--key", &own], "the key was replaced")?;

    // And the relay's own database, while the relay runs.
    let proven = audit(&world, &["verify"])?.success()?.stdout;
    ensure!(proven.starts_with("intact: "), "{proven}");
    audit(&world, &["verify", "--quick", "--checkpoint", witness])?.success()?;
    let script = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('DROP TRIGGER decisions_are_not_changed')
db.execute(\"UPDATE decisions SET entry = replace(entry, '\\\"at\\\":1', '\\\"at\\\":2') WHERE seq = 10\")
db.commit()";
    let database = world.relay_data().join("belay.db");
    run(Command::new("python3").args(["-c", script]).arg(database))?.success()?;
    let ran = audit(&world, &["verify"])?.expect_status(1)?;
    ensure!(ran.stdout.contains("entry 10 was changed"), "{}", ran.stdout);
    ensure!(ran.stdout.contains("NOT INTACT"), "{}", ran.stdout);
    Ok(())
}
