//! A session worker: one process that serves one SSH connection.
//!
//! The supervisor starts a worker for every session, hands it one
//! [`WorkerOrder`] and from then on only copies bytes. The worker becomes the
//! login user before it reads the first byte of SSH, so no code that parses
//! what a peer sends ever runs with the supervisor's rights; a fault in one
//! session harms no other.
//!
//! A worker outlives its clients' streams and its supervisors. Both reach it
//! through its [`door`], a socket the first supervisor bound: a stream that broke
//! is replaced by another, a supervisor that died by the next, and the session
//! notices neither.
//!
//! The law of this room:
//! - nothing is admitted but through [`gate`], and a gate exists only for a
//!   verified certificate;
//! - the kernel enforces what the login user may do, our code does not imitate it;
//! - everything the peer can make us keep is bounded ([`limits`]).
//!
//! What it is not: it verifies no grant (the supervisor did, before it made the
//! order), it knows no relay and no carrier, it links no PAM. A site that needs
//! PAM session modules has to keep them out of the accounts it grants.
//!
//! Descriptors of a worker process: 0 is the door, listening, 1 the control
//! socket of its first supervisor (order in, events out), 2 the log. One that
//! joins another session gets the socket to that one's worker over 1, behind
//! its order.

pub mod account;
mod answers;
mod clock;
mod control;
mod detachable;
mod dock;
pub mod door;
mod event;
mod exec_helper;
pub mod gate;
mod greeted;
mod join_helper;
mod joining;
mod lapse;
pub mod limits;
mod order;
mod privilege;
mod process;
mod pty;
mod record;
mod run;
mod sftp;
mod spawn;
mod ssh;
mod stdio;
mod sys;
mod teller;
mod terminals;
mod windows;
mod wire;
mod word;

pub use control::ControlLine;
pub use event::{ChannelKind, Recorded, Standing, WorkerEvent};
pub use exec_helper::{ExecHelperArgs, exec_helper};
pub use join_helper::join_helper;
pub use joining::Knock;
pub use order::{OrderError, WorkerOrder};
pub use run::{WorkerArgs, init_log, main};
pub use spawn::{SpawnError, Worker, spawn, spawn_joining};
pub use stdio::StdioArgs;
pub use word::Word;
