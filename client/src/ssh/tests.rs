//! The client against a real SSH server on the other end of a pipe.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use belay_tunnel::clock;
use russh::keys::{Certificate, PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session};
use russh::{Channel, ChannelId, CryptoVec, Sig};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::Ed25519Keypair;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connect::handshake;
use super::*;
use crate::failure::Failure;
use crate::home::SshIdentity;
use crate::kept::Weather;
use crate::stdio::{Sink, Source};
use crate::terminal::Local;

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn certificate(kind: CertType, ca: u8, holder: u8, principal: &str) -> Certificate {
    // The server's library judges by the machine's own clock.
    let now = clock::now().0;
    let mut builder =
        Builder::new(vec![1; 16], key(holder).public_key(), now - 3600, now + 3600).unwrap();
    builder.cert_type(kind).unwrap();
    builder.valid_principal(principal).unwrap();
    builder.sign(&key(ca)).unwrap()
}

const HOST_CA: u8 = 1;
const USER_CA: u8 = 2;
const HOST: u8 = 3;
const ENGINEER: u8 = 4;

/// A device that does what the command's first word says.
#[derive(Clone, Default)]
struct Device {
    asked_to_authenticate: Arc<AtomicUsize>,
    environment: Arc<Mutex<Vec<(String, String)>>>,
    refuse_login: bool,
    work: Option<String>,
    received: usize,
}

impl server::Handler for Device {
    type Error = russh::Error;

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        shown: &Certificate,
    ) -> Result<Auth, russh::Error> {
        self.asked_to_authenticate.fetch_add(1, Ordering::SeqCst);
        let known = shown.signature_key() == key(USER_CA).public_key().key_data();
        if known && user == "root" && !self.refuse_login {
            return Ok(Auth::Accept);
        }
        Ok(Auth::reject())
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn env_request(
        &mut self,
        _: ChannelId,
        name: &str,
        value: &str,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.environment.lock().unwrap().push((name.into(), value.into()));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let command = String::from_utf8(command.to_vec()).unwrap();
        if command == "refuse" {
            session.channel_failure(channel)?;
            return Ok(());
        }
        session.channel_success(channel)?;
        let (work, argument) = command.split_once(' ').unwrap_or((&command, ""));
        match work {
            "exit" => {
                session.data(channel, CryptoVec::from_slice(b"to out\n").to_vec())?;
                session.extended_data(channel, 1, b"to err\n".to_vec())?;
                session.exit_status_request(channel, argument.parse().unwrap())?;
                session.eof(channel)?;
                session.close(channel)?;
            }
            "signal" => {
                let signal = Sig::TERM;
                session.exit_signal_request(channel, signal, false, "", "")?;
                session.close(channel)?;
            }
            "vanish" => session.close(channel)?,
            "hangup" => session.disconnect(
                russh::Disconnect::ByApplication,
                "belay: your time is over",
                "",
            )?,
            _ => {}
        }
        self.work = Some(work.into());
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.received += data.len();
        if self.work.as_deref() == Some("echo") {
            session.data(channel, data.to_vec())?;
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.exit_status_request(channel, 0)?;
        session.eof(channel)?;
        session.close(channel)?;
        Ok(())
    }
}

struct Setup {
    host_certificate: Option<Certificate>,
    device: Device,
    limits: russh::Limits,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            host_certificate: Some(certificate(CertType::Host, HOST_CA, HOST, "pump-17")),
            device: Device::default(),
            limits: russh::Limits::default(),
        }
    }
}

struct Ran {
    result: Result<Exit, Failure>,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Setup {
    async fn connect(self, out: File, err: File) -> Result<Connected, Failure> {
        // As the session's stream it holds more than the device's window, so this end, which does
        // not read while it writes, can always write; else both might wait for each other.
        let (ours, theirs) = tokio::io::duplex(2 * 1024 * 1024);
        let config = server::Config {
            keys: vec![key(HOST)],
            certificates: self.host_certificate.into_iter().collect(),
            limits: self.limits,
            auth_rejection_time: Duration::from_millis(1),
            window_size: 1024 * 1024,
            ..server::Config::default()
        };
        let device = self.device;
        // Ends with its stream, which ends with the test.
        tokio::spawn(async move {
            if let Ok(running) = server::run_stream(Arc::new(config), theirs, device).await {
                running.await.ok();
            }
        });
        let identity = SshIdentity {
            key: Arc::new(key(ENGINEER)),
            certificate: certificate(CertType::User, USER_CA, ENGINEER, "anna"),
        };
        let trust = Box::new(|| HostTrust {
            cas: vec![PublicKey::from(key(HOST_CA).public_key().key_data().clone())],
            names: vec!["pump-17".into()],
            now: clock::now(),
        });
        let sinks =
            (Arc::new(Sink::of(out.into()).unwrap()), Arc::new(Sink::of(err.into()).unwrap()));
        let account = "root".parse().unwrap();
        handshake(ours, identity, &account, trust, sinks).await
    }

    fn exec(self, command: &str, stdin: Vec<u8>) -> Ran {
        let ((out_read, out), (err_read, err), (input, input_write)) = (pipe(), pipe(), pipe());
        let writing = std::thread::spawn(move || {
            // The session may end without reading it all.
            (&input_write).write_all(&stdin).ok();
        });
        let (out_bytes, err_bytes) = (drain(out_read), drain(err_read));
        let result = bounded(async {
            let connected = self.connect(out, err).await?;
            run_exec(connected, command, input).await
        });
        writing.join().unwrap();
        Ran { result, out: out_bytes.join().unwrap(), err: err_bytes.join().unwrap() }
    }
}

/// Runs a session in a runtime of its own. When it returns, every task of the session is gone, and
/// with them their ends of the pipes.
fn bounded<T>(session: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, session).await }).expect("the session hangs")
}

async fn run_exec(mut connected: Connected, command: &str, input: File) -> Result<Exit, Failure> {
    let job = Job {
        work: Work::Exec(command.into()),
        pty: None,
        environment: vec![("LANG".into(), "C.UTF-8".into())],
    };
    let mut local = Local::new(false).unwrap();
    run(
        &mut connected,
        &job,
        Source::of(input.into()).unwrap(),
        &mut local,
        watch::channel(Weather::Fair).1,
    )
    .await
}

fn pipe() -> (File, File) {
    let (read, write) = std::io::pipe().unwrap();
    (File::from(std::os::fd::OwnedFd::from(read)), File::from(std::os::fd::OwnedFd::from(write)))
}

fn drain(mut from: File) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

#[test]
fn a_command_has_its_own_status_and_its_two_outputs_apart() {
    let environment = Arc::default();
    let device = Device { environment: Arc::clone(&environment), ..Device::default() };
    let ran = Setup { device, ..Setup::default() }.exec("exit 7", Vec::new());
    assert_eq!(ran.result, Ok(Exit(7)));
    assert_eq!((ran.out.as_slice(), ran.err.as_slice()), (&b"to out\n"[..], &b"to err\n"[..]));
    assert_eq!(*environment.lock().unwrap(), [("LANG".to_owned(), "C.UTF-8".to_owned())]);
}

#[test]
fn death_by_a_signal_reads_as_a_shell_says_it() {
    let ran = Setup::default().exec("signal", Vec::new());
    assert_eq!(ran.result, Ok(Exit(143)));
}

#[test]
fn bulk_data_both_ways_survives_many_key_exchanges() {
    let sent: Vec<u8> =
        (0..24u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let limits = russh::Limits::new(1 << 20, 1 << 20, Duration::from_secs(3600));
    let ran = Setup { limits, ..Setup::default() }.exec("echo", sent.clone());
    assert_eq!(ran.result, Ok(Exit(0)));
    assert!(ran.out == sent, "{} of {} bytes came back alike", ran.out.len(), sent.len());
}

#[test]
fn a_refused_command_says_so() {
    let failure = Setup::default().exec("refuse", Vec::new()).result.unwrap_err();
    assert!(failure.to_string().contains("the device refused to run it"), "{failure}");
}

#[test]
fn an_end_without_a_status_is_a_lost_session_and_a_goodbye_is_shown() {
    let failure = Setup::default().exec("vanish", Vec::new()).result.unwrap_err();
    assert_eq!(failure.token(), "line-lost", "{failure}");
    let failure = Setup::default().exec("hangup", Vec::new()).result.unwrap_err();
    assert!(failure.to_string().contains("your time is over"), "{failure}");
}

#[test]
fn a_device_that_proves_nothing_gets_nothing() {
    for host_certificate in [
        None,
        Some(certificate(CertType::Host, USER_CA, HOST, "pump-17")),
        Some(certificate(CertType::Host, HOST_CA, HOST, "pump-18")),
        Some(certificate(CertType::User, HOST_CA, HOST, "pump-17")),
    ] {
        let asked = Arc::default();
        let device = Device { asked_to_authenticate: Arc::clone(&asked), ..Device::default() };
        let has_one = host_certificate.is_some();
        let ran = Setup { host_certificate, device, ..Setup::default() }.exec("exit 0", vec![]);
        let failure = ran.result.unwrap_err();
        if has_one {
            assert_eq!(failure.token(), "host-not-proved", "{failure}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0, "a certificate was shown to a stranger");
    }
}

#[test]
fn a_certificate_the_device_does_not_take_is_one_line() {
    let device = Device { refuse_login: true, ..Device::default() };
    let ran = Setup { device, ..Setup::default() }.exec("exit 0", Vec::new());
    let failure = ran.result.unwrap_err();
    assert!(failure.to_string().contains("did not take your certificate"), "{failure}");
}

#[test]
fn a_reader_that_goes_away_ends_the_session_as_a_closed_pipe_does() {
    let ((out_read, out), (_err_read, err), (input, input_write)) = (pipe(), pipe(), pipe());
    let feeding = std::thread::spawn(move || {
        let block = vec![7; 64 * 1024];
        while (&input_write).write_all(&block).is_ok() {}
    });
    let session = async {
        let connected = Setup::default().connect(out, err).await.unwrap();
        let mut first = [0];
        let reading = std::thread::spawn(move || {
            (&out_read).read_exact(&mut first).unwrap();
        });
        let result = run_exec(connected, "echo", input).await;
        reading.join().unwrap();
        result
    };
    assert_eq!(bounded(session), Ok(Exit(141)));
    feeding.join().unwrap();
}

#[test]
fn a_program_that_writes_all_before_it_reads_is_not_stopped_short_of_a_window() {
    // 3 MiB of echo nobody reads until everything is sent.
    let ((out_read, out), (_err_read, err), (input, input_write)) = (pipe(), pipe(), pipe());
    let total = 3 << 20;
    let program = std::thread::spawn(move || {
        (&input_write).write_all(&vec![7; total]).unwrap();
        drop(input_write);
        drain(out_read).join().unwrap().len()
    });
    let session = async {
        let connected = Setup::default().connect(out, err).await.unwrap();
        run_exec(connected, "echo", input).await
    };
    assert_eq!(bounded(session), Ok(Exit(0)));
    assert_eq!(program.join().unwrap(), total);
}
