//! `[[export]]` in `relay.toml`: who else gets the audit log.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::outbound::{URL_RULE, Url};

/// Exports at most: each holds a batch in memory.
pub const MOST: usize = 16;

/// Entries in a batch, when it is not said.
const BATCH: u32 = 256;

/// Seconds until an export that has not caught up is on record as behind, when it is not said.
const BEHIND_SECONDS: u32 = 900;

/// What `init` writes of it. Behind all other settings: a table takes every line that follows.
pub const TEMPLATE: &str = r#"
# Who else gets the audit log, each entry at least once and in order; as many blocks as there are
# receivers, at the end of this file. A block holds at most `batch` entries (4 KiB each at worst) in
# memory. One that cannot be reached holds nothing up, is tried again, and goes on where it was.
# [[export]]
# name = "siem"  # its place is kept under this name: a-z, 0-9 and -
# kind = "file"  # "file", "syslog", "webhook" or "otlp"
# path = "/var/log/belay/audit.ndjson"  # file: JSON lines; opened anew for each batch, so rename to rotate
# to = "tcp://siem.example.com:601"  # syslog (RFC 5424): udp://HOST:PORT, tcp://HOST:PORT, unix:/dev/log
# facility = 13  # syslog: 0 to 23; 13 is "log audit"
# url = "https://siem.example.com/in"  # webhook: JSON lines; otlp: where /v1/logs is below
# secret_file = "/etc/belay/webhook"  # webhook: signs each request; otlp: a bearer token, if it wants one
# ca_file = "/etc/belay/siem-ca.pem"  # webhook, otlp: whom to believe instead of the system's authorities
# from = "start"  # where a new one begins: "start" of the log, or "now"
# batch = 256  # entries at a time, 1 to 1024
# behind_seconds = 900  # not caught up for so long is put on record, 10 to 604800
"#;

/// A block as it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    name: String,
    kind: String,
    path: Option<PathBuf>,
    to: Option<String>,
    facility: Option<u8>,
    url: Option<String>,
    secret_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    from: Option<String>,
    batch: Option<u32>,
    behind_seconds: Option<u32>,
}

/// A block, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Under which its place is kept.
    pub name: String,
    /// Where a new one begins.
    pub from: From,
    /// Entries at a time.
    pub batch: u32,
    /// How long it may not have caught up before that is on record.
    pub behind_after: Duration,
    /// Where to.
    pub to: To,
}

/// Where a new export begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the first entry.
    Start,
    /// With the next entry.
    Now,
}

/// Where an export goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// JSON lines at the end of a file.
    File(PathBuf),
    /// RFC 5424.
    Syslog {
        /// Over what.
        transport: Transport,
        /// 0 to 23.
        facility: u8,
    },
    /// JSON lines in a signed request.
    Webhook {
        /// Where.
        url: Url,
        /// The secret that signs.
        secret_file: PathBuf,
        /// Whom to believe.
        ca_file: Option<PathBuf>,
    },
    /// OTLP/HTTP in JSON.
    Otlp {
        /// Where, with `/v1/logs`.
        url: Url,
        /// A bearer token.
        token_file: Option<PathBuf>,
        /// Whom to believe.
        ca_file: Option<PathBuf>,
    },
}

/// What carries syslog's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// A datagram each (RFC 5426). What is lost is lost.
    Udp(String),
    /// Counted octets (RFC 6587 §3.4.1).
    Tcp(String),
    /// A datagram each to a socket of this machine.
    Unix(PathBuf),
}

/// A value that cannot be used: which setting, what it is, and what it must be.
pub type Bad = (&'static str, String, &'static str);

/// Checks all blocks.
///
/// # Errors
/// The first that cannot be used.
pub fn check(blocks: Vec<Block>) -> Result<Vec<Export>, Bad> {
    if blocks.len() > MOST {
        return Err(("[[export]]", format!("there {} times", blocks.len()), "at most 16 blocks"));
    }
    let mut all: Vec<Export> = Vec::with_capacity(blocks.len());
    for block in blocks {
        let export = block.check()?;
        if all.iter().any(|other| other.name == export.name) {
            let got = format!("\"{}\" twice", export.name);
            return Err(("[[export]] name", got, "another in each block"));
        }
        all.push(export);
    }
    Ok(all)
}

impl Block {
    fn check(self) -> Result<Export, Bad> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good = (1..=32).contains(&self.name.len()) && self.name.chars().all(plain);
        if !good {
            let got = format!("{:?}", self.name);
            return Err(("[[export]] name", got, "1 to 32 of a-z, 0-9 and -"));
        }
        let from = match self.from.as_deref() {
            None | Some("start") => From::Start,
            Some("now") => From::Now,
            Some(other) => return Err(self.bad("[[export]] from", other, "\"start\" or \"now\"")),
        };
        let batch = self.batch.unwrap_or(BATCH);
        if !(1..=belay_proto::audit::MAX_PAGE).contains(&batch) {
            return Err(self.bad("[[export]] batch", &batch.to_string(), "within 1..=1024"));
        }
        let behind = self.behind_seconds.unwrap_or(BEHIND_SECONDS);
        if !(10..=604_800).contains(&behind) {
            let rule = "within 10..=604_800";
            return Err(self.bad("[[export]] behind_seconds", &behind.to_string(), rule));
        }
        let behind_after = Duration::from_secs(behind.into());
        Ok(Export { from, batch, behind_after, to: self.to()?, name: self.name })
    }

    fn to(&self) -> Result<To, Bad> {
        // What another kind takes would have no effect here.
        let allowed: &[&str] = match self.kind.as_str() {
            "file" => &["path"],
            "syslog" => &["to", "facility"],
            "webhook" | "otlp" => &["url", "secret_file", "ca_file"],
            other => {
                let rule = "\"file\", \"syslog\", \"webhook\" or \"otlp\"";
                return Err(self.bad("[[export]] kind", other, rule));
            }
        };
        for (key, set) in [
            ("path", self.path.is_some()),
            ("to", self.to.is_some()),
            ("facility", self.facility.is_some()),
            ("url", self.url.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("ca_file", self.ca_file.is_some()),
        ] {
            if set && !allowed.contains(&key) {
                let rule = "without what is another kind's (path: file; to, facility: syslog; \
                            url, secret_file, ca_file: webhook, otlp)";
                return Err(self.bad(
                    "[[export]] kind",
                    &format!("{} with {key}", self.kind),
                    rule,
                ));
            }
        }
        for file in [&self.path, &self.secret_file, &self.ca_file].into_iter().flatten() {
            if !file.is_absolute() {
                let got = file.display().to_string();
                return Err(self.bad("[[export]] path", &got, "a path that begins with /"));
            }
        }
        let url = || {
            let url = self.url.as_deref().unwrap_or_default();
            Url::parse(url).ok_or_else(|| self.bad("[[export]] url", url, URL_RULE))
        };
        let ca_file = self.ca_file.clone();
        match self.kind.as_str() {
            "file" => match &self.path {
                Some(path) => Ok(To::File(path.clone())),
                None => Err(self.bad("[[export]] path", "", "a path that begins with /")),
            },
            "syslog" => Ok(To::Syslog { transport: self.transport()?, facility: self.facility()? }),
            "webhook" => match &self.secret_file {
                Some(secret) => {
                    Ok(To::Webhook { url: url()?, secret_file: secret.clone(), ca_file })
                }
                None => {
                    let rule = "the path of a file with the secret that signs, 16 bytes or more";
                    Err(self.bad("[[export]] secret_file", "", rule))
                }
            },
            _ => {
                let url = url()?.below("v1/logs");
                Ok(To::Otlp { url, token_file: self.secret_file.clone(), ca_file })
            }
        }
    }

    fn transport(&self) -> Result<Transport, Bad> {
        let text = self.to.as_deref().unwrap_or_default();
        let rule = "udp://HOST:PORT, tcp://HOST:PORT or unix:/PATH";
        let host = |rest: &str| {
            let port = rest.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            let good = port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|n| n > 0))
                && !rest.contains(['/', '@', ' ']);
            good.then(|| rest.to_owned())
        };
        let transport = match (text.split_once("://"), text.strip_prefix("unix:")) {
            (Some(("udp", rest)), _) => host(rest).map(Transport::Udp),
            (Some(("tcp", rest)), _) => host(rest).map(Transport::Tcp),
            (_, Some(path)) if path.starts_with('/') => Some(Transport::Unix(path.into())),
            _ => None,
        };
        transport.ok_or_else(|| self.bad("[[export]] to", text, rule))
    }

    fn facility(&self) -> Result<u8, Bad> {
        match self.facility.unwrap_or(13) {
            facility @ 0..=23 => Ok(facility),
            other => Err(self.bad("[[export]] facility", &other.to_string(), "within 0..=23")),
        }
    }

    fn bad(&self, setting: &'static str, got: &str, rule: &'static str) -> Bad {
        (setting, format!("\"{got}\" in the export \"{}\"", self.name), rule)
    }
}
