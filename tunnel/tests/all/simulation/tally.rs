//! What happened in a world: which faults, and which of them broke an attachment.
//!
//! Its law: an attachment that ends before its session is counted for the last fault that struck
//! while it was passing bytes. So no fault is counted that had nothing to break.

use std::sync::{Arc, Mutex, MutexGuard};

use super::beat::Beat;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    ClientReset,
    DeviceReset,
    ClientVanish,
    DeviceVanish,
    ClientBlackout,
    DeviceBlackout,
    RelayRestart,
    RelayKill,
    SupervisorRestart,
    SupervisorKill,
    Suspension,
    /// The worker gets no time to run.
    WorkerStall,
    /// The client goes from a line that is well to a better one.
    ClientBetter,
    DeviceBetter,
}

pub(super) const KINDS: [Kind; 14] = [
    Kind::ClientReset,
    Kind::DeviceReset,
    Kind::ClientVanish,
    Kind::DeviceVanish,
    Kind::ClientBlackout,
    Kind::DeviceBlackout,
    Kind::RelayRestart,
    Kind::RelayKill,
    Kind::SupervisorRestart,
    Kind::SupervisorKill,
    Kind::Suspension,
    Kind::WorkerStall,
    Kind::ClientBetter,
    Kind::DeviceBetter,
];

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Count {
    pub(super) happened: u32,
    /// While an attachment passed bytes.
    pub(super) struck: u32,
    /// That attachment ended of it.
    pub(super) broke: u32,
    /// That attachment was there when the fault was over. For faults that last.
    pub(super) survived: u32,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Counts {
    pub(super) faults: [Count; KINDS.len()],
    /// Attachments that passed bytes.
    pub(super) attachments: u32,
    /// The relay gave a session that had a stream another one.
    pub(super) replaced: u32,
    /// An end found its attachment silent.
    pub(super) silences: u32,
    /// It spoke again before another line was there.
    pub(super) heard_again: u32,
    /// The client went from a silent line to another.
    pub(super) moved: u32,
    /// The device went from a silent line to another.
    pub(super) device_moved: u32,
    /// The client waited at the relay while the device had no line.
    pub(super) held: u32,
    /// Everything that happened and when, as one number.
    pub(super) trace: u64,
}

impl Counts {
    pub(super) fn summary(&self) -> String {
        let Self {
            attachments, replaced, silences, heard_again, moved, device_moved, held, ..
        } = self;
        format!(
            "{attachments} attachments, {replaced} replaced, {silences} silences, {heard_again} \
             heard again, {moved} moved, {device_moved} moved by the device, {held} held"
        )
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (all, one) in self.faults.iter_mut().zip(&other.faults) {
            all.happened += one.happened;
            all.struck += one.struck;
            all.broke += one.broke;
            all.survived += one.survived;
        }
        self.attachments += other.attachments;
        self.replaced += other.replaced;
        self.silences += other.silences;
        self.heard_again += other.heard_again;
        self.moved += other.moved;
        self.device_moved += other.device_moved;
        self.held += other.held;
    }
}

pub(super) struct Tally {
    beat: Beat,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    last: u64,
    passing: Option<u64>,
    struck: Option<(u64, Kind)>,
}

impl Tally {
    pub(super) fn new(beat: Beat) -> Self {
        Self { beat, state: Mutex::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    pub(super) fn count(&self, what: impl FnOnce(&mut Counts)) {
        what(&mut self.lock().counts);
    }

    /// Part of the trace; FNV-1a, for its order matters.
    pub(super) fn note(&self, what: u64) {
        let now = self.beat.ms();
        let mut state = self.lock();
        for word in [now, what] {
            state.counts.trace = (state.counts.trace ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The attachment that passes bytes now.
    pub(super) fn passing(&self) -> Option<u64> {
        self.lock().passing
    }

    /// A fault is about to happen; the attachment it strikes.
    pub(super) fn strikes(&self, kind: Kind) -> Option<u64> {
        self.note(kind as u64);
        let mut state = self.lock();
        let passing = state.passing;
        let count = &mut state.counts.faults[kind as usize];
        count.happened += 1;
        if let Some(passing) = passing {
            count.struck += 1;
            state.struck = Some((passing, kind));
        }
        passing
    }

    /// A fault that lasts has come to what it does last.
    pub(super) fn strikes_again(&self, kind: Kind, struck: Option<u64>) {
        let mut state = self.lock();
        if let Some(struck) = struck.filter(|_| state.passing == struck) {
            state.struck = Some((struck, kind));
        }
    }

    /// A fault that lasted is over, and had struck that attachment.
    pub(super) fn is_over(&self, kind: Kind, struck: Option<u64>) {
        let mut state = self.lock();
        if struck.is_some() && state.passing == struck {
            state.counts.faults[kind as usize].survived += 1;
        }
    }

    /// An attachment begins to pass bytes. It does so until what is returned is dropped.
    pub(super) fn passes(self: &Arc<Self>) -> Passing {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.passing = Some(number);
        state.counts.attachments += 1;
        drop(state);
        self.note(number);
        Passing { tally: Arc::clone(self), number, clean: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

pub(super) struct Passing {
    tally: Arc<Tally>,
    number: u64,
    pub(super) clean: bool,
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.tally.note(u64::MAX - self.number);
        let mut state = self.tally.lock();
        state.passing.take_if(|passing| *passing == self.number);
        if let Some((_, kind)) = state.struck.take_if(|(number, _)| *number == self.number)
            && !self.clean
        {
            state.counts.faults[kind as usize].broke += 1;
        }
    }
}
