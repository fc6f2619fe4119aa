//! What an engineer does with OpenSSH's tools.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;

use crate::rig::{Background, Rig, eventually, have, have_ssh, pattern, run, write};

#[test]
fn a_command_has_its_streams_its_status_and_its_environment() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let out = rig.ssh("echo out; echo err >&2; exit 7");
    assert_eq!((out.code(), out.text().as_str(), out.stderr.trim()), (Some(7), "out", "err"));

    let out =
        rig.ssh("echo $USER $LOGNAME $BELAY_USER; test -n \"$SSH_CONNECTION\" && pwd -P").ok();
    let text = out.text();
    let login = rig.login();
    assert!(text.starts_with(&format!("{login} {login} ada\n/")), "{text}");

    let out = rig.ssh("kill -TERM $$");
    assert_eq!(out.code(), Some(255), "ssh says 255 for a program killed by a signal");
}

#[test]
fn a_program_inherits_nothing_of_the_worker() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let fds = rig.ssh("ls /proc/self/fd").ok().text();
    // The fourth is ls's own, of the directory.
    assert_eq!(fds.lines().count(), 4, "{fds}");
    let status = rig.ssh("grep -E '^Sig(Blk|Ign):' /proc/self/status").ok().text();
    // 32 and 33 are the C library's own, which nobody else may touch.
    const THREADS: u64 = 3 << 31;
    let sets = status.lines().map(|line| line.rsplit('\t').next().unwrap());
    assert!(
        sets.map(|set| u64::from_str_radix(set, 16).unwrap()).all(|set| set & !THREADS == 0),
        "{status}"
    );
    let env =
        rig.ssh_with(&[], &["-oSetEnv=LD_PRELOAD=/x BASH_ENV=/x LC_TIME=C"], "env").ok().text();
    assert!(
        env.contains("LC_TIME=C") && !env.contains("LD_PRELOAD") && !env.contains("BASH_ENV"),
        "{env}"
    );
}

#[test]
fn a_terminal_has_its_size_its_owner_and_its_control() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let script = "tty && stat -c %U $(tty) && test \"$SSH_TTY\" = \"$(tty)\" && echo $TERM && ps -o tpgid= -p $$ | grep -qv -- -1";
    let out =
        run(rig.client("ssh", &[]).env("TERM", "vt100").args(["-tt", "x", script]), Vec::new())
            .ok();
    let text = out.text().replace('\r', "");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{text}");
    assert_eq!(&lines[1..], [rig.login(), "vt100"]);
}

#[test]
fn a_login_shell_ends_with_its_status() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let out = run(rig.client("ssh", &[]).args(["-tt", "x"]), b"echo [$0]; exit 5\n".to_vec());
    assert_eq!(out.code(), Some(5));
    assert!(out.text().contains("[-"), "argv[0] of a login shell: {}", out.text());
}

#[test]
fn a_background_program_does_not_hold_a_terminal_but_holds_a_pipe() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let started = std::time::Instant::now();
    rig.ssh_with(&[], &["-tt"], "nohup sleep 20 >/dev/null 2>&1 & true").ok();
    assert!(started.elapsed().as_secs() < 10);
    let out = rig.ssh("(sleep 1; echo late) & echo early").ok();
    assert_eq!(out.text(), "early\nlate");
}

#[test]
fn bytes_arrive_whole_both_ways_through_many_key_exchanges() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let sent = pattern(20_000_000);
    for (worker, client) in
        [(vec![], "-oRekeyLimit=1M"), (vec!["--rekey-bytes 1000000"], "-oRekeyLimit=default")]
    {
        let out = run(rig.client("ssh", &worker).args([client, "x", "cat"]), sent.clone()).ok();
        assert!(out.stdout == sent, "{} of {} bytes", out.stdout.len(), sent.len());
    }
}

#[test]
fn files_are_copied_in_both_modes_of_scp_and_by_sftp() {
    if !have_ssh() || !have("scp") || !have("sftp") {
        return;
    }
    let rig = Rig::new();
    let (from, there, back) = (rig.path("from"), rig.path("there"), rig.path("back"));
    write(&from, &pattern(3_000_001));
    std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o640)).unwrap();
    for mode in ["-s", "-O"] {
        let scp = |a: String, b: String| {
            run(rig.client("scp", &[]).args(["-q", "-p", mode, &a, &b]), vec![]).ok()
        };
        scp(from.display().to_string(), format!("x:{}", there.display()));
        scp(format!("x:{}", there.display()), back.display().to_string());
        assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&back).unwrap());
        assert_eq!(std::fs::metadata(&back).unwrap().permissions().mode() & 0o777, 0o640);
        std::fs::remove_file(&back).unwrap();
        std::fs::remove_file(&there).unwrap();
    }
    let (batch, dir) = (rig.path("batch"), rig.path("dir"));
    let (dir_s, from_s, back_s) = (dir.display(), from.display(), back.display());
    write(
        &batch,
        format!(
            "mkdir {dir_s}\nput {from_s} {dir_s}/a\nrename {dir_s}/a {dir_s}/b\nln -s b {dir_s}/l\n\
             ls -l {dir_s}\ndf {dir_s}\nget {dir_s}/l {back_s}\nrm {dir_s}/*\nrmdir {dir_s}\n"
        )
        .as_bytes(),
    );
    run(rig.client("sftp", &[]).arg("-b").arg(&batch).arg("x"), vec![]).ok();
    assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&back).unwrap());
    assert!(!dir.exists());
}

/// A server that sends back what it gets.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut copy = stream.try_clone().unwrap();
                drop(std::io::copy(&mut copy, &mut stream));
                drop(stream.shutdown(std::net::Shutdown::Write));
            });
        }
    });
    port
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn talk(stream: &mut TcpStream, sent: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(crate::rig::PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.to_vec();
    let feeder = thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    feeder.join().unwrap();
    received
}

#[test]
fn forwards_carry_bytes_and_half_closes_from_either_end() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let target = echo_server();
    let (local, remote) = (free_port(), free_port());
    let mut ssh = rig.client("ssh", &[]);
    ssh.args(["-N", "-oExitOnForwardFailure=yes"])
        .arg(format!("-L{local}:127.0.0.1:{target}"))
        .arg(format!("-R{remote}:127.0.0.1:{target}"))
        .arg("x");
    let ssh = Background::start(&mut ssh);
    let sent = pattern(5_000_000);
    for port in [local, remote] {
        let mut stream = None;
        eventually("the forward listens", || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        assert!(talk(&mut stream.unwrap(), &sent) == sent, "port {port}");
    }
    ssh.stop();
    eventually("the remote listener is gone with its session", || {
        TcpStream::connect(("127.0.0.1", remote)).is_err()
    });
}

#[test]
fn three_sessions_share_a_connection() {
    if !have_ssh() {
        return;
    }
    let rig = Rig::new();
    let (_master, shared) = rig.master();
    let through = |command: &str| run(&mut shared.ssh(command), Vec::new());
    let outs: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (1..=3)
            .map(|n| scope.spawn(move || through(&format!("sleep 0.2; echo {n}; exit {n}"))))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (n, out) in (1..).zip(outs) {
        assert_eq!((out.code(), out.text()), (Some(n), n.to_string()));
    }
}

#[test]
fn an_agent_is_forwarded_through_a_private_socket() {
    if !have_ssh() || !have("ssh-agent") || !have("ssh-add") {
        return;
    }
    let rig = Rig::new();
    let socket = rig.path("agent");
    let agent = Background::start(Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket));
    eventually("the agent listens", || socket.exists());
    run(Command::new("ssh-add").env("SSH_AUTH_SOCK", &socket).arg(rig.path("plain")), vec![]).ok();
    let forward = format!("-oForwardAgent={}", socket.display());
    let present = format!("-oIdentityAgent={}", socket.display());
    let out = rig
        .ssh_with(
            &[],
            &[&forward, &present],
            "ssh-add -L; stat -c %a $(dirname $SSH_AUTH_SOCK); echo $SSH_AUTH_SOCK",
        )
        .ok();
    let refused =
        rig.ssh_with(&["--action exec"], &[&forward, &present], "echo [$SSH_AUTH_SOCK]").ok();
    agent.stop();
    let key = std::fs::read_to_string(rig.path("plain.pub")).unwrap();
    let text = out.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0].split(' ').nth(1), key.split(' ').nth(1));
    assert_eq!(lines[1], "700");
    assert!(!std::path::Path::new(lines[2]).exists(), "the socket goes with the session");
    assert_eq!(refused.text(), "[]", "not granted, not there, and no reason to end");
}
