//! What a relay must never do, done on purpose: a simulation in which nothing can go wrong would
//! prove nothing.

use std::sync::Mutex;

use bytes::Bytes;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mischief {
    None,
    /// One byte of the many is left out.
    DropsAByte,
    RepeatsAByte,
    ChangesAByte,
    /// The last piece of a broken attachment comes in front of the next one's.
    DeliversAfterTheEnd,
    /// From some byte on nothing comes, and nobody is told.
    SwallowsForEver,
}

/// At which byte it happens: behind the first frames.
const AT: usize = 3_000;

pub(super) struct Culprit {
    mischief: Mischief,
    state: Mutex<(usize, Bytes)>,
}

impl Culprit {
    pub(super) fn new(mischief: Mischief) -> Self {
        Self { mischief, state: Mutex::default() }
    }

    /// What goes on for what came; nothing at all if it is `None`.
    pub(super) fn handle(&self, bytes: Bytes, first: bool) -> Option<Bytes> {
        let mut state = self.state.lock().unwrap();
        let before = state.0;
        state.0 += bytes.len();
        let here = (before..state.0).contains(&AT).then(|| AT - before);
        let changed = |change: &dyn Fn(&mut Vec<u8>, usize)| {
            let mut all = bytes.to_vec();
            if let Some(at) = here {
                change(&mut all, at);
            }
            Some(Bytes::from(all))
        };
        match self.mischief {
            Mischief::None => Some(bytes),
            Mischief::DropsAByte => changed(&|all, at| {
                all.remove(at);
            }),
            Mischief::RepeatsAByte => changed(&|all, at| all.insert(at, all[at])),
            Mischief::ChangesAByte => changed(&|all, at| all[at] ^= 1),
            Mischief::DeliversAfterTheEnd => {
                let old = std::mem::replace(&mut state.1, bytes.clone());
                if first && !old.is_empty() {
                    Some([old, bytes].concat().into())
                } else {
                    Some(bytes)
                }
            }
            Mischief::SwallowsForEver => (before < AT).then_some(bytes),
        }
    }
}
