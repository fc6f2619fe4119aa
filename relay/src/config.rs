//! `DATA/relay.toml`: read strictly, checked whole, before anything is bound.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use belay_proto::recording::Policy;
use belay_proto::wire::open::ResumeWindows;
use belay_tunnel::address::RelayAddress;
use belay_tunnel::recording::recipients;
use serde::Deserialize;

use crate::audit::cosigner;
use crate::export::config::{self as export, Export};
use crate::rate::Allowance;

/// The configuration's file in the data directory.
pub const FILE: &str = "relay.toml";

/// Longest configuration read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such file: no `init` was run here, or it did not finish.
    #[error("there is no {0}; run: belay-relay init --data DIR --name relay.example.com")]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is not what it should be.
    #[error("{file}, line {line}: {message}")]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Recordings cannot be sealed to those named.
    #[error("{file}: recording_recipients: {cause}")]
    Recipients {
        /// The file.
        file: PathBuf,
        /// Which of them, and why.
        cause: String,
    },
    /// A value is out of its range.
    #[error("{file}: {setting} is {got}; it must be {rule}")]
    Value {
        /// The file.
        file: PathBuf,
        /// Which.
        setting: &'static str,
        /// What it is.
        got: String,
        /// What it may be.
        rule: &'static str,
    },
}

/// Checked settings of one relay.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Where devices and people reach it; its host is the name in its certificate.
    pub address: RelayAddress,
    /// Where it listens: UDP for QUIC, TCP for HTTPS.
    pub listen: SocketAddr,
    /// How long a stop waits for what is running.
    pub drain: Duration,
    /// The QUIC side's bounds.
    pub quic: Quic,
    /// Sessions at once.
    pub sessions: Sessions,
    /// Whom recordings are sealed to: age recipients, checked. Empty: they are not sealed.
    pub recipients: Arc<[String]>,
    /// The HTTPS side's bounds.
    pub https: Https,
    /// Allowances of enrolment.
    pub enrol: Attempts,
    /// Allowances of login.
    pub login: Login,
    /// Who is told of the audit log's checkpoints.
    pub audit: Audit,
    /// Days that recordings are kept after the end of their session; 0 is for ever.
    pub recordings_keep_days: u32,
    /// Days that the texts of the audit log's entries are kept; 0 is for ever.
    pub audit_keep_days: u32,
    /// Who else gets the audit log.
    pub exports: Vec<Export>,
}

/// The audit log's witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// A file that checkpoints are added to.
    pub checkpoints_to: Option<PathBuf>,
    /// Witnesses that cosign checkpoints.
    pub witnesses: Vec<cosigner::Witness>,
    /// At most one in so long.
    pub checkpoint_every: Duration,
}

/// Bounds of the QUIC listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quic {
    /// Connections not yet admitted.
    pub strangers: usize,
    /// Of one source.
    pub strangers_per_source: usize,
    /// Above this many, addresses are validated first.
    pub retry_above: usize,
}

/// Bounds of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    /// To one device.
    pub per_device: u32,
    /// By one person.
    pub per_user: u32,
    /// How long one may be without its client before the device ends it.
    pub windows: ResumeWindows,
    /// Whether they are recorded.
    pub recording: Policy,
    /// Where they are: what is typed as well.
    pub input: bool,
}

/// Bounds of the HTTPS listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Https {
    /// Connections at once.
    pub connections: usize,
    /// Of one source.
    pub connections_per_source: usize,
    /// TLS handshakes at once.
    pub handshakes: usize,
}

/// Attempts of those who have no certificate yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// Of one source.
    pub per_source: Allowance,
    /// Of all.
    pub total: Allowance,
}

/// Attempts to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Login {
    /// By source and in total.
    pub attempts: Attempts,
    /// With one name, from sources that name has not logged in from lately.
    pub per_user: Allowance,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $key:ident : $default:literal in $range:expr,)*) => {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            address: String,
            listen: String,
            #[serde(default)]
            audit_checkpoints_to: Option<String>,
            recording: Option<String>,
            #[serde(default)]
            recording_input: bool,
            #[serde(default)]
            recording_recipients: Vec<String>,
            #[serde(default)]
            export: Vec<export::Block>,
            #[serde(default)]
            witness: Vec<cosigner::Block>,
            $(#[serde(default)] $key: Option<u32>,)*
        }

        impl File {
            /// Each number in its range, or its default.
            fn numbers(&self, file: &Path) -> Result<Numbers, ConfigError> {
                Ok(Numbers { $($key: {
                    let value = self.$key.unwrap_or($default);
                    if !$range.contains(&value) {
                        return Err(ConfigError::Value {
                            file: file.to_owned(),
                            setting: stringify!($key),
                            got: value.to_string(),
                            rule: concat!("within ", stringify!($range)),
                        });
                    }
                    value
                },)* })
            }
        }

        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        struct Numbers { $($key: u32,)* }

        /// The file that `init` writes: every setting with its meaning and its default.
        pub fn template(address: &RelayAddress, listen: SocketAddr) -> String {
            let mut text = format!(
                "# Belay's relay. Every setting; those behind '#' have the value shown.\n\
                 # A setting that is not known, or out of range, stops the relay from starting.\n\n\
                 # Where devices and people reach the relay. The host is the name in its certificate\n\
                 # and in every token: changing it cuts off whoever enrolled with the old one.\n\
                 address = \"{address}\"\n\n\
                 # Where it listens: UDP for QUIC, TCP for HTTPS, the same port.\n\
                 listen = \"{listen}\"\n\n\
                 # A file that the audit log's signed checkpoints are added to, for a witness: on a\n\
                 # mount that whoever owns this machine cannot rewrite. Without it nothing is written.\n\
                 # audit_checkpoints_to = \"/mnt/witness/checkpoints\"\n\n\
                 # Whether devices record sessions: \"best-effort\", which marks what could not be kept,\n\
                 # \"required\", which refuses or ends a session that cannot be recorded whole, or \"off\".\n\
                 # recording = \"best-effort\"\n\n\
                 # Whether what is typed is recorded as well, as far as the terminal echoes it: no password\n\
                 # that is asked for without echo, and no key that a shell's line editor draws by itself.\n\
                 # recording_input = false\n\n\
                 # Auditors' age public keys, 16 at most. With any, devices seal what they record to them:\n\
                 # this relay cannot read it, and without one of their secret keys nobody ever can. A\n\
                 # device that cannot seal does not record. Without any, recordings are not sealed.\n\
                 # recording_recipients = [\"age1...\"]\n"
            );
            $(
                text.push_str(concat!("\n", $("#", $doc, "\n",)*));
                text.push_str(&format!("# {} = {}\n", stringify!($key), $default));
            )*
            text.push_str(cosigner::TEMPLATE);
            text.push_str(export::TEMPLATE);
            text
        }

        #[cfg(test)]
        const KEYS: &[&str] = &[$(stringify!($key),)*];
    };
}

settings! {
    /// Seconds a stop waits for running sessions and requests. Longer delays an upgrade.
    drain_seconds: 10 in (0..=3600),
    /// QUIC connections at once that have not said who they are; each takes about 40 KiB.
    /// Too few, and a fleet that comes back at once waits; too many, and strangers take memory.
    quic_strangers: 384 in (8..=65_536),
    /// Of those, from one IPv4 address or IPv6 /64. A whole site may sit behind one address.
    quic_strangers_per_source: 192 in (1..=65_536),
    /// Above this many of those, an address must first prove that it can be answered (one round
    /// trip more). Higher lets spoofed addresses take more memory.
    quic_retry_above: 32 in (0..=65_536),
    /// Sessions at once to one device.
    sessions_per_device: 32 in (1..=10_000),
    /// Sessions at once by one person.
    sessions_per_user: 64 in (1..=10_000),
    /// Seconds a session with a terminal may be without its client before the device ends it: a
    /// laptop that slept over night. Each keeps a process on the device, about 10 MiB, all that
    /// time. With 0 it ends with its first stream.
    resume_interactive_seconds: 86_400 in (0..=604_800),
    /// The same for a session without a terminal: a command, a transfer, a forward.
    resume_other_seconds: 3600 in (0..=604_800),
    /// HTTPS connections at once; each takes about 20 KiB. They are short.
    https_connections: 1024 in (4..=65_536),
    /// Of those, from one IPv4 address or IPv6 /64. Above it, the oldest that has not asked
    /// anything yet makes room.
    https_connections_per_source: 128 in (1..=65_536),
    /// TLS handshakes at once; each takes about 10 KiB and at most 10 s.
    https_handshakes: 256 in (2..=65_536),
    /// Enrolments a minute from one IPv4 /24 or IPv6 /64. A factory line may need more.
    enrol_per_source_per_minute: 600 in (1..=1_000_000),
    /// Enrolments a minute in total.
    enrol_total_per_minute: 3000 in (1..=1_000_000),
    /// Attempts a minute to log in from one IPv4 /24 or IPv6 /64. Higher makes guessing faster.
    login_per_source_per_minute: 30 in (1..=100_000),
    /// Attempts a minute to log in, in total. Each costs about 40 ms of one core and 19 MiB.
    login_total_per_minute: 600 in (1..=100_000),
    /// Attempts a minute with one name from sources it has not logged in from lately.
    login_per_user_per_minute: 20 in (1..=100_000),
    /// Seconds between two checkpoints in the file of `audit_checkpoints_to` and to each witness, when
    /// there is one. What was recorded since the last one can be rewritten by whoever has the keys,
    /// unnoticed.
    audit_checkpoint_seconds: 60 in (1..=86_400),
    /// Days that a recording is kept after the end of its session, then it is deleted, unless it is
    /// held: the audit log keeps what it was. 0 keeps all for ever. Fewer days delete at the next look,
    /// within the hour.
    recordings_keep_days: 0 in (0..=36_500),
    /// Days that the texts of the audit log's entries are kept, then only their hashes stay, which every
    /// proof accepts. Held ones, tombstones and what an export has not got yet stay longer. 0 keeps all
    /// for ever.
    audit_keep_days: 0 in (0..=36_500),
}

impl Config {
    /// Reads and checks `DATA/relay.toml`.
    ///
    /// # Errors
    /// [`ConfigError`], one line that says where.
    pub fn load(data: &Path) -> Result<Self, ConfigError> {
        let file = data.join(FILE);
        let text = match std::fs::metadata(&file) {
            Ok(meta) if meta.len() > MAX_FILE => {
                let error = std::io::Error::other("it is far too long for a configuration");
                return Err(ConfigError::Read(file, error));
            }
            Ok(_) => std::fs::read_to_string(&file),
            Err(error) => Err(error),
        };
        match text {
            Ok(text) => Self::parse(data, &file, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ConfigError::Missing(file))
            }
            Err(error) => Err(ConfigError::Read(file, error)),
        }
    }

    fn parse(data: &Path, file: &Path, text: &str) -> Result<Self, ConfigError> {
        let read: File = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            file: file.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            message: error.message().replace('\n', ", "),
        })?;
        let value = |setting, got: &str, rule| ConfigError::Value {
            file: file.to_owned(),
            setting,
            got: format!("\"{got}\""),
            rule,
        };
        let address = read.address.parse().map_err(|_| {
            value("address", &read.address, "HOST or HOST:PORT, for example relay.example.com:443")
        })?;
        let listen: SocketAddr = read.listen.parse().map_err(|_| {
            value("listen", &read.listen, "ADDRESS:PORT, for example [::]:443 or 0.0.0.0:443")
        })?;
        let checkpoints_to = read.audit_checkpoints_to.as_deref().map(PathBuf::from);
        if checkpoints_to.as_deref().is_some_and(|path| !path.is_absolute()) {
            let got = read.audit_checkpoints_to.as_deref().unwrap_or_default();
            return Err(value("audit_checkpoints_to", got, "a path that begins with /"));
        }
        let recording = match read.recording.as_deref() {
            None | Some("best-effort") => Policy::BestEffort,
            Some("required") => Policy::Required,
            Some("off") => Policy::Off,
            Some(other) => {
                let rule = "\"best-effort\", \"required\" or \"off\"";
                return Err(value("recording", other, rule));
            }
        };
        if read.recording_input && recording == Policy::Off {
            return Err(value("recording_input", "true", "false where recording is \"off\""));
        }
        if !read.recording_recipients.is_empty() {
            recipients(&read.recording_recipients).map_err(|error| ConfigError::Recipients {
                file: file.to_owned(),
                cause: belay_proto::error_line::one_line(&error),
            })?;
            if recording == Policy::Off {
                let rule = "\"best-effort\" or \"required\" where there are recording_recipients";
                return Err(value("recording", "off", rule));
            }
        }
        let n = read.numbers(file)?;
        let bad =
            |(setting, got, rule)| ConfigError::Value { file: file.to_owned(), setting, got, rule };
        let exports = export::check(read.export).map_err(bad)?;
        let witnesses = cosigner::check(read.witness).map_err(bad)?;
        // A tenth of a minute's worth at once.
        let allow = |per_minute: u32| Allowance::new((per_minute / 6).max(5), per_minute);
        Ok(Self {
            data: data.to_owned(),
            address,
            listen,
            drain: Duration::from_secs(n.drain_seconds.into()),
            quic: Quic {
                strangers: n.quic_strangers as usize,
                strangers_per_source: n.quic_strangers_per_source as usize,
                retry_above: n.quic_retry_above as usize,
            },
            sessions: Sessions {
                per_device: n.sessions_per_device,
                per_user: n.sessions_per_user,
                windows: ResumeWindows {
                    interactive: n.resume_interactive_seconds,
                    other: n.resume_other_seconds,
                },
                recording,
                input: read.recording_input,
            },
            recipients: read.recording_recipients.into(),
            https: Https {
                connections: n.https_connections as usize,
                connections_per_source: n.https_connections_per_source as usize,
                handshakes: n.https_handshakes as usize,
            },
            enrol: Attempts {
                per_source: allow(n.enrol_per_source_per_minute),
                total: allow(n.enrol_total_per_minute),
            },
            login: Login {
                attempts: Attempts {
                    per_source: allow(n.login_per_source_per_minute),
                    total: allow(n.login_total_per_minute),
                },
                per_user: allow(n.login_per_user_per_minute),
            },
            audit: Audit {
                checkpoints_to,
                witnesses,
                checkpoint_every: Duration::from_secs(n.audit_checkpoint_seconds.into()),
            },
            recordings_keep_days: n.recordings_keep_days,
            audit_keep_days: n.audit_keep_days,
            exports,
        })
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use belay_proto::audit::WitnessKey;

    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/d"), Path::new("/d/relay.toml"), text)
    }

    const LEAST: &str = "address = \"relay.test:8443\"\nlisten = \"[::]:8443\"\n";

    #[test]
    fn the_template_names_every_setting_with_its_default() {
        let address = "relay.test:8443".parse().unwrap();
        let text = template(&address, "[::]:8443".parse().unwrap());
        let by_default = parse(&text).unwrap();
        assert_eq!(format!("{by_default:?}"), format!("{:?}", parse(LEAST).unwrap()));
        // A block's lines can be uncommented as they stand.
        let blocks = text.lines().skip_while(|line| !line.starts_with("# [[witness]]"));
        let settings = blocks.filter_map(|line| line.strip_prefix("# "));
        let settings = settings.filter(|line| line.starts_with("[[") || line.contains(" = "));
        let uncommented: Vec<&str> = settings.collect();
        toml::from_str::<toml::Table>(&uncommented.join("\n")).unwrap();
        assert!(uncommented.len() > 12, "{uncommented:?}");
        let mut all = text.clone();
        for key in KEYS {
            let hidden = format!("# {key} = ");
            assert!(text.contains(&hidden), "{key}");
            all = all.replace(&hidden, &format!("{key} = "));
        }
        assert_eq!(format!("{:?}", parse(&all).unwrap()), format!("{by_default:?}"));
    }

    #[test]
    fn every_setting_has_an_effect() {
        let by_default = format!("{:?}", parse(LEAST).unwrap());
        for key in KEYS {
            let changed = parse(&format!("{LEAST}{key} = 77\n")).unwrap();
            assert_ne!(format!("{changed:?}"), by_default, "{key}");
        }
    }

    #[test]
    fn by_default_a_session_waits_as_long_as_the_protocol_says() {
        assert_eq!(parse(LEAST).unwrap().sessions.windows, ResumeWindows::default());
    }

    #[test]
    fn sessions_are_recorded_as_well_as_it_can_be_done_unless_it_is_said_otherwise() {
        let policy = |line: &str| parse(&format!("{LEAST}{line}")).map(|c| c.sessions.recording);
        assert_eq!(policy("").unwrap(), Policy::BestEffort);
        assert_eq!(policy("recording = \"best-effort\"").unwrap(), Policy::BestEffort);
        assert_eq!(policy("recording = \"required\"").unwrap(), Policy::Required);
        assert_eq!(policy("recording = \"off\"").unwrap(), Policy::Off);
        assert!(!parse(LEAST).unwrap().sessions.input);
        assert!(parse(&format!("{LEAST}recording_input = true")).unwrap().sessions.input);
        let line = policy("recording = \"off\"\nrecording_input = true").unwrap_err().to_string();
        assert!(line.contains("recording_input is \"true\""), "{line}");
        let audrey = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        let sealed = format!("{LEAST}recording_recipients = [\"{audrey}\"]\n");
        assert_eq!(*parse(&sealed).unwrap().recipients, [audrey.to_owned()]);
        let mistyped = parse(&sealed.replace("ql3z", "ql3y")).unwrap_err().to_string();
        assert!(mistyped.contains("mistyped") && mistyped.contains("age1ql3y"), "{mistyped}");
        assert!(parse(&format!("{sealed}recording = \"off\"\n")).is_err());
        let line = policy("recording = \"on\"").unwrap_err().to_string();
        assert!(line.contains("recording is \"on\""), "{line}");
    }

    #[test]
    fn exports_are_checked_before_anything_is_bound() {
        let parsed = |block: &str| parse(&format!("{LEAST}[[export]]\nname = \"a\"\n{block}"));
        for good in [
            "kind = \"file\"\npath = \"/x\"",
            "kind = \"syslog\"\nto = \"udp://[::1]:514\"",
            "kind = \"syslog\"\nto = \"tcp://siem.example:601\"\nfacility = 10",
            "kind = \"syslog\"\nto = \"unix:/dev/log\"",
            "kind = \"webhook\"\nurl = \"https://x/in\"\nsecret_file = \"/s\"",
            "kind = \"otlp\"\nurl = \"http://127.0.0.1:4318\"\nfrom = \"now\"\nbatch = 1",
        ] {
            assert_eq!(parsed(good).unwrap().exports.len(), 1, "{good}");
        }
        for (bad, says) in [
            ("kind = \"kafka\"", "kind is \"kafka\""),
            ("kind = \"file\"", "path"),
            ("kind = \"file\"\npath = \"x\"", "begins with /"),
            ("kind = \"file\"\npath = \"/x\"\nurl = \"https://x\"", "file with url"),
            ("kind = \"syslog\"\nto = \"siem:514\"", "udp://HOST:PORT"),
            ("kind = \"syslog\"\nto = \"udp://siem\"", "udp://HOST:PORT"),
            ("kind = \"syslog\"\nto = \"udp://x:1\"\nfacility = 24", "facility"),
            ("kind = \"webhook\"\nurl = \"https://x\"", "secret_file"),
            ("kind = \"webhook\"\nurl = \"http://x\"\nsecret_file = \"/s\"", "url is"),
            ("kind = \"otlp\"\nurl = \"https://x\"\nbatch = 0", "batch"),
            ("kind = \"otlp\"\nurl = \"https://x\"\nfrom = \"5\"", "from"),
            ("kind = \"otlp\"\nurl = \"https://x\"\nsecret = \"s\"", "secret"),
            (
                "kind = \"file\"\npath = \"/x\"\n[[export]]\nname = \"a\"\nkind = \"file\"\npath = \"/y\"",
                "twice",
            ),
        ] {
            let line = belay_proto::error_line::one_line(&parsed(bad).unwrap_err());
            assert!(line.contains(says), "{bad}: {line}");
        }
    }

    #[test]
    fn witnesses_have_an_address_and_a_key() {
        let key = "w.example+7c5d2bc2+BAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g";
        let right: WitnessKey =
            WitnessKey::new("w.example", std::array::from_fn(|n| n as u8 + 1)).unwrap();
        let key = key.replace("7c5d2bc2", &format!("{:08x}", right.number()));
        let block = |url: &str, key: &str| {
            parse(&format!("{LEAST}[[witness]]\nurl = \"{url}\"\nkey = \"{key}\"\n"))
        };
        let witnesses = block("https://w.example/x", &key).unwrap().audit.witnesses;
        assert_eq!(witnesses.first().map(|w| w.key.clone()), Some(right));
        let line = block("http://w.example/x", &key).unwrap_err().to_string();
        assert!(line.contains("[[witness]] url"), "{line}");
        let log_key = "w.example+00000000+AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g";
        let line = block("https://w.example/x", log_key).unwrap_err().to_string();
        assert!(line.contains("[[witness]] key"), "{line}");
    }

    #[test]
    fn a_mistake_is_one_line_that_says_where() {
        for (text, says) in [
            (format!("{LEAST}drain_secs = 3"), "line 3"),
            (format!("{LEAST}audit_checkpoints_to = \"x\""), "audit_checkpoints_to is \"x\""),
            (format!("{LEAST}drain_seconds = -1"), "line 3"),
            (format!("{LEAST}drain_seconds = 99999"), "drain_seconds is 99999"),
            (format!("{LEAST}https_handshakes = 0"), "https_handshakes is 0"),
            (format!("{LEAST}resume_other_seconds = 604801"), "resume_other_seconds is 604801"),
            ("listen = \"[::]:443\"".into(), "address"),
            ("address = \"a b\"\nlisten = \"[::]:443\"".into(), "address is \"a b\""),
            ("address = \"relay.test\"\nlisten = \"443\"".into(), "listen is \"443\""),
            ("][".into(), "line 1"),
        ] {
            let line = belay_proto::error_line::one_line(&parse(&text).unwrap_err());
            assert!(line.contains(says), "{line}");
            assert!(!line.contains('\u{fffd}'), "{line}");
        }
    }
}
