//! Other people's clients through `belay ssh-config`: OpenSSH's whole family, rsync, git, a client
//! that is not written in C, and a terminal that is looked at.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use belay_tests::world::{DEVICE, PATIENCE, World, run, run_with_input, sha256};

pub(crate) const TARGET: &str = "root@demo.belay";

/// A file of `bytes` that no compressor or cache can shorten.
fn noise(path: &Path, bytes: u64) -> Result<()> {
    let made = Command::new("sh")
        .args(["-c", "exec head -c \"$1\" /dev/urandom >\"$0\""])
        .arg(path)
        .arg(bytes.to_string())
        .status()?;
    ensure!(made.success(), "cannot make {}", path.display());
    Ok(())
}

/// Echoes on the device's own loopback, so only a forward reaches it.
pub(crate) fn echo_on_device(world: &World) -> Result<u16> {
    let listener = world.lab.ns("device").run(|| TcpListener::bind("127.0.0.1:0"))??;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut from = stream.try_clone()?;
                let mut to = stream;
                std::io::copy(&mut from, &mut to)?;
                to.shutdown(std::net::Shutdown::Write)
            });
        }
    });
    Ok(port)
}

pub(crate) fn echoes(stream: &mut TcpStream, bytes: usize) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let sent: Vec<u8> = (0..bytes).map(|n| (n % 249) as u8).collect();
    let mut writer = stream.try_clone()?;
    let copy = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&copy)?;
        writer.shutdown(std::net::Shutdown::Write)
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    writing.join().ok().context("the writer panicked")??;
    ensure!(got == sent, "{} bytes came back of {}", got.len(), sent.len());
    Ok(())
}

pub(crate) fn connect_on_laptop(world: &World, port: u16) -> Result<TcpStream> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut found = None;
    world.wait_for("the forward listens", || {
        found = world.lab.ns("laptop").run(move || TcpStream::connect(address))?.ok();
        Ok(found.is_some())
    })?;
    found.context("no connection")
}

/// RFC 1928: no authentication, then CONNECT to a name that the device resolves.
pub(crate) fn socks_to(socks: &mut TcpStream, port: u16) -> Result<()> {
    socks.set_read_timeout(Some(PATIENCE))?;
    socks.write_all(&[5, 1, 0])?;
    let mut chosen = [0; 2];
    socks.read_exact(&mut chosen)?;
    ensure!(chosen == [5, 0], "the proxy wants {chosen:?}");
    let mut request = vec![5, 1, 0, 3, 9];
    request.extend(b"localhost");
    request.extend(port.to_be_bytes());
    socks.write_all(&request)?;
    let mut answer = [0; 10];
    socks.read_exact(&mut answer)?;
    ensure!(answer[1] == 0, "the proxy refused: {answer:?}");
    Ok(())
}

#[test]
fn scp_in_both_modes_sftp_rsync_and_git_move_files_whole() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let dir = world.path("files");
    fs::create_dir_all(&dir)?;
    let file = dir.join("a file");
    noise(&file, 5_000_003)?;
    let digest = sha256(&file)?;
    for (name, mode) in [("sftp-mode", "-s"), ("scp-mode", "-O")] {
        let there = dir.join(format!("{name}.up"));
        let back = dir.join(format!("{name}.down"));
        run(world.openssh("scp")?.args([mode, "-p"]).arg(&file).arg(remote(&there)))?.success()?;
        run(world.openssh("scp")?.args([mode, "-p"]).arg(remote(&there)).arg(&back))?.success()?;
        assert_eq!(sha256(&back)?, digest, "{name}");
    }
    let batch = format!(
        "put \"{0}\" {1}/by-sftp\nrename {1}/by-sftp {1}/renamed\nchmod 600 {1}/renamed\n\
         ln -s renamed {1}/link\nls -l {1}\nget {1}/link {1}/fetched\nrm {1}/link\nmkdir {1}/d\n\
         rmdir {1}/d\ndf {1}\n",
        file.display(),
        dir.display()
    );
    let listed =
        run_with_input(world.openssh("sftp")?.args(["-b", "-", TARGET]), batch.as_bytes())?
            .success()?;
    assert!(listed.stdout.contains("renamed"), "{}", listed.stdout);
    assert_eq!(sha256(&dir.join("fetched"))?, digest);

    let config = world.ssh_config("admin")?;
    let ssh = format!("ssh -F {} -o BatchMode=yes", config.display());
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("sub"))?;
    fs::write(tree.join("sub/x"), "x")?;
    noise(&tree.join("big"), 3_000_000)?;
    let mut rsync = world.lab.ns("laptop").command("rsync");
    rsync.args(["-a", "-e", &ssh]).arg(format!("{}/", tree.display()));
    run(rsync.arg(format!("{TARGET}:{}/mirror/", dir.display())))?.success()?;
    assert_eq!(sha256(&dir.join("mirror/big"))?, sha256(&tree.join("big"))?);

    let repository = dir.join("repository");
    let script = "git init -q \"$0\" && cd \"$0\" && echo hi >f && git add f && \
                  git -c user.name=a -c user.email=a@b commit -qm c";
    run(Command::new("sh").args(["-c", script]).arg(&repository))?.success()?;
    let mut git = world.lab.ns("laptop").command("git");
    git.env("GIT_SSH_COMMAND", &ssh).args(["-c", "safe.directory=*", "clone", "-q"]);
    let clone = dir.join("clone");
    run(git.arg(format!("{TARGET}:{}", repository.display())).arg(&clone))?.success()?;
    assert_eq!(fs::read_to_string(clone.join("f"))?, "hi\n");
    Ok(())
}

pub(crate) fn remote(path: &Path) -> String {
    format!("{TARGET}:{}", path.display())
}

#[test]
fn a_gibibyte_each_way_survives_rekeying() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let (file, there, back) = (world.path("big"), world.path("big.up"), world.path("big.down"));
    noise(&file, 1 << 30)?;
    let digest = sha256(&file)?;
    let rekey = ["-o", "RekeyLimit=100M"];
    run(world.openssh("scp")?.args(rekey).arg(&file).arg(remote(&there)))?.success()?;
    assert_eq!(sha256(&there)?, digest, "on the way to the device");
    run(world.openssh("scp")?.args(rekey).arg(remote(&there)).arg(&back))?.success()?;
    assert_eq!(sha256(&back)?, digest, "on the way from the device");
    Ok(())
}

#[test]
fn local_and_dynamic_forwards_reach_what_only_the_device_reaches() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let port = echo_on_device(&world)?;
    let mut ssh = world.openssh("ssh")?;
    ssh.args(["-N", "-o", "ExitOnForwardFailure=yes"]);
    ssh.args(["-L", &format!("127.0.0.1:7001:127.0.0.1:{port}")]);
    ssh.args(["-D", "127.0.0.1:7002", TARGET]);
    let _ssh = world.lab.spawn("ssh-forward", ssh)?;
    echoes(&mut connect_on_laptop(&world, 7001)?, 2_000_000)?;

    let mut socks = connect_on_laptop(&world, 7002)?;
    socks_to(&mut socks, port)?;
    echoes(&mut socks, 500_000)?;

    let refused = run(world.openssh("ssh")?.args(["-W", "169.254.169.254:80", TARGET]))?;
    assert_ne!(refused.status, Some(0), "the metadata address was dialled");
    Ok(())
}

#[test]
fn three_sessions_share_one_control_master() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let socket = world.path("master");
    let shared = |command: &mut Command| {
        command.arg("-o").arg(format!("ControlPath={}", socket.display()));
    };
    let mut master = world.openssh("ssh")?;
    shared(&mut master);
    master.args(["-M", "-N", TARGET]);
    let _master = world.lab.spawn("ssh-master", master)?;
    world.wait_for("the master's socket", || Ok(socket.exists()))?;
    let input: Vec<u8> = (0..2_000_000u32).map(|n| (n % 253) as u8).collect();
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..3)
            .map(|n| {
                let input = &input;
                let world = &world;
                scope.spawn(move || -> Result<()> {
                    let mut ssh = world.openssh("ssh")?;
                    shared(&mut ssh);
                    ssh.args(["-o", "ControlMaster=no", TARGET]).arg(format!("cat; exit {n}"));
                    let ran = run_with_input(&mut ssh, input)?.expect_status(n)?;
                    ensure!(&ran.bytes == input, "session {n} lost bytes");
                    Ok(())
                })
            })
            .collect();
        sessions.into_iter().try_for_each(|s| s.join().ok().context("a session panicked")?)
    })?;
    let opened = world.decisions()?.iter().filter(|d| d.kind == "session-opened").count();
    assert_eq!(opened, 1, "the three ran inside one session");
    Ok(())
}

#[test]
fn a_client_not_written_in_c_runs_commands_and_moves_files() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    if run(Command::new("/usr/bin/python3").args(["-c", "import paramiko"]))?.success().is_err() {
        belay_tests::lab::loud("SKIPPED paramiko test: python3-paramiko is not installed");
        return Ok(());
    }
    let script = r#"
import hashlib, os, sys, paramiko
belay, home, host_key, scratch = sys.argv[1:]
key = paramiko.Ed25519Key.from_private_key_file(os.path.join(home, "id_ed25519"))
key.load_certificate(os.path.join(home, "id_ed25519-cert.pub"))
os.environ["BELAY_HOME"] = home
transport = paramiko.Transport(paramiko.ProxyCommand(belay + " proxy demo.belay --login root"))
transport.start_client(timeout=30)
assert transport.get_remote_server_key().get_base64() == host_key, "another host key"
transport.auth_publickey("root", key)
channel = transport.open_session()
channel.exec_command("cat; echo error >&2; exit 3")
blob = os.urandom(300000)
channel.sendall(blob); channel.shutdown_write()
got = b""
while True:
    piece = channel.recv(65536)
    if not piece: break
    got += piece
assert got == blob, "stdout"
assert channel.recv_stderr(100) == b"error\n", "stderr"
assert channel.recv_exit_status() == 3, "status"
sftp = paramiko.SFTPClient.from_transport(transport)
path = os.path.join(scratch, "by-paramiko")
with sftp.open(path, "wb") as f: f.write(blob * 20)
with sftp.open(path, "rb") as f: assert f.read() == blob * 20, "sftp"
assert sftp.stat(path).st_size == 6000000
assert "by-paramiko" in sftp.listdir(scratch)
sftp.remove(path)
print("ok")
"#;
    let scratch = world.path("paramiko");
    fs::create_dir_all(&scratch)?;
    let certificate = fs::read_to_string(world.device_state(DEVICE).join("ssh_host_ed25519_key"))?;
    ensure!(certificate.contains("OPENSSH PRIVATE KEY"), "no host key");
    let public = run(Command::new("ssh-keygen")
        .args(["-y", "-f"])
        .arg(world.device_state(DEVICE).join("ssh_host_ed25519_key")))?
    .success()?
    .stdout;
    let public = public.split_whitespace().nth(1).context("no public key")?.to_owned();
    let mut python = world.lab.ns("laptop").command("/usr/bin/python3");
    python.args(["-c", script]).arg(belay_tests::world::binary("belay")).arg(world.home("admin"));
    let ran = run(python.arg(public).arg(&scratch))?.success()?;
    assert_eq!(ran.stdout, "ok\n");
    Ok(())
}

/// A terminal emulator with a session in it, looked at through its screen.
struct Screen<'a> {
    world: &'a World,
    socket: String,
}

impl<'a> Screen<'a> {
    fn open(world: &'a World, socket: &str, command: &str) -> Result<Self> {
        let screen = Self { world, socket: socket.to_owned() };
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", command])?;
        Ok(screen)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let mut tmux = self.world.lab.ns("laptop").command("tmux");
        tmux.env_remove("TMUX").env("LANG", "C.UTF-8").args(["-L", &self.socket]).args(arguments);
        Ok(run(&mut tmux)?.success()?.stdout)
    }

    fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    fn text(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    fn wait_for(&self, what: &str) -> Result<String> {
        let mut last = String::new();
        let waited = self.world.wait_for(what, || {
            last = self.text()?;
            Ok(last.contains(what))
        });
        waited.with_context(|| format!("the screen:\n{last}"))?;
        Ok(last)
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.tmux(&["kill-server"]) {
            belay_tests::lab::loud(&format!("tmux was gone already: {error}"));
        }
    }
}

#[test]
fn vim_and_top_look_through_the_line_as_they_look_at_home() -> Result<()> {
    let Some(world) = World::standard_or_skip()? else { return Ok(()) };
    let text: String =
        (1..=60).map(|n| format!("line {n} \u{e5}\u{4e2d} {}\n", "=".repeat(n))).collect();
    let file = world.path("poem");
    fs::write(&file, text)?;
    let editor = format!("LANG=C.UTF-8 vim -u NONE -i NONE -n '+set noruler' {}", file.display());
    let local = Screen::open(
        &world,
        "local",
        &format!("env -i TERM=screen HOME=/root PATH=$PATH sh -c \"{editor}\""),
    )?;
    let config = world.ssh_config("admin")?;
    let far = Screen::open(&world, "far", &format!("ssh -F {} {TARGET}", config.display()))?;
    far.keys(&["PS1=ready-; stty size", "Enter"])?;
    far.wait_for("30 100")?;
    far.keys(&[&editor, "Enter"])?;
    for screen in [&local, &far] {
        screen.wait_for("line 29")?;
        screen.keys(&["40G", "dd", "ihello", "Escape"])?;
        screen.wait_for("helloline 41")?;
    }
    world
        .wait_for("both screens are the same", || Ok(local.text()? == far.text()?))
        .with_context(|| format!("{:?}\n---\n{:?}", local.text().ok(), far.text().ok()))?;
    far.keys(&[":q!", "Enter"])?;
    far.keys(&["clear; top", "Enter"])?;
    far.wait_for("PID USER")?;
    far.tmux(&["resize-window", "-x", "120", "-y", "40"])?;
    far.keys(&["q"])?;
    thread::sleep(Duration::from_millis(300));
    far.keys(&["clear; stty size; who am i; tty", "Enter"])?;
    far.wait_for("40 120")?;
    far.keys(&["exit 5", "Enter"])?;
    world
        .wait_for("the session is recorded as closed", || world.recorded("session-closed", None))?;
    Ok(())
}
