//! Syslog: RFC 5424 over UDP (RFC 5426), TCP with counted octets (RFC 6587 §3.4.1) or a socket of this
//! machine.
//!
//! A message is the entry's line; its fields stand before it as structured data. Nothing of syslog
//! acknowledges anything: what UDP loses is lost, and what TCP's receiver had not read when it died.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, lookup_host};
use tokio::time::timeout;

use super::config::Transport;
use super::entry::{self, Severity};
use super::{Batch, DeliverError};
use crate::span::date;

/// For a whole batch.
const WITHIN: Duration = Duration::from_secs(30);

/// The id of our structured data. 32473 is the number kept for examples (RFC 5612): this project has
/// none of its own.
const SD_ID: &str = "belay@32473";

/// Longest MSGID (RFC 5424 §6).
const MAX_MSGID: usize = 32;

pub(super) struct Sink {
    transport: Transport,
    facility: u8,
    host: String,
    stream: Option<TcpStream>,
}

impl Sink {
    pub(super) fn new(transport: Transport, facility: u8, host: &str) -> Self {
        Self { transport, facility, host: host.to_owned(), stream: None }
    }

    pub(super) async fn deliver(&mut self, batch: &Batch) -> Result<(), DeliverError> {
        let messages: Vec<String> =
            batch.lines.iter().map(|line| message(line, self.facility, &self.host)).collect();
        let sent = timeout(WITHIN, self.send(&messages)).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
            self.stream = None;
            let to = match &self.transport {
                Transport::Udp(to) => format!("udp://{to}"),
                Transport::Tcp(to) => format!("tcp://{to}"),
                Transport::Unix(path) => path.display().to_string(),
            };
            DeliverError::Write(to, error)
        })
    }

    async fn send(&mut self, messages: &[String]) -> io::Result<()> {
        match &self.transport {
            Transport::Udp(to) => {
                let to = lookup_host(to).await?.next().ok_or(io::ErrorKind::NotFound)?;
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(to).await?;
                for message in messages {
                    socket.send(message.as_bytes()).await?;
                }
            }
            Transport::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                for message in messages {
                    socket.send(message.as_bytes()).await?;
                }
            }
            Transport::Tcp(to) => {
                let mut stream = match self.stream.take().filter(is_open) {
                    Some(stream) => stream,
                    None => TcpStream::connect(to).await?,
                };
                let counted: String =
                    messages.iter().map(|one| format!("{} {one}", one.len())).collect();
                stream.write_all(counted.as_bytes()).await?;
                stream.flush().await?;
                self.stream = Some(stream);
            }
        }
        Ok(())
    }
}

/// Whether the other end has not closed it. What it says is not for us, and read away.
fn is_open(stream: &TcpStream) -> bool {
    let mut aside = [0; 256];
    loop {
        match stream.try_read(&mut aside) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID [SD] MSG`
fn message(line: &str, facility: u8, host: &str) -> String {
    let entry = entry::read(line);
    let severity = match entry.as_ref().map(entry::severity) {
        Some(Severity::Alert) => 1,
        Some(Severity::Warning) => 4,
        Some(Severity::Info) | None => 6,
    };
    let priority = u16::from(facility) * 8 + severity;
    let process = std::process::id();
    let Some(entry) = entry else {
        return format!("<{priority}>1 - {host} belay-relay {process} - - {line}");
    };
    let id: String = entry.kind.chars().filter(char::is_ascii_graphic).take(MAX_MSGID).collect();
    let mut data = format!("[{SD_ID} seq=\"{}\"", entry.seq);
    for (name, value) in entry::fields(&entry) {
        // A string takes everything.
        write!(data, " {name}=\"{}\"", escaped(&value)).ok();
    }
    let at = date(entry.at);
    format!("<{priority}>1 {at} {host} belay-relay {process} {id} {data}] {line}")
}

/// RFC 5424 §6.3.3: these three are escaped, and nothing else.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn that_the_glass_was_broken_is_an_alert() {
        let line = r#"{"seq":7,"at":1795432531,"kind":"break-glass","detail":"pump stands still"}"#;
        let text = message(line, 13, "relay.test");
        assert!(text.starts_with("<105>1 ") && text.contains(" break-glass ["), "{text}");
    }

    #[test]
    fn a_message_has_the_parts_of_the_rfc_and_values_are_escaped() {
        let line = r#"{"seq":7,"at":1795432531,"kind":"login-refused","user_name":"a\"b]c\\d","code":"wrong-secret","source":"192.0.2.7"}"#;
        let text = message(line, 13, "relay.test");
        let head = "<108>1 2026-11-23T11:15:31Z relay.test belay-relay ";
        assert!(text.starts_with(head), "{text}");
        let data = r#" login-refused [belay@32473 seq="7" kind="login-refused" user_name="a\"b\]c\\d" code="wrong-secret" source="192.0.2.7"] {"#;
        assert!(text.contains(data), "{text}");
        assert!(text.ends_with(line), "{text}");
    }
}
