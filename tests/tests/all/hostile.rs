//! Hostile peers and broken machines: others go on, memory stays flat, everything recovers.

use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use belay_proto::refusal::Code;
use belay_proto::wire::control::{Control, Hello};
use belay_tests::lab::{Lab, Proc};
use belay_tests::world::{DEVICE, Identity, PATIENCE, World, honest_hello, run};
use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::time::timeout;

const MIB: u64 = 1 << 20;

/// Random bytes from a seed, the same every run.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

fn works(world: &World) -> Result<()> {
    run(&mut world.belay(&["exec", DEVICE, "--", "true"]))?.success().map(drop)
}

fn grown(relay: &Proc, before: u64) -> Result<u64> {
    Ok(relay.resident_bytes()?.saturating_sub(before))
}

#[test]
fn random_bytes_on_every_port_change_nothing() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    works(&world)?;
    let before = world.relay()?.resident_bytes()?;
    let to = world.relay_address();
    world.lab.ns("laptop").run(move || -> Result<()> {
        let udp = UdpSocket::bind("0.0.0.0:0")?;
        for n in 0..20_000u64 {
            let mut junk = bytes(n + 1, 1 + (n as usize * 37) % 1400);
            if n % 3 == 0 && junk.len() > 5 {
                // A long header of an unknown, and of the real version (RFC 9000 §17.2).
                junk[0] |= 0xc0;
                junk[1..5].copy_from_slice(if n % 2 == 0 { &[0, 0, 0, 1] } else { &[9, 9, 9, 9] });
            }
            // A full socket buffer drops; that is the network's right.
            drop(udp.send_to(&junk, to));
        }
        for n in 0..200 {
            use std::io::Write as _;
            let mut tcp = TcpStream::connect(to)?;
            tcp.set_write_timeout(Some(Duration::from_secs(2)))?;
            drop(tcp.write_all(&bytes(n + 99, 4000)));
        }
        Ok(())
    })??;
    works(&world)?;
    let grown = grown(world.relay()?, before)?;
    ensure!(grown < 20 * MIB, "the relay grew by {} MiB", grown / MIB);
    Ok(())
}

/// First packets of QUIC handshakes that nobody will finish, all different. Some of them end their
/// connection at once, as a dialler that gives up does: those cost a relay that forgets to count
/// them the most.
async fn initials(
    world_credentials: &belay_tests::world::Credentials,
    count: usize,
) -> Result<Vec<Vec<u8>>> {
    let hole = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    let aim = world_credentials.aimed_at(hole.local_addr()?)?;
    let mut packets = Vec::with_capacity(count);
    let mut buffer = vec![0; 2000];
    while packets.len() < count {
        let dialling = aim.dial();
        tokio::pin!(dialling);
        let got = tokio::select! {
            got = hole.recv(&mut buffer) => got?,
            _ = &mut dialling => bail!("a hole answered"),
        };
        packets.push(buffer.get(..got).context("length")?.to_vec());
    }
    Ok(packets)
}

#[test]
fn half_open_handshakes_by_the_thousand_cost_little_and_keep_nobody_out() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    works(&world)?;
    let before = world.relay()?.resident_bytes()?;
    let credentials = world.credentials(Identity::Admin)?;
    let packets = world.inside("laptop", || async {
        world.lab.ns("laptop").ip("link set lo up")?;
        initials(&credentials, 3000).await
    })?;
    let to = world.relay_address();
    let sent = world.lab.ns("laptop").run(|| -> Result<u64> {
        let udp = UdpSocket::bind("0.0.0.0:0")?;
        let mut sent = 0;
        for packet in &packets {
            sent += u64::try_from(udp.send_to(packet, to)?)?;
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(sent)
    })??;
    ensure!(sent >= 3000 * 1200, "only {sent} bytes of handshakes were sent");
    let asked = Instant::now();
    works(&world)?;
    let took = asked.elapsed();
    let grown = grown(world.relay()?, before)?;
    println!("half-open: relay grew by {} KiB, an honest session took {took:?}", grown >> 10);
    ensure!(grown < 20 * MIB, "the relay grew by {} MiB", grown / MIB);
    ensure!(took < Duration::from_secs(2), "an honest peer waited {took:?}");
    Ok(())
}

#[test]
fn what_no_honest_peer_says_is_answered_with_a_code_or_a_close() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    works(&world)?;
    let before = world.relay()?.resident_bytes()?;
    for who in [Identity::Admin, Identity::Device] {
        let credentials = world.credentials(who)?;
        world.inside("laptop", || async {
            // A version from before the first, and one from the far future.
            for (newest, oldest) in [(0, 0), (900, 800)] {
                let hello = Hello { newest: Some(newest), oldest: Some(oldest), ..honest_hello() };
                let peer = credentials.dial().await?;
                let (answer, ..) = peer.greet(&hello).await?;
                let refused = answer.refused.context("it was welcomed")?;
                ensure!(refused.code() == Code::Version, "{refused:?}");
                ensure!(refused.to_string().contains("upgrade"), "{refused}");
            }
            // Frames that are too long, cut, nested, random; no frame at all.
            let mut deep = vec![0, 0, 4, 0, 0xa1, 5];
            deep.extend(std::iter::repeat_n(0x81, 1022));
            let too_long = vec![0xff; 70_000];
            let cut = vec![0, 0, 0, 200, 0xa1];
            for junk in [deep, too_long, cut, bytes(7, 5000), Vec::new()] {
                let peer = credentials.dial().await?;
                let (mut send, mut recv) = peer.carrier.open().await?;
                send.send(Bytes::from(junk)).await?;
                send.finish();
                let mut pieces = [Bytes::new()];
                while let Ok(Some(_)) = recv.receive(&mut pieces).await {}
                timeout(PATIENCE, peer.carrier.closed()).await.context("it stays open")?;
            }
            // Hello twice, and then junk on the control stream of an admitted peer.
            let peer = credentials.dial().await?;
            let (answer, mut send, _recv) = peer.greet(&honest_hello()).await?;
            ensure!(answer.welcome.is_some(), "{answer:?}");
            belay_tunnel::framed::write(&mut send, &honest_hello()).await?;
            send.send(Bytes::from_static(&[0xff; 100])).await?;
            timeout(PATIENCE, peer.carrier.closed()).await.context("it stays open")?;
            Ok(())
        })?;
    }
    // Streams with junk in the place of Open.
    let credentials = world.credentials(Identity::Admin)?;
    world.inside("laptop", || async {
        let peer = credentials.dial().await?;
        let (answer, _send, _recv) = peer.greet(&honest_hello()).await?;
        ensure!(answer.welcome.is_some(), "{answer:?}");
        for n in 0..300 {
            let (mut send, mut recv) = timeout(PATIENCE, peer.carrier.open()).await??;
            send.send(Bytes::from(bytes(n + 5, 3000))).await.ok();
            send.finish();
            let mut pieces = [Bytes::new()];
            while let Ok(Some(_)) = timeout(PATIENCE, recv.receive(&mut pieces)).await? {}
        }
        Ok(())
    })?;
    world.wait_for("the refused version is recorded", || {
        Ok(world.recorded("client-refused", Some("version-too-old"))?
            && world.recorded("line-refused", Some("version-too-old"))?)
    })?;
    world.wait_online(DEVICE)?;
    works(&world)?;
    let grown = grown(world.relay()?, before)?;
    ensure!(grown < 20 * MIB, "the relay grew by {} MiB", grown / MIB);
    Ok(())
}

#[test]
fn a_client_that_never_reads_slows_only_itself() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    works(&world)?;
    let before = world.relay()?.resident_bytes()?;
    let frozen =
        world.lab.spawn("frozen", world.belay(&["exec", DEVICE, "--", "cat /dev/zero"]))?;
    let mut frozen = frozen;
    std::thread::sleep(Duration::from_millis(500));
    frozen.signal(Signal::SIGSTOP)?;
    std::thread::sleep(Duration::from_secs(2));
    works(&world)?;
    let grown = grown(world.relay()?, before)?;
    println!("a client that never reads: relay grew by {} KiB", grown >> 10);
    ensure!(grown < 40 * MIB, "the relay grew by {} MiB", grown / MIB);
    let agent = world.agents.get(DEVICE).context("no agent")?.resident_bytes()?;
    ensure!(agent < 64 * MIB, "the agent holds {} MiB", agent / MIB);
    frozen.signal(Signal::SIGCONT)?;
    frozen.kill()?;
    works(&world)
}

#[test]
fn a_device_that_never_answers_is_named_and_harms_no_other() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    world.add_device("other", "device", &[])?;
    world.wait_online("other")?;
    world.agents.remove(DEVICE);
    world.wait_offline(DEVICE)?;
    let credentials = world.credentials(Identity::Device)?;
    world.inside("device", || async {
        // It greets and answers probes, and never takes a stream.
        let peer = credentials.dial().await?;
        let (answer, mut send, mut recv) = peer.greet(&honest_hello()).await?;
        ensure!(answer.welcome.is_some(), "{answer:?}");
        let probes = async {
            while let Ok(Some(Control { ping, .. })) = recv.next::<Control>().await {
                let pong = Control { pong: ping, ..Control::default() };
                belay_tunnel::framed::write(&mut send, &pong).await?;
            }
            bail!("the relay ended the line")
        };
        let asks = tokio::task::spawn_blocking({
            let (mut silent, mut other) = (
                world.belay(&["exec", DEVICE, "--", "true"]),
                world.belay(&["exec", "other", "--", "true"]),
            );
            move || -> Result<_> {
                let silent = std::thread::spawn(move || run(&mut silent));
                let other = run(&mut other)?;
                Ok((silent.join().ok().context("a thread panicked")??, other))
            }
        });
        let (silent, other) = tokio::select! {
            ended = probes => return ended,
            asked = asks => asked??,
        };
        other.success()?;
        let silent = silent.expect_status(255)?;
        ensure!(silent.stderr.contains("does not answer"), "{}", silent.stderr);
        Ok(())
    })?;
    ensure!(world.recorded("session-refused", Some("device-silent"))?, "not recorded");
    Ok(())
}

/// Processes of a worker: children of the agent.
fn workers(agent: &Proc) -> Result<Vec<i32>> {
    let listed = Command::new("pgrep").args(["-P", &agent.pid().to_string()]).output()?;
    Ok(String::from_utf8(listed.stdout)?.lines().filter_map(|line| line.parse().ok()).collect())
}

#[test]
fn a_killed_worker_ends_its_session_and_no_other_and_a_killed_agent_leaves_them() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    let hold = |name: &str| {
        let mut session = world
            .lab
            .spawn(name, world.belay(&["exec", DEVICE, "--", "echo in; exec sleep 600"]))?;
        session.wait_for_log("in", PATIENCE)?;
        anyhow::Ok(session)
    };
    let mut first = hold("first")?;
    let workers_then = workers(world.agents.get(DEVICE).context("no agent")?)?;
    let mut second = hold("second")?;
    // What a worker has not given away yet dies with it: some three seconds.
    world.wait_for("both recordings have begun", || {
        let decisions = world.decisions()?;
        Ok(decisions.iter().filter(|d| d.kind == "recording-started").count() == 2)
    })?;
    let [worker] = workers_then[..] else { bail!("not one worker: {workers_then:?}") };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), Signal::SIGKILL)?;
    assert_eq!(first.wait(PATIENCE)?.code(), Some(255), "{}", first.log());
    ensure!(second.try_wait()?.is_none(), "the other session ended too: {}", second.log());
    works(&world)?;

    let left = workers(world.agents.get(DEVICE).context("no agent")?)?;
    world.agents.get_mut(DEVICE).context("no agent")?.kill()?;
    world.wait_offline(DEVICE)?;
    world.start_agent(DEVICE, "device")?;
    world.wait_online(DEVICE)?;
    works(&world)?;
    ensure!(second.try_wait()?.is_none(), "the agent took its session along: {}", second.log());
    // The new agent has taken the worker over: it notices its end, and everybody hears of it.
    let [worker] = left[..] else { bail!("not one worker left: {left:?}") };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), Signal::SIGKILL)?;
    assert_eq!(second.wait(PATIENCE)?.code(), Some(255), "{}", second.log());
    ensure!(
        second.log().lines().any(|line| line.starts_with("belay: ")),
        "no line says why: {}",
        second.log()
    );
    world.wait_for("both sessions are recorded as closed", || {
        Ok(world.decisions()?.iter().filter(|d| d.kind == "session-closed").count() >= 3)
    })?;
    // And their recordings say that they lack their end, which the device signs.
    world.wait_for("both recordings are recorded as cut", || {
        let decisions = world.decisions()?;
        let ended = decisions.iter().filter(|d| d.kind == "recording-ended");
        let is_cut = |detail: &String| detail.ends_with(", cut");
        Ok(ended.filter(|d| d.detail.as_ref().is_some_and(is_cut)).count() == 2)
    })
}

#[test]
fn a_relay_killed_and_restarted_has_its_devices_back_and_its_records() -> Result<()> {
    let Some(mut world) = World::standard_or_skip()? else { return Ok(()) };
    works(&world)?;
    let recorded = world.decisions()?.len();
    world.relay()?.kill()?;
    world.relay = None;
    world.start_relay()?;
    world.wait_online(DEVICE)?;
    works(&world)?;
    ensure!(world.decisions()?.len() > recorded, "records were lost");

    // Told to stop, it ends in order; a session waits for the next one.
    let mut session = world
        .lab
        .spawn("session", world.belay(&["exec", DEVICE, "--", "echo in; exec sleep 600"]))?;
    session.wait_for_log("in", PATIENCE)?;
    let relay = world.relay()?;
    relay.signal(Signal::SIGTERM)?;
    assert_eq!(relay.wait(PATIENCE)?.code(), Some(0), "{}", relay.log());
    ensure!(world.recorded("session-detached", None)?, "not recorded");
    world.relay = None;
    world.start_relay()?;
    world.wait_online(DEVICE)?;
    world
        .wait_for("the session is taken up again", || world.recorded("session-resumed", None))
        .with_context(|| session.log())?;
    ensure!(session.try_wait()?.is_none(), "the session ended: {}", session.log());
    Ok(())
}

/// A small file system, unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, size: &str) -> Result<Self> {
        fs::create_dir_all(at)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .status()?;
        ensure!(mounted.success(), "cannot mount a tmpfs at {}", at.display());
        Ok(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        match Command::new("umount").arg("-l").arg(self.0).status() {
            Ok(status) if status.success() => {}
            other => {
                belay_tests::lab::loud(&format!("{} stays mounted: {other:?}", self.0.display()))
            }
        }
    }
}

#[test]
fn with_the_stores_disk_full_running_sessions_go_on_and_new_ones_are_refused() -> Result<()> {
    let Some(lab) = Lab::standard_or_skip()? else { return Ok(()) };
    let data = lab.dir().join("relay");
    let _disk = SmallDisk::mount(&data, "8m")?;
    let mut world = World::bare(lab)?;
    world.add_device(DEVICE, "device", &[])?;
    world.wait_online(DEVICE)?;
    let mut session = world.belay(&["exec", DEVICE, "--", "cat"]);
    let mut session =
        session.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn()?;
    let (mut to, mut from) =
        (session.stdin.take().context("stdin")?, session.stdout.take().context("stdout")?);
    let mut echo = |text: &[u8]| -> Result<()> {
        use std::io::{Read as _, Write as _};
        to.write_all(text)?;
        let mut got = vec![0; text.len()];
        from.read_exact(&mut got)?;
        ensure!(got == text, "the session lost bytes");
        Ok(())
    };
    echo(b"before")?;
    let ballast = data.join("ballast");
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "status=none"])
        .arg(format!("of={}", ballast.display()))
        .status()?;
    ensure!(!filled.success(), "the disk is not full");
    let mut last = None;
    // What still fits in the open pages of the log is recorded and allowed.
    world.wait_for("a refusal", || {
        let ran = run(&mut world.belay(&["exec", DEVICE, "--", "true"]))?;
        let refused = ran.status != Some(0);
        last = Some(ran);
        Ok(refused)
    })?;
    let refused = last.context("nothing ran")?.expect_status(255)?;
    ensure!(refused.stderr.contains("store"), "it does not say why: {}", refused.stderr);
    echo(b"while it is full")?;
    ensure!(world.relay()?.try_wait()?.is_none(), "the relay ended");
    fs::remove_file(&ballast)?;
    world.wait_for("sessions open again", || {
        Ok(run(&mut world.belay(&["exec", DEVICE, "--", "true"]))?.status == Some(0))
    })?;
    echo(b"after")?;
    drop(to);
    ensure!(session.wait()?.success(), "the session did not end well");
    Ok(())
}
