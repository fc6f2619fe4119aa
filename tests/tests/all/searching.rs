//! Sessions are found by what they showed: what a full-screen program drew, and what is sealed, for
//! whoever has the key.

use anyhow::{Context as _, Result, ensure};
use belay_proto::recording::file::{LENGTH, split};
use belay_tests::world::{DEVICE, World, run};
use serde_json::Value;

use crate::attach::{Desk, over};
use crate::recording::{last_session, whole};
use crate::recording_sealed::{auditor, sealing};

/// A search, as JSON; that nothing is found is no failure.
fn search(world: &World, arguments: &[&str]) -> Result<Value> {
    let ran = run(&mut world.belay(&[&["search", "--json"], arguments].concat()))?;
    ensure!(matches!(ran.status, Some(0 | 1)) && !ran.stdout.is_empty(), "{ran:?}");
    ran.json()
}

fn word<'a>(hit: &'a Value, key: &str) -> &'a str {
    hit[key].as_str().unwrap_or("?")
}

/// The lines found, each with what it is and who found it.
fn lines(answer: &Value) -> Vec<(&str, &str, &str)> {
    let hits = answer["hits"].as_array().into_iter().flatten();
    hits.map(|hit| (word(hit, "line"), word(hit, "kind"), word(hit, "from"))).collect()
}

#[test]
fn what_an_editor_showed_is_found_and_played_where_it_stood() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    {
        let desk = Desk::new(&world)?;
        desk.window("one", &world.belay(&["shell", DEVICE]))?;
        desk.shows("one", "#")?;
        // An editor that every machine has: it enters the other screen, draws, waits and leaves it.
        let draw = "printf '\\033[?1049h\\033[Hvalve-''drawn-open'; read x; printf '\\033[?1049l'";
        desk.keys("one", &[draw, "Enter"])?;
        desk.shows("one", "valve-drawn-open")?;
        desk.keys("one", &["Enter"])?;
        if std::path::Path::new("/usr/bin/vim").exists() {
            desk.keys("one", &["vim -u NONE -n", "Enter"])?;
            desk.shows("one", "~")?;
            desk.keys("one", &["ivalve-typed-shut"])?;
            desk.shows("one", "valve-typed-shut")?;
            desk.keys("one", &["Escape", ":q!", "Enter"])?;
        }
        desk.keys("one", &["echo bac''k", "Enter"])?;
        desk.shows("one", "back")?;
        desk.keys("one", &["exit", "Enter"])?;
        over(&world)?;
    }
    let id = last_session(&world)?;
    whole(&world, &id)?;
    let mut answer = Value::Null;
    world.wait_for("what was drawn is found", || {
        answer = search(&world, &["valve-drawn"])?;
        Ok(!lines(&answer).is_empty())
    })?;
    ensure!(lines(&answer) == [("valve-drawn-open", "screen", "relay")], "{answer}");
    if std::path::Path::new("/usr/bin/vim").exists() {
        let typed = search(&world, &["valve-typed-shut"])?;
        ensure!(lines(&typed) == [("valve-typed-shut", "screen", "relay")], "{typed}");
    }
    let text = run(&mut world.belay(&["search", "valve-drawn"]))?.success()?.stdout;
    ensure!(text.contains("[full screen] valve-drawn-open"), "{text}");
    ensure!(text.contains(&format!("belay play {id} --track 1 --at 0:00:")), "{text}");
    Ok(())
}

/// Two segments of recording at least.
const COMMAND: &str = "echo the sealed-needle is here; sleep 4; echo end";

/// The relay's disk is somebody else's: the recording's last segment is taken away, then all of it, and put
/// back.
fn cut_and_put_back(world: &World, id: &str, key: &str) -> Result<()> {
    let days = std::fs::read_dir(world.relay_data().join("recordings"))?;
    let mut files = days.filter_map(|day| Some(day.ok()?.path().join(format!("{id}.belay"))));
    let file = files.find(|file| file.exists()).context("no recording")?;
    let whole = std::fs::read(&file)?;
    let (mut rest, mut last) = (whole.as_slice(), whole.len());
    while let Some((record, after)) = split(rest) {
        last = whole.len() - after.len() - record.len() - LENGTH;
        rest = after;
    }
    std::fs::write(&file, whole.get(..last).context("cut")?)?;
    std::fs::remove_dir_all(world.home("admin").join("search"))?;
    let asked = ["sealed-needle is", "--identity", key];
    let mut answer = Value::Null;
    world.wait_for("it is named", || {
        answer = search(world, &asked)?;
        Ok(answer["exchanged"][0] == id)
    })?;
    ensure!(lines(&answer).is_empty(), "{answer}");
    let said = run(&mut world.belay(&[&["search"], &asked[..]].concat()))?.expect_status(1)?;
    let says = format!("NOT AS LOGGED: by the audit log, the recording of session {id} was cut");
    ensure!(said.stderr.contains(&says), "{}", said.stderr);
    let played = run(&mut world.belay(&["play", id, "--text"]))?.expect_status(1)?;
    ensure!(played.stderr.contains("the recording was cut: by the audit log"), "{}", played.stderr);
    std::fs::write(&file, &whole)?;
    let found_again = || {
        let answer = search(world, &asked)?;
        let named = ["exchanged", "missing"].map(|which| answer[which].as_array().map(Vec::len));
        Ok(lines(&answer).len() == 2 && named == [Some(0), Some(0)])
    };
    world.wait_for("it is found again", found_again)?;
    std::fs::remove_file(&file)?;
    world.wait_for("it is missed", || {
        answer = search(world, &asked)?;
        Ok(answer["missing"][0] == id)
    })?;
    ensure!(lines(&answer).is_empty(), "{answer}");
    let said = run(&mut world.belay(&[&["search"], &asked[..]].concat()))?.expect_status(1)?;
    let says = format!("NOT AS LOGGED: the relay has no recording of session {id} any more");
    ensure!(said.stderr.contains(&says), "{}", said.stderr);
    std::fs::write(&file, &whole)?;
    world.wait_for("it is found once more", found_again)
}

#[test]
fn what_is_sealed_is_found_with_its_key_and_counted_without() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    sealing(&mut world)?;
    run(&mut world.belay(&["exec", DEVICE, "--", COMMAND]))?.success()?;
    let id = last_session(&world)?;
    whole(&world, &id)?;
    let key = auditor(&world)?;
    let mut answer = Value::Null;
    world.wait_for("it is found with the key", || {
        answer = search(&world, &["sealed-needle is", "--identity", &key])?;
        Ok(lines(&answer).len() == 2)
    })?;
    let found = lines(&answer);
    ensure!(found.iter().all(|line| line.2 == "own"), "{answer}");
    ensure!(found.iter().any(|line| line.0 == "the sealed-needle is here"), "{answer}");
    ensure!(answer["hits"][0]["session"] == id.as_str(), "{answer}");
    ensure!(answer["sealed"] == 0 && answer["own"].as_u64() > Some(0), "{answer}");
    // By the environment, from what is kept now: nothing is downloaded again.
    let reads = |world: &World| -> Result<usize> {
        let all = world.decisions()?.into_iter().filter_map(|one| one.detail);
        Ok(all.filter(|detail| detail.contains("its recording, from byte")).count())
    };
    let before = reads(&world)?;
    ensure!(before > 0, "a reading is not on record");
    let mut again = world.belay(&["search", "sealed-needle is"]);
    again.env("BELAY_IDENTITY", &key);
    let text = run(&mut again)?.success()?;
    ensure!(text.stdout.contains(&format!("--identity {key}")), "{text:?}");
    ensure!(text.stderr.contains("sealed to you and searched here"), "{text:?}");
    ensure!(reads(&world)? == before, "it was downloaded again");

    let without = search(&world, &["sealed-needle"])?;
    ensure!(lines(&without).is_empty() && without["sealed"].as_u64() > Some(0), "{without}");
    let stranger = world.path("stranger.age");
    let other = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    std::fs::write(&stranger, other)?;
    let stranger = stranger.to_str().context("path")?;
    let with_another = search(&world, &["sealed-needle", "--identity", stranger])?;
    ensure!(lines(&with_another).is_empty(), "{with_another}");
    ensure!(with_another["sealed"].as_u64() > Some(0), "{with_another}");

    cut_and_put_back(&world, &id, &key)?;

    // What is deleted is found no more.
    let delete = ["recording", "delete", &id, "--reason", "test"];
    run(&mut world.belay(&delete))?.success()?;
    world.wait_for("it is in the index no more", || {
        let gone = search(&world, &["sealed-needle is", "--identity", &key])?;
        Ok(lines(&gone).is_empty())
    })
}
