//! One session's evidence as auditors have it: in a file that needs no relay, whatever is done to it; what
//! a recording must be to be played; and finding a session by what it showed.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use belay_proto::evidence::{Bundle, Part};
use belay_proto::recording::file::split;
use belay_tests::world::{DEVICE, Outcome, World, run};

use crate::recording::{last_session, whole};

/// A session in which this was run, recorded whole.
fn recorded(world: &World, command: &str) -> Result<String> {
    run(&mut world.belay(&["exec", DEVICE, "--", command]))?.success()?;
    let id = last_session(world)?;
    whole(world, &id)?;
    Ok(id)
}

fn bundle_of(world: &World, id: &str, name: &str) -> Result<Bundle> {
    let file = world.path(name);
    let path = file.to_str().context("path")?;
    let made = run(&mut world.belay_as("ida", &["evidence", id, "-o", path]))?.success()?;
    ensure!(made.stdout.contains("intact: every part is as it was signed"), "{}", made.stdout);
    let again = run(&mut world.belay_as("ida", &["evidence", id, "-o", path]))?.expect_status(1)?;
    ensure!(again.stderr.contains("name another file"), "written over: {}", again.stderr);
    let mut bundle = Bundle::default();
    for (at, line) in fs::read_to_string(&file)?.lines().enumerate() {
        bundle.take(serde_json::from_str::<Part>(line)?, at == 0)?;
    }
    Ok(bundle)
}

fn verify(world: &World, home: &str, file: &Path, more: &[&str]) -> Result<Outcome> {
    let file = file.to_str().context("path")?;
    run(&mut world.belay_as(home, &[&["evidence", "verify", file], more].concat()))
}

fn write(file: &Path, bundle: &Bundle) -> Result<()> {
    let mut text = String::new();
    for part in bundle.parts() {
        text.push_str(&serde_json::to_string(&part)?);
        text.push('\n');
    }
    Ok(fs::write(file, text)?)
}

/// The first so many records of a recording's file.
fn records(file: &[u8], count: usize) -> Result<&[u8]> {
    let mut rest = file;
    for _ in 0..count {
        rest = split(rest).context("too few segments")?.1;
    }
    Ok(&file[..file.len() - rest.len()])
}

type Tampering = (&'static str, Box<dyn Fn(&mut Bundle) -> Result<()>>, &'static str);

/// What is done, how, and what must be said of it.
fn tampering(
    what: &'static str,
    how: impl Fn(&mut Bundle) -> Result<()> + 'static,
    says: &'static str,
) -> Tampering {
    (what, Box::new(how), says)
}

fn tamperings(foreign: &Bundle) -> Result<Vec<Tampering>> {
    let entry = foreign.entries.first().context("no entry")?.clone();
    let after = foreign.recording[records(&foreign.recording, 2)?.len()..].to_vec();
    let other = belay_proto::audit::VerifierKey::new("relay.lab/belay-audit", [7; 32])?.to_string();
    Ok(vec![
        tampering(
            "one bit of an entry",
            |bundle| {
                let entry = bundle.entries.first_mut().context("no entry")?;
                entry.entry = entry.entry.replacen("root", "toot", 1);
                Ok(())
            },
            "was changed",
        ),
        tampering(
            "an entry removed",
            |bundle| {
                bundle.entries.remove(2);
                Ok(())
            },
            "was removed",
        ),
        tampering(
            "the log's end cut off",
            |bundle| {
                bundle.entries.truncate(3);
                Ok(())
            },
            "was removed",
        ),
        tampering(
            "entries reordered",
            |bundle| {
                bundle.entries.swap(0, 2);
                Ok(())
            },
            "was moved",
        ),
        tampering(
            "another session's entry put in",
            move |bundle| {
                bundle.entries.insert(1, entry.clone());
                Ok(())
            },
            "was put in behind",
        ),
        tampering(
            "the recording cut",
            |bundle| {
                bundle.recording = records(&bundle.recording, 2)?.to_vec();
                Ok(())
            },
            "the recording was cut",
        ),
        tampering(
            "a segment of another session",
            move |bundle| {
                bundle.recording = [records(&bundle.recording, 2)?, &after].concat();
                Ok(())
            },
            "belongs to session",
        ),
        tampering(
            "the key replaced",
            move |bundle| {
                bundle.vkey.clone_from(&other);
                Ok(())
            },
            "the key was replaced",
        ),
        tampering(
            "grants left out",
            |bundle| {
                bundle.grants.clear();
                Ok(())
            },
            "the grant that entry",
        ),
        tampering(
            "facts",
            |bundle| {
                bundle.facts.push(' ');
                Ok(())
            },
            "the facts of the session",
        ),
    ])
}

#[test]
fn a_bundle_is_believed_without_a_relay_and_every_kind_of_tampering_is_found() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("ida", &["--role", "auditor"])?;
    let other = recorded(&world, "echo another; sleep 4; echo end")?;
    let id = recorded(&world, "echo first; sleep 4; echo last")?;
    let early = world.path("early.ndjson");
    let early = early.to_str().context("path")?;
    run(&mut world.belay_as("ida", &["audit", "export", early]))?.success()?;
    let (bundle, foreign) = (bundle_of(&world, &id, "own")?, bundle_of(&world, &other, "other")?);
    let log = world.path("log.ndjson");
    let log = log.to_str().context("path")?;
    run(&mut world.belay_as("ida", &["audit", "export", log]))?.success()?;
    world.relay()?.kill()?;
    world.relay = None;

    let own = world.path("own");
    // Where nothing is known: believed for what it is, and said so.
    for (home, says) in [("ida", ""), ("stranger", "the log's key is new here")] {
        let seen = verify(&world, home, &own, &["--log", log])?.success()?;
        ensure!(seen.stderr.contains(says) && seen.stdout.contains("whole"), "{seen:?}");
        ensure!(seen.stdout.contains(": admin as root@demo"), "{}", seen.stdout);
    }
    let json = verify(&world, "ida", &own, &["--json"])?.success()?.json()?;
    ensure!(json["intact"] == true && json["recording"]["state"] == "whole", "{json}");
    let taken = world.path("taken");
    verify(&world, "ida", &own, &["--recording", taken.to_str().context("path")?])?.success()?;
    let text = ["play", taken.to_str().context("path")?, "--text"];
    ensure!(run(&mut world.belay_as("ida", &text))?.success()?.stdout.contains("last"), "no text");

    let copy = world.path("copy");
    for (what, tamper, says) in tamperings(&foreign)? {
        let mut touched = bundle.clone();
        tamper(&mut touched).context(what)?;
        write(&copy, &touched)?;
        let found = verify(&world, "ida", &copy, &[])?.expect_status(1).context(what)?;
        ensure!(found.stdout.contains(says), "{what}: {says:?} is not in {}", found.stdout);
        ensure!(found.stdout.contains("NOT INTACT"), "{what}: {}", found.stdout);
    }
    let whole = fs::read(&own)?;
    fs::write(&copy, &whole[..whole.len() - 3])?;
    let cut = verify(&world, "ida", &copy, &[])?.expect_status(1)?;
    ensure!(cut.stderr.contains("cut off"), "{}", cut.stderr);
    // A log that lacks what the bundle was made from.
    let short = verify(&world, "ida", &own, &["--log", early])?.expect_status(1)?;
    ensure!(short.stdout.contains("truncated or rolled back"), "{}", short.stdout);
    let wrong = "00".repeat(32);
    let ca = verify(&world, "stranger", &own, &["--ca", &wrong])?.expect_status(1)?;
    ensure!(ca.stdout.contains("the deployment CA was replaced"), "{}", ca.stdout);
    Ok(())
}

#[test]
fn a_recording_is_played_only_as_it_ended_and_sessions_are_found_by_what_they_showed() -> Result<()>
{
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_user("ida", &["--role", "auditor"])?;
    world.add_user("eve", &["--role", "engineer", "--label", "site=oslo", "--login", "root"])?;
    let id = recorded(&world, "echo begin; sleep 4; echo the needle in the hay")?;
    world.wait_for("the session is found", || {
        let ran = run(&mut world.belay_as("ida", &["search", "NEEDLE in", "--json"]))?;
        Ok(ran.status == Some(0))
    })?;
    let json =
        run(&mut world.belay_as("ida", &["search", "needle", "--json"]))?.success()?.json()?;
    let hits = json["hits"].as_array().context("no hits")?;
    ensure!(hits.iter().any(|hit| hit["kind"] == "command"), "{json}");
    let shown = hits.iter().find(|hit| hit["line"] == "the needle in the hay");
    let shown = shown.with_context(|| format!("not in {json}"))?;
    ensure!(shown["session"] == id.as_str() && shown["device"] == DEVICE, "{json}");
    let text =
        run(&mut world.belay_as("ida", &["search", "needle", "--since", "1h"]))?.success()?;
    ensure!(text.stdout.contains(&format!("belay play {id} --track 1 --at 0:00:0")), "{text:?}");
    run(&mut world.belay_as("ida", &["search", "no-such-thing"]))?.expect_status(1)?;
    let refused = run(&mut world.belay_as("eve", &["search", "needle"]))?.expect_status(1)?;
    ensure!(refused.stderr.contains("roles"), "{}", refused.stderr);
    let searched = world.decisions()?.into_iter().filter_map(|one| one.detail);
    ensure!(searched.filter(|it| it.contains("a search of recordings")).count() > 1, "unrecorded");

    let proven = run(&mut world.belay_as("ida", &["audit", "prove", "3"]))?.success()?;
    ensure!(proven.stdout.contains("it is entry 3 of the log"), "{}", proven.stdout);
    let beyond =
        run(&mut world.belay_as("ida", &["audit", "prove", "999999"]))?.expect_status(2)?;
    ensure!(beyond.stderr.contains("counted from 1"), "{}", beyond.stderr);

    // The end taken away, on the relay's own disk.
    run(&mut world.belay_as("ida", &["play", &id, "--text"]))?.success()?;
    let days = fs::read_dir(world.relay_data().join("recordings"))?;
    let mut files = days.filter_map(|day| Some(day.ok()?.path().join(format!("{id}.belay"))));
    let file = files.find(|file| file.exists()).context("no recording")?;
    let bytes = fs::read(&file)?;
    fs::write(&file, records(&bytes, 2)?)?;
    let played = run(&mut world.belay_as("ida", &["play", &id, "--text"]))?.expect_status(1)?;
    ensure!(played.stdout.is_empty(), "shown: {}", played.stdout);
    ensure!(played.stderr.contains("the recording was cut: by the audit log"), "{}", played.stderr);
    let saved = world.path("what-is-left");
    let saved = saved.to_str().context("path")?;
    run(&mut world.belay_as("ida", &["play", &id, "--save", saved]))?.expect_status(1)?;
    run(&mut world.belay_as("ida", &["play", saved, "--text"]))?.success()?;
    let made = run(&mut world.belay_as("ida", &["evidence", &id, "-o", &format!("{saved}.e")]))?;
    ensure!(made.expect_status(1)?.stdout.contains("the recording was cut"), "not found");
    Ok(())
}
