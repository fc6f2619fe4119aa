//! Ends what still runs in a lab's namespaces: on drop from this process, and
//! from a small watcher of its own when this process was killed.
//!
//! The watcher is a shell in a session of its own (an interrupt from the
//! terminal does not reach it) that reads namespace ids from a pipe. Only the
//! test process holds the other end, so the pipe's end of file *is* the death
//! of the test process.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long processes that were sent SIGKILL may take to leave. One in an
/// uninterruptible wait may need it; the usual case is a few milliseconds.
const LEAVE: Duration = Duration::from_secs(5);

const WATCH: &str = r#"
spaces=
while read -r word; do
  [ "$word" = done ] && exit 0
  spaces="$spaces $word"
done
for round in 1 2 3 4 5 6 7 8 9 10; do
  found=
  for space in $spaces; do
    for link in $(find /proc/[0-9]*/ns/net -maxdepth 0 -lname "net:\[$space\]" 2>/dev/null); do
      process=${link#/proc/}
      kill -9 "${process%%/*}" 2>/dev/null
      found=1
    done
  done
  [ -n "$found" ] || exit 0
  sleep 0.2
done
"#;

#[derive(Debug)]
pub(super) struct Reaper {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Reaper {
    pub(super) fn start() -> Result<Self> {
        let mut child = Command::new("setsid")
            .args(["sh", "-c", WATCH])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the lab's reaper")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Puts a namespace in the watcher's care.
    pub(super) fn watch(&mut self, space: u64) -> Result<()> {
        let pipe = self.pipe.as_mut().context("the reaper was dismissed")?;
        writeln!(pipe, "{space}").context("telling the lab's reaper")
    }

    /// Sends the watcher home: the lab was ended in good order.
    pub(super) fn dismiss(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // If the watcher is gone already there is nobody to send home.
            drop(writeln!(pipe, "done"));
        }
        drop(self.child.wait());
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// Ends every process that stands in one of these namespaces, and waits until
/// they are gone.
pub(super) fn end_all_in(spaces: &[u64]) {
    let deadline = Instant::now() + LEAVE;
    loop {
        let inside = processes_in(spaces);
        if inside.is_empty() || Instant::now() > deadline {
            return;
        }
        for process in inside {
            // One that left between the look and the signal is what we want.
            if kill(process, Signal::SIGKILL).is_err() {
                continue;
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The processes that stand in one of these namespaces, zombies excepted.
pub(super) fn processes_in(spaces: &[u64]) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            // A zombie has no namespaces any more, and the link reads as an error.
            std::fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|found| spaces.contains(&found.ino()))
        })
        .map(Pid::from_raw)
        .collect()
}
