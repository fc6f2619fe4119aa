//! Bounds on what a peer can send. Each says what it protects and why it has its size.

use std::time::Duration;

/// Longest framed message in bytes, its four-byte length not counted. Control messages are a few
/// hundred bytes; certificates and grants a few thousand.
pub const MAX_FRAME: usize = 64 * 1024;

/// From the end of the TLS handshake to a complete `Hello`. A satellite round trip is 0.6 s; three
/// lost packets in a row cost about 4 s more.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// From opening a stream to its complete `Open`.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// From delivering a session to a device to its answer. A 64 MB ARM board starts a worker in well
/// under a second; the rest is for the link.
pub const DELIVER_DEADLINE: Duration = Duration::from_secs(15);

/// Depth of nesting a decoder follows. Our deepest message nests four maps.
pub const MAX_NESTING: usize = 8;

/// Device-supplied text (host name, operating system, version), each field, in bytes.
pub const MAX_REPORTED_TEXT: usize = 256;

/// Labels on one device.
pub const MAX_LABELS: usize = 64;

/// Logins and actions in one grant.
pub const MAX_GRANT_ITEMS: usize = 64;

/// How far a client's clock may be from the relay's before it is told to set it. Certificates are
/// back-dated by [`CERT_BACKDATE`], and a grant must be opened within [`GRANT_OPEN_WITHIN`].
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Certificates begin this long before they are issued, for clocks that lag.
pub const CERT_BACKDATE: Duration = Duration::from_secs(300);

/// How long after its issue a grant opens a session. Covers one slow delivery, no more: a captured
/// grant is worthless after it, and the device refuses it twice before it.
pub const GRANT_OPEN_WITHIN: Duration = Duration::from_secs(60);

/// Sessions a device has at once, with or without a client: each is a process.
pub const DEVICE_SESSIONS: usize = 64;

/// How long the relay holds back the answer to a client that takes a session up again, while the
/// device has no line. The client asks again; a NAT forgets nothing meanwhile, because the client's
/// keep-alive goes on.
pub const RESUME_WAIT: Duration = Duration::from_secs(60);

/// Longest session one grant allows. The engineer's certificate lives as long.
pub const SESSION_MAX: Duration = Duration::from_secs(12 * 3600);
