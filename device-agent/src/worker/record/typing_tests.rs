#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]
//! How much an hour at a terminal takes: a typist on a clock that is not the wall's.
//!
//! `cargo test -p belay-agent --lib typing -- --nocapture` prints the table.

use belay_proto::ids::{DeviceId, SessionId};
use belay_proto::recording::file::LENGTH;
use belay_proto::recording::{Segment, VERSION};
use belay_tunnel::pki::TlsKey;
use belay_tunnel::recording::{Sealer, recipients};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::*;
use crate::worker::event::Recorded;
use crate::worker::gate::Events;

const HOUR: Duration = Duration::from_secs(3600);

const PROMPT: &str = "\u{1b}[?2004h[support@boiler-west-4 data]$ ";

const COMMANDS: [&str; 12] = [
    "ls -l /srv/data/current",
    "sudo less /etc/nginx/nginx.conf",
    "mosquitto_sub -t 'site/+/temp' -v",
    "cat /sys/class/thermal/thermal_zone0/temp",
    "iptables -L -n -v",
    "rm -rf /tmp/build",
    "./run.sh --verbose",
    "ethtool eth1",
    "modprobe i2c-dev",
    "openssl x509 -in cert.pem -noout -dates",
    "crontab -l",
    "strace -p 4711 -f",
];

/// The same numbers in every run (xorshift, Marsaglia 2003).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// What somebody does for an hour.
#[derive(Clone, Copy)]
struct Habit {
    what: &'static str,
    /// Longest pause between two commands, in milliseconds.
    pause: u64,
    /// Most lines a command writes.
    lines: u64,
    /// What is typed is recorded too: the shell has no line editor, so the terminal echoes each key.
    input: bool,
}

/// Between 4 and 5 keys a second.
async fn type_for_an_hour(track: Track, habit: Habit) {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let begun = Instant::now();
    while begun.elapsed() < HOUR {
        track.output(PROMPT.as_bytes());
        let command = COMMANDS[usize::try_from(chance.below(12)).unwrap()];
        for key in command.bytes() {
            sleep(Duration::from_micros(120_000 + chance.below(200_000))).await;
            if habit.input {
                track.keep(&[key]);
            }
            track.output(&[key]);
        }
        sleep(Duration::from_millis(200)).await;
        track.output(b"\r\n\x1b[?2004l\r");
        for _ in 0..chance.below(habit.lines + 1) {
            let (at, number, value) = (chance.below(60), chance.below(99_999), chance.below(9999));
            let line =
                format!("Nov 26 21:{at:02} {number:>6} pump[{value}]: value {number} ok\r\n");
            track.output(line.as_bytes());
        }
        sleep(Duration::from_millis(chance.below(habit.pause + 1))).await;
    }
}

/// Bytes that the relay stores of it, and segments.
async fn stored(habit: Habit, sealed: bool) -> (usize, usize) {
    let session = SessionId::from_uuid(uuid::Uuid::from_u128(1));
    let device = DeviceId::from_uuid(uuid::Uuid::from_u128(2));
    let auditor = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let sealer = sealed.then(|| Sealer::new(session, &recipients(&[auditor]).unwrap()).unwrap());
    let recorder = Recorder::with_input(Policy::Required);
    let permits = Permits::new();
    let scribe = Scribe::new(&recorder, permits.clone(), sealer);
    let (sender, mut told) = mpsc::channel(64);
    let scribe = tokio::spawn(scribe.write(Events::new(sender, recorder.clone())));
    let size = Winsize { ws_col: 80, ws_row: 24, ws_xpixel: 0, ws_ypixel: 0 };
    let track = recorder.terminal(3, ("xterm-256color", size), None);
    let typist = tokio::spawn(async move {
        type_for_an_hour(track, habit).await;
        recorder.end("enough");
    });
    let key = TlsKey::generate().unwrap();
    let (mut bytes, mut segments, mut before) = (0, 0, [0; 32]);
    while let Some(WorkerEvent::Recorded(recorded)) = told.recv().await {
        permits.heard();
        let (encoded, signed) =
            key.sign_segment(&as_signed(&recorded, (session, device), before)).unwrap();
        before = belay_proto::recording::digest(&encoded);
        bytes += signed.len() + 2 * LENGTH;
        segments += 1;
        if recorded.end == Some(true) {
            break;
        }
    }
    typist.await.unwrap();
    scribe.await.unwrap().unwrap();
    (bytes, segments)
}

fn as_signed(
    recorded: &Recorded,
    (session, device): (SessionId, DeviceId),
    before: [u8; 32],
) -> Segment {
    Segment {
        version: VERSION,
        session,
        device,
        number: recorded.number,
        before: before.to_vec().into(),
        track: recorded.track,
        first_ms: recorded.first_ms,
        last_ms: recorded.last_ms,
        compressed: recorded.compressed,
        sealed: recorded.sealed,
        end: None,
        payload: recorded.payload.clone(),
        key: recorded.key.clone(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_ordinary_typing_takes_less_than_200_kib() {
    let habit = |what, pause, lines| Habit { what, pause, lines, input: false };
    let ordinary = habit("ordinary: commands, output, pauses", 16_000, 8);
    let echoed = Habit { what: "the same, input recorded", input: true, ..ordinary };
    let writing = habit("typing without a pause", 0, 0);
    let busy = habit("commands without a pause, output", 0, 8);
    println!("{:<36} {:>9} {:>9} {:>9}", "an hour of", "segments", "KiB", "sealed");
    for habit in [ordinary, echoed, writing, busy] {
        let (bytes, segments) = stored(habit, false).await;
        let (sealed, _) = stored(habit, true).await;
        let kib = |bytes: usize| format!("{:.0}", bytes as f64 / 1024.0);
        println!("{:<36} {segments:>9} {:>9} {:>9}", habit.what, kib(bytes), kib(sealed));
        if habit.pause > 0 {
            assert!(sealed <= 200 * 1024, "{sealed} bytes");
        }
    }
}
