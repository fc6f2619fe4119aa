//! A file's bytes from the device and to it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Way;
use super::ours::run;
use super::stats::Samples;
use super::way::Terminal;
use crate::lab::Netns;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    /// From the device.
    Down,
    /// To the device.
    Up,
}

/// Random bytes in memory that every node of a lab can read.
#[derive(Debug)]
pub struct Payload {
    path: PathBuf,
    bytes: u64,
    digest: String,
    _dir: tempfile::TempDir,
}

impl Payload {
    /// Makes one.
    ///
    /// # Errors
    /// When there is no room in memory.
    pub fn make(mebibytes: u64) -> Result<Self> {
        let dir = tempfile::tempdir_in("/dev/shm").context("no memory file system")?;
        let path = dir.path().join("payload");
        let mut random = File::open("/dev/urandom").context("no random numbers")?;
        let mut file = File::create(&path).context("making the payload")?;
        let mut piece = vec![0; 1 << 20];
        for _ in 0..mebibytes {
            random.read_exact(&mut piece).context("no random numbers")?;
            file.write_all(&piece).context("writing the payload")?;
        }
        let digest = first_word(&run(Command::new("sha256sum").arg(&path))?)?;
        Ok(Self { path, bytes: mebibytes << 20, digest, _dir: dir })
    }

    fn command(&self, way: &Way, towards: Towards) -> Result<Command> {
        let mut command = match towards {
            Towards::Down => way.command(Terminal::None, &format!("cat {}", self.shown())),
            Towards::Up => way.command(Terminal::None, "cat > /dev/null"),
        };
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        match towards {
            Towards::Down => command.stdin(Stdio::null()),
            Towards::Up => command.stdin(File::open(&self.path).context("opening the payload")?),
        };
        Ok(command)
    }

    fn shown(&self) -> std::path::Display<'_> {
        Path::display(&self.path)
    }

    /// Compares digests of what arrives, once for each way.
    ///
    /// # Errors
    /// When they differ or a command fails.
    pub fn verify(&self, laptop: &Netns, ways: &[&Way], towards: Towards) -> Result<()> {
        for way in ways {
            let arrived = match towards {
                Towards::Up => {
                    let mut command = way.command(Terminal::None, "sha256sum");
                    command.stdin(File::open(&self.path).context("opening the payload")?);
                    way.checked(laptop.run(|| command.output())?)?
                }
                Towards::Down => {
                    let mut command = way.command(Terminal::None, &format!("cat {}", self.shown()));
                    command.stdin(Stdio::null()).stdout(Stdio::piped());
                    let mut child = laptop.run(|| command.spawn())?.context("starting it")?;
                    let out = child.stdout.take().context("no standard output")?;
                    let sum = Command::new("sha256sum").stdin(out).output();
                    ensure!(child.wait()?.success(), "{}: the transfer failed", way.name);
                    way.checked(sum)?
                }
            };
            let arrived = first_word(&arrived)?;
            ensure!(arrived == self.digest, "{}: other bytes arrived {towards:?}", way.name);
        }
        Ok(())
    }

    /// Times whole transfers, connecting included, every way in turns.
    ///
    /// # Errors
    /// When one fails.
    pub fn measure(
        &self,
        laptop: &Netns,
        ways: &[&Way],
        towards: Towards,
        turns: usize,
    ) -> Result<Vec<Samples>> {
        let mut all = vec![Samples::default(); ways.len()];
        for _ in 0..turns {
            for (way, samples) in ways.iter().zip(&mut all) {
                let mut command = self.command(way, towards)?;
                let (output, took) = laptop.run(|| {
                    let began = Instant::now();
                    (command.output(), began.elapsed())
                })?;
                way.checked(output)?;
                samples.push(took);
            }
        }
        Ok(all)
    }

    /// Megabytes a second.
    #[must_use]
    pub fn speed(&self, took: Duration) -> f64 {
        let bytes = self.bytes as f64;
        bytes / 1e6 / took.as_secs_f64()
    }
}

fn first_word(text: &str) -> Result<String> {
    text.split_whitespace().next().map(ToOwned::to_owned).context("sha256sum said nothing")
}
