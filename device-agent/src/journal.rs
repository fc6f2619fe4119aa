//! The log as the journal takes it: the same line as on standard error, and beside it the session, the
//! engineer and the reason as fields, so that `journalctl BELAY_USER=anna` finds what was done in her name;
//! and the device, for whoever gathers the journals of many.
//!
//! Its law: only where standard error is the journal already (`JOURNAL_STREAM`, systemd.exec(5)); what
//! the journal does not take at once goes to standard error, as everything did before. What it is not:
//! it waits for nobody, and filters nothing. Written here because a line must stay whole for whoever
//! just reads `journalctl -u belay-agent`; libraries for this put into it the bare message.
//! Protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.

use std::fmt::{Debug, Write as _};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use belay_proto::ids::DeviceId;
use rustix::fs::fstat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Longest line, in bytes. A datagram of any socket takes that much.
const MAX_LINE: usize = 32 * 1024;

/// The journal, connected.
pub struct Journal {
    socket: UnixDatagram,
    device: Option<DeviceId>,
}

impl Journal {
    /// The journal, when standard error goes there and it can be reached.
    pub fn behind_stderr() -> Option<Self> {
        let said = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = fstat(io::stderr()).ok()?;
        // Children of a service may have another standard error, and the variable still.
        let same = said == format!("{}:{}", stderr.st_dev, stderr.st_ino);
        same.then(|| Self::at(Path::new(SOCKET)).ok()).flatten()
    }

    /// The journal that listens at this socket.
    ///
    /// # Errors
    /// When nobody does.
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, device: None })
    }

    /// The same, and each entry names the device.
    #[must_use]
    pub fn of_device(self, device: DeviceId) -> Self {
        Self { device: Some(device), ..self }
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let target = event.metadata().target();
        let text = plain(&format!("{target}: {}{}", line.message, line.fields));
        let mut datagram = Vec::with_capacity(text.len() + 256);
        put(&mut datagram, "MESSAGE", &text);
        put(&mut datagram, "PRIORITY", priority(*event.metadata().level()));
        put(&mut datagram, "SYSLOG_IDENTIFIER", "belay-agent");
        for (field, value) in [
            ("BELAY_SESSION", &line.session),
            ("BELAY_USER", &line.user),
            ("BELAY_LOGIN", &line.login),
            ("BELAY_REASON", &line.reason),
            ("BELAY_DEVICE", &self.device.map(|device| device.to_string())),
        ] {
            if let Some(value) = value {
                put(&mut datagram, field, &plain(value));
            }
        }
        if self.socket.send(&datagram).is_err() {
            // It is full, or restarts. Nowhere left to say it when this fails too.
            writeln!(io::stderr(), "{} {text}", event.metadata().level()).ok();
        }
    }
}

/// An event, field by field.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
    session: Option<String>,
    user: Option<String>,
    login: Option<String>,
    reason: Option<String>,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            _ => self.field(field, value.to_owned(), format!("{value:?}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message.push_str(&text),
            _ => self.field(field, text.clone(), text),
        }
    }
}

impl Line {
    fn field(&mut self, field: &Field, value: String, shown: String) {
        // A string takes everything.
        write!(self.fields, " {}={shown}", field.name()).ok();
        match field.name() {
            "session" => self.session = Some(value),
            "user" => self.user = Some(value),
            "login" => self.login = Some(value),
            "reason" => self.reason = Some(value),
            _ => {}
        }
    }
}

const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// One line that acts on no terminal.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if out.len() + c.len_utf8() > MAX_LINE {
            break;
        }
        out.push(if c.is_control() { '\u{fffd}' } else { c });
    }
    out
}

/// `NAME=VALUE`, and the value has no end of line.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'=');
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_line_about_a_session_names_session_and_engineer_beside_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = UnixDatagram::bind(&path).unwrap();
        let device = "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e".parse().unwrap();
        let journal_of = Journal::at(&path).unwrap().of_device(device);
        let log = tracing_subscriber::registry().with(journal_of);
        tracing::subscriber::with_default(log, || {
            let (session, user, login) = ("0197", "anna", "root");
            let kind = "exec\nFORGED=1 \u{1b}[2J";
            tracing::warn!(%session, %user, %login, kind, "channel open");
            tracing::warn!(%user, reason = "a\nBELAY_USER=root", "glass broken");
            tracing::info!("line up");
        });
        let mut bytes = [0; 4096];
        let mut next = || {
            let length = journal.recv(&mut bytes).unwrap();
            String::from_utf8(bytes.get(..length).unwrap().to_vec()).unwrap()
        };
        let about = next();
        let lines: Vec<&str> = about.lines().collect();
        assert_eq!(lines.len(), 7, "{about}");
        let line = lines.first().unwrap();
        assert!(line.starts_with("MESSAGE=belay_agent::journal"), "{line}");
        let ends = "channel open session=0197 user=anna login=root \
                    kind=\"exec\\nFORGED=1 \\u{1b}[2J\"";
        assert!(line.ends_with(ends), "{line}");
        assert_eq!(
            lines.get(1..).unwrap(),
            [
                "PRIORITY=4",
                "SYSLOG_IDENTIFIER=belay-agent",
                "BELAY_SESSION=0197",
                "BELAY_USER=anna",
                "BELAY_LOGIN=root",
                "BELAY_DEVICE=0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e"
            ]
        );
        let glass = next();
        let fields = "\nBELAY_USER=anna\nBELAY_REASON=a\u{fffd}BELAY_USER=root\nBELAY_DEVICE=";
        assert!(glass.contains(fields), "{glass}");
        let other = next();
        assert!(other.contains("PRIORITY=6\n") && !other.contains("BELAY_USER"), "{other}");
    }
}
