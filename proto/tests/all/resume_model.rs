//! Two ends of a resumable stream in a world that breaks it at every byte: attachments cut and
//! replaced in any order, slow applications, full buffers, lost time. What must hold is checked
//! after every step, and that nothing is missing once the world is quiet.
//!
//! Every case is its seed. `BELAY_SEED=n` runs that one alone.
#![allow(clippy::print_stderr, reason = "a failure names its seed")]

use std::collections::VecDeque;
use std::time::Duration;

use belay_proto::resume::{Config, Output, Received, ResetCode, Resume};
use bytes::Bytes;

const CASES: u64 = 4_000;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and every seed is a good one.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Mostly small, now and then large.
    fn size(&mut self, most: usize) -> usize {
        let bits = self.below(usize::BITS as usize - most.leading_zeros() as usize + 1);
        self.below(1 << bits).min(most)
    }
}

fn pattern(side: usize, at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 13) as u8 ^ side as u8
}

/// One direction of one attachment: what was written and not yet delivered.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    cut: bool,
}

/// Transports hold this much before a writer waits.
const PIPE: usize = 300_000;

struct End {
    resume: Resume,
    config: Config,
    /// The attachment it believes in; `None` when it knows it has none.
    on: Option<usize>,
    /// The youngest it was ever on.
    latest: Option<usize>,
    written: u64,
    finished: bool,
    reset: Option<ResetCode>,
    read: u64,
    end: Option<Received>,
    acknowledged: u64,
    closed: usize,
    /// It has ended its side of the attachment, as a driver does once it is closed.
    hung_up: bool,
    silent: bool,
}

struct World {
    ends: [End; 2],
    /// `pipes[attachment][side]` is what `side` wrote.
    pipes: Vec<[Pipe; 2]>,
    now: Duration,
}

impl World {
    fn new(chance: &mut Chance) -> Self {
        let mut end = || {
            let sizes = [1, 64 << 10, 100_000, 1 << 20];
            let config = Config { replay: sizes[chance.below(4)], window: sizes[chance.below(4)] };
            let (replay, window) = (config.replay.max(64 << 10), config.window.max(64 << 10));
            End {
                resume: Resume::new(config),
                config: Config { replay, window },
                on: None,
                latest: None,
                written: 0,
                finished: false,
                reset: None,
                read: 0,
                end: None,
                acknowledged: 0,
                closed: 0,
                hung_up: false,
                silent: false,
            }
        };
        Self { ends: [end(), end()], pipes: Vec::new(), now: Duration::from_secs(100) }
    }

    fn dial(&mut self) {
        self.pipes.push(Default::default());
    }

    /// An end takes an attachment it has not been on yet, or learns of none.
    fn attach(&mut self, side: usize, chance: &mut Chance) {
        let end = &mut self.ends[side];
        let first = end.latest.map_or(0, |latest| latest + 1);
        if first < self.pipes.len() {
            let skip = if chance.one_in(4) { chance.below(self.pipes.len() - first) } else { 0 };
            let on = if chance.one_in(2) { self.pipes.len() - 1 } else { first + skip };
            end.on = Some(on);
            end.latest = Some(on);
            end.hung_up = false;
            end.resume.handle_attached(self.now);
        }
    }

    fn detach(&mut self, side: usize) {
        if self.ends[side].on.take().is_some() {
            self.ends[side].resume.handle_detached();
        }
    }

    /// Breaks an attachment at any byte in both directions. The ends do not know.
    fn cut(&mut self, chance: &mut Chance) {
        if self.pipes.is_empty() {
            return;
        }
        let at = self.pipes.len() - 1 - chance.size(self.pipes.len() - 1).min(self.pipes.len() - 1);
        for pipe in &mut self.pipes[at] {
            let kept = if pipe.bytes.is_empty() { 0 } else { chance.below(pipe.bytes.len() + 1) };
            pipe.bytes.truncate(kept);
            pipe.cut = true;
        }
    }

    fn write(&mut self, side: usize, length: usize) {
        let end = &mut self.ends[side];
        if end.finished || end.reset.is_some() {
            return;
        }
        let bytes: Vec<u8> = (0..length as u64).map(|i| pattern(side, end.written + i)).collect();
        let room = end.resume.room();
        let taken = if length.is_multiple_of(3) {
            end.resume.handle_send_slice(&bytes)
        } else {
            let mut bytes = Bytes::from(bytes);
            end.resume.handle_send(&mut bytes);
            length - bytes.len()
        };
        assert_eq!(taken, room.min(length), "takes what there is room for");
        end.written += taken as u64;
    }

    fn read(&mut self, side: usize, most: usize) {
        let end = &mut self.ends[side];
        match end.resume.poll_received_up_to(most) {
            None => {}
            Some(Received::Data(bytes)) => {
                assert!(end.end.is_none(), "data after the end");
                assert!(!bytes.is_empty() && bytes.len() <= most);
                for byte in bytes {
                    assert_eq!(byte, pattern(1 - side, end.read), "at {}", end.read);
                    end.read += 1;
                }
            }
            Some(last) => {
                assert!(end.end.replace(last).is_none(), "the end comes once");
            }
        }
    }

    fn transmit(&mut self, side: usize, budget: usize) -> bool {
        let end = &mut self.ends[side];
        let Some(on) = end.on.filter(|_| !end.hung_up) else { return false };
        let pipe = &mut self.pipes[on][side];
        if pipe.bytes.len() >= PIPE {
            return false;
        }
        let mut pieces = Vec::new();
        let count = end.resume.poll_transmit(budget, self.now, &mut pieces);
        assert_eq!(count, pieces.iter().map(Bytes::len).sum::<usize>());
        assert!(count <= budget + (64 << 10) + 200, "{count} bytes for a budget of {budget}");
        assert!(pieces.iter().all(|piece| !piece.is_empty()), "an empty piece");
        if !pipe.cut {
            pipe.bytes.extend(pieces.iter().flatten());
        }
        end.hung_up = count == 0 && end.resume.is_closed();
        count > 0
    }

    fn deliver(&mut self, side: usize, most: usize) -> bool {
        let end = &mut self.ends[side];
        let Some(on) = end.on else { return false };
        let pipe = &mut self.pipes[on][1 - side];
        let bytes: Bytes = pipe.bytes.drain(..most.min(pipe.bytes.len())).collect();
        let some = !bytes.is_empty();
        if let Err(violation) = end.resume.handle_bytes(bytes, self.now) {
            panic!("an honest end is accused: {violation}");
        }
        some
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for end in &mut self.ends {
            if end.resume.poll_timeout().is_some_and(|at| at <= self.now) {
                end.resume.handle_timeout(self.now);
                assert!(end.resume.poll_timeout().is_none_or(|at| at > self.now), "a timer stuck");
            }
        }
    }

    fn check(&mut self) {
        for side in [0, 1] {
            let (sender, receiver) = (&self.ends[side], &self.ends[1 - side]);
            let s = &sender.resume;
            // Twice as much on a long path.
            assert!(s.unacknowledged() <= 2 * sender.config.replay, "replay above its bound");
            let window = 2 * receiver.config.window;
            assert!(receiver.resume.bytes_waiting() <= window, "window exceeded");
            assert!(s.bytes_acknowledged() <= s.bytes_sent());
            assert!(s.bytes_sent() <= sender.written + 1);
            assert!(receiver.resume.bytes_received() <= s.bytes_sent());
            assert!(s.bytes_acknowledged() <= receiver.resume.bytes_received() + 1);
            assert_eq!(s.is_attached(), sender.on.is_some());
            assert!(s.is_attached() || s.poll_timeout().is_none(), "a timer without attachment");
        }
        for end in &mut self.ends {
            assert!(end.resume.bytes_acknowledged() >= end.acknowledged, "went back");
            end.acknowledged = end.resume.bytes_acknowledged();
            while let Some(output) = end.resume.poll_output() {
                match output {
                    Output::Silent => {
                        assert!(!std::mem::replace(&mut end.silent, true) || end.latest > Some(0))
                    }
                    Output::Heard => assert!(std::mem::replace(&mut end.silent, false)),
                    Output::Closed => {
                        end.closed += 1;
                        assert!(end.closed == 1 && end.resume.is_closed());
                    }
                }
            }
        }
    }

    /// The world becomes kind: one good attachment, applications that read, and time.
    fn settle(&mut self) {
        self.dial();
        let on = self.pipes.len() - 1;
        for end in &mut self.ends {
            end.on = Some(on);
            end.latest = Some(on);
            end.hung_up = false;
            end.resume.handle_attached(self.now);
        }
        for _ in 0..200_000 {
            let mut moved = false;
            for side in [0, 1] {
                moved |= self.transmit(side, 100_000);
                moved |= self.deliver(side, usize::MAX);
                let before = (self.ends[side].read, self.ends[side].end.is_some());
                self.read(side, usize::MAX);
                moved |= before != (self.ends[side].read, self.ends[side].end.is_some());
            }
            self.check();
            if !moved {
                let next = self.ends.iter().filter_map(|end| end.resume.poll_timeout()).min();
                let Some(next) = next else { return };
                self.pass(next.saturating_sub(self.now));
            }
        }
        panic!("the world never comes to rest");
    }
}

fn steps(world: &mut World, chance: &mut Chance) {
    let may_reset = chance.one_in(4);
    // Some worlds are mostly quiet and some break all the time.
    let trouble = 1 + chance.below(30);
    for _ in 0..chance.size(600) {
        let side = chance.below(2);
        match chance.below(12) {
            0 | 1 => {
                let length = chance.size(90_000);
                world.write(side, length);
            }
            2 | 3 => {
                let most = 1 + chance.size(200_000);
                world.read(side, most);
            }
            4 | 5 => {
                let budget = 1 + chance.size(150_000);
                world.transmit(side, budget);
            }
            6..=8 => {
                let most = chance.size(150_000);
                world.deliver(side, most);
            }
            9 => {
                let time = Duration::from_millis(chance.size(6_000) as u64);
                world.pass(time);
            }
            10 => world.attach(side, chance),
            _ if chance.one_in(trouble) => match chance.below(4) {
                0 => world.cut(chance),
                1 => world.detach(side),
                _ => world.dial(),
            },
            _ if chance.one_in(40) => {
                world.ends[side].resume.handle_finish();
                world.ends[side].finished = true;
            }
            _ if may_reset && chance.one_in(20) && world.ends[side].reset.is_none() => {
                let code = ResetCode(chance.below(1000) as u32);
                world.ends[side].resume.handle_reset(code);
                world.ends[side].reset = Some(code);
            }
            _ => {}
        }
        world.check();
    }
}

fn case(seed: u64) {
    let mut chance = Chance(seed);
    let mut world = World::new(&mut chance);
    world.dial();
    steps(&mut world, &mut chance);
    world.settle();
    let reset = |world: &World| world.ends.iter().any(|end| end.resume.reset_code().is_some());
    if !reset(&world) {
        for side in [0, 1] {
            assert_eq!(world.ends[side].read, world.ends[1 - side].written, "bytes are missing");
            assert!(world.ends[side].end.is_some() == world.ends[1 - side].finished);
            assert_eq!(world.ends[side].resume.unacknowledged(), 0);
        }
        for end in &mut world.ends {
            end.resume.handle_finish();
            end.finished = true;
        }
        world.settle();
    }
    for end in &world.ends {
        assert!(end.resume.is_closed() && end.closed == 1, "not closed");
        assert!(end.end.is_some(), "the application never hears of the end");
        assert!(end.resume.poll_timeout().is_none(), "a closed end keeps a timer");
        if end.resume.reset_code().is_none() {
            assert_eq!(end.end, Some(Received::End));
        }
    }
    if reset(&world) {
        let codes = world.ends.each_ref().map(|end| end.reset);
        for end in &world.ends {
            let known = end.resume.reset_code();
            assert!(known.is_some() && codes.contains(&known), "a reset nobody made");
        }
    }
}

#[test]
fn the_bytes_out_are_the_bytes_in_once_and_in_order_whatever_breaks() {
    if let Ok(seed) = std::env::var("BELAY_SEED") {
        return case(seed.parse().expect("BELAY_SEED is a number"));
    }
    for seed in 0..CASES {
        if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
            eprintln!("BELAY_SEED={seed} replays this");
            std::panic::resume_unwind(panic);
        }
    }
}
