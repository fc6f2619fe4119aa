//! Every bound of a session in one place, each with its reason.

use std::time::Duration;

/// Largest control frame. An order carries two keys and a certificate (under
/// 8 KiB together); the rest is room for the environment.
pub const CONTROL_FRAME_MAX: usize = 64 * 1024;

/// Time a worker waits for its order. The supervisor writes it at once.
pub const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// From the first byte to a verified certificate. Longer than a hardware key's
/// touch and five round trips of a bad satellite link.
pub const LOGIN_GRACE: Duration = Duration::from_secs(60);

/// Failed authentication requests before the connection is closed. OpenSSH's
/// own default: an ssh-agent with several keys tries them in turn.
pub const AUTH_ATTEMPTS_MAX: usize = 6;

/// Channels open at once. VS Code uses about ten, Ansible with ControlMaster
/// fewer; a browser behind `-D` opens some dozens.
pub const CHANNELS_MAX: usize = 64;

/// Channels over the life of one SSH connection. The SSH library keeps about
/// 4 KiB for a channel the server closed first, so this bounds it to 64 MiB;
/// whoever reaches it opens a new connection.
pub const CHANNELS_TOTAL_MAX: u32 = 16_384;

/// Environment variables a client may set in one channel, and their bytes.
pub const ENV_COUNT_MAX: usize = 64;
/// See [`ENV_COUNT_MAX`]. OpenSSH clients send well under 1 KiB.
pub const ENV_BYTES_MAX: usize = 16 * 1024;

/// Longest command line of an `exec`: below the kernel's limit for one
/// argument (`MAX_ARG_STRLEN`, 128 KiB), so a longer one is refused by us with
/// a reason and not by `execve` without.
pub const COMMAND_MAX: usize = 127 * 1024;

/// Longest terminal name, as terminfo's own limit.
pub const TERM_MAX: usize = 128;

/// Largest terminal side in cells and in pixels: the kernel's type is 16 bits,
/// and a program that allocates rows × columns must survive what we tell it.
pub const WINDOW_CELLS_MAX: u32 = 4_096;

/// Least time between two window sizes told to a program: a client that resizes
/// a million times a second costs it one SIGWINCH in this time.
pub const RESIZE_INTERVAL: Duration = Duration::from_millis(20);

/// The receive window of a channel: twice the bandwidth-delay product of
/// 100 Mbit/s × 600 ms (7.5 MB), because the SSH library refills at half, and
/// half must still cover the path. It costs no memory by itself: what arrives
/// goes to the channel's own queue at once.
pub const WINDOW: u32 = 16 * 1024 * 1024;

/// Largest packet we accept, announced to the client. OpenSSH sends at most
/// 32 KiB in one; a larger announcement changes nothing for it.
pub const PACKET_MAX: u32 = 64 * 1024;

/// Bytes of one channel's input kept in memory before they spill to a file.
pub const QUEUE_MEMORY_MAX: usize = 1024 * 1024;

/// Largest spill of one channel; also at most a tenth of the file system's
/// free space.
pub const SPILL_MAX: u64 = 1024 * 1024 * 1024;

/// How long a full spill may hold up the connection before its channel is
/// closed with a reason.
pub const SPILL_PATIENCE: Duration = Duration::from_secs(30);

/// Messages waiting between channels and the SSH library. What waits is
/// encrypted in one go, at 32 KiB a message, and only then is it looked at
/// whether keys are due: 128 KiB keeps that close to the limit, and the
/// session's memory small.
pub const SSH_EVENTS: usize = 4;

/// One read from a pipe, socket or terminal.
pub const COPY_CHUNK: usize = 64 * 1024;

/// Pipe size asked of the kernel (the limit for a plain user).
pub const PIPE_SIZE: usize = 1024 * 1024;

/// Socket buffers asked for on the session's own socket.
pub const SOCKET_BUFFER: usize = 512 * 1024;

/// Events waiting for the supervisor, and as many that it has not yet said it
/// dealt with. A full queue holds the session: evidence comes before action.
pub const EVENTS: usize = 64;

/// Room in the queue for the end of everything that can be open at once: of a
/// channel, its terminal and its agent, of a listener and a connection to it.
pub const CLOSINGS: usize = 4 * CHANNELS_MAX + LISTENERS_MAX;

/// How long a new connection to a worker's door may take to say what it is for.
/// Only the agent can make one, and it says so at once.
pub const ERRAND_TIMEOUT: Duration = Duration::from_secs(1);

/// After a session's last byte: how long its stream may take to say so to the
/// client, over a line that may just have to be found again.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a worker that is done waits for a supervisor to take its last
/// events. A restarted or upgraded one is back within seconds.
pub const LAST_WORDS: Duration = Duration::from_secs(60);

/// Time to connect to a forward's target, over all its addresses.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Listeners one session may have for remote forwards.
pub const LISTENERS_MAX: usize = 16;

/// Terminals of one session, with and without a client, also those whose program has ended and
/// nobody was told. Each holds a screen: 16 bytes a character, for what shows, for the other
/// screen of editors, and for the scrollback.
pub const TERMINALS_MAX: usize = CHANNELS_MAX;

/// Text of one track that is a frame by itself.
pub const RECORD_SEGMENT: usize = 32 * 1024;

/// Text of all tracks that waits to be compressed, before programs wait; twice of it at most where
/// they do not. With a frame's text, the compressor (about 250 KiB), the open segment and those
/// below, a session's recording stays within 1 MiB.
pub const RECORD_AHEAD: usize = 64 * 1024;

/// Segments told to the supervisor and not yet heard: each has up to 63 KiB.
pub const RECORD_UNHEARD: usize = 2;

/// How long the last segments may take to be taken when a session ends.
pub const RECORD_LAST: Duration = Duration::from_secs(5);

/// How long the file server may take to tell of the files that a client left open, once it has all its
/// input. Shorter than [`FAREWELL`], which it is part of.
pub const LAST_FACTS: Duration = Duration::from_millis(1500);

/// How long a program whose client closed its channel may take nothing of what is left for it, before
/// that is thrown away: a disk that stalls is back by then.
pub const TAIL_IDLE_MAX: Duration = Duration::from_secs(10);

/// Lines kept of what scrolled off a terminal, for a client that attaches: at 80 columns 1.3 MB.
pub const SCROLLBACK: usize = 1_000;

/// Largest screen kept for a client that attaches; a terminal may be larger, and is then drawn by
/// its program alone. Wider than any display shows legibly, and with the scrollback 8 MB and at
/// worst 4 MB more for the two screens.
pub const SCREEN_COLUMNS_MAX: usize = 500;
/// See [`SCREEN_COLUMNS_MAX`].
pub const SCREEN_ROWS_MAX: usize = 250;

/// Time for whoever has a terminal to give it to another channel: it is asked between two steps of
/// its work, which wait for nobody.
pub const HAND_OVER: Duration = Duration::from_secs(5);

/// People of other sessions in one session's terminals.
pub const GUESTS_MAX: usize = 8;

/// How long guests wait for the session's own client when it takes nothing. A line that was lost and
/// found again, or a window that was scrolled, is shorter.
pub const HOST_PATIENCE: Duration = Duration::from_secs(10);

/// Columns and rows that no guest's window makes a terminal smaller than: a prompt and a few lines.
pub const GUEST_WINDOW_MIN: (u16, u16) = (20, 5);

/// What waits for a guest who takes less than the terminal shows, before they are skipped and drawn
/// anew: some seconds of a full screen that changes all the time.
pub const GUEST_BEHIND: usize = 1024 * 1024;

/// Terminal output read after the program ended, when something still holds
/// the terminal open.
pub const PTY_DRAIN: Duration = Duration::from_millis(500);

/// Time for the last packets (exit status, reason) to leave when a session ends.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// The same for a client whose session another one has taken, which waits for it.
pub const FAREWELL_TAKEN: Duration = Duration::from_millis(200);

/// Largest message of the day shown.
pub const MOTD_MAX: u64 = 64 * 1024;
