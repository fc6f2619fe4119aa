//! One `Include` line at the top of the user's own ssh configuration.
//!
//! Its law: the file is either as it was or has one line more; its mode, its bytes and, when it is
//! a symbolic link, the link stay. It must be at the top: below a `Host` or `Match` line it would
//! belong to that block (ssh_config(5), Include).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::quote::{UnfitPath, ssh_path};

/// Longest configuration looked at, in bytes. Fleets of Host blocks take a few hundred KiB.
const MAX_CONFIG: u64 = 16 * 1024 * 1024;

/// Symbolic links followed, as many as Linux follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Included {
    /// The line was added.
    Now,
    /// It was there.
    Already,
}

/// The line could not be added; the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum IncludeError {
    /// The file to include has no name ssh could read.
    #[error(transparent)]
    Path(#[from] UnfitPath),
    /// The configuration cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no file, or a far too long one.
    #[error("{0} is not an ssh configuration file")]
    NotAFile(PathBuf),
}

/// Makes sure that `config` includes `file` before anything else in it that opens a block.
///
/// # Errors
/// [`IncludeError`]; `config` is then as it was.
pub fn include_first(config: &Path, file: &Path) -> Result<Included, IncludeError> {
    let line = format!("Include {}\n", ssh_path(file)?);
    let target = follow(config)?;
    let read = |source| IncludeError::Read { path: target.clone(), source };
    let (old, mode) = match fs::metadata(&target) {
        Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_CONFIG => {
            return Err(IncludeError::NotAFile(target));
        }
        Ok(metadata) => (fs::read(&target).map_err(read)?, Some(metadata.permissions())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
        Err(error) => return Err(read(error)),
    };
    if includes(&old, line.trim_end()) {
        return Ok(Included::Already);
    }
    let mut new = line.into_bytes();
    new.extend_from_slice(&old);
    replace(&target, &new, mode).map_err(|source| IncludeError::Write { path: target, source })?;
    Ok(Included::Now)
}

/// Whether the line stands before the first block.
fn includes(config: &[u8], line: &str) -> bool {
    for found in config.split(|byte| *byte == b'\n') {
        let found = String::from_utf8_lossy(found);
        let found = found.trim();
        if found == line {
            return true;
        }
        let keyword = found.split([' ', '\t', '=']).next().unwrap_or_default();
        if keyword.eq_ignore_ascii_case("host") || keyword.eq_ignore_ascii_case("match") {
            return false;
        }
    }
    false
}

/// Where a chain of links ends, whether or not there is a file yet.
fn follow(path: &Path) -> Result<PathBuf, IncludeError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = path.parent().unwrap_or(Path::new("/")).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(IncludeError::NotAFile(path))
}

fn replace(path: &Path, content: &[u8], mode: Option<fs::Permissions>) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    if !dir.exists() {
        belay_tunnel::private_file::make_dir(dir)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".belay-{}", std::process::id()));
    let scratch = dir.join(name);
    let written = write_new(&scratch, content, mode).and_then(|()| fs::rename(&scratch, path));
    if written.is_err() {
        // What matters is why writing failed; a left-over is named after us and harmless.
        fs::remove_file(&scratch).ok();
    }
    written
}

fn write_new(path: &Path, content: &[u8], mode: Option<fs::Permissions>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file: File = options.open(path)?;
    file.write_all(content)?;
    if let Some(mode) = mode {
        file.set_permissions(mode)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn config(&self) -> PathBuf {
            self.dir.path().join(".ssh/config")
        }

        fn with(content: &str, mode: u32) -> Self {
            let place = Self::new();
            fs::create_dir(place.dir.path().join(".ssh")).unwrap();
            fs::write(place.config(), content).unwrap();
            fs::set_permissions(place.config(), fs::Permissions::from_mode(mode)).unwrap();
            place
        }

        fn include(&self) -> Included {
            include_first(&self.config(), Path::new("/h/ssh_config")).unwrap()
        }

        fn text(&self) -> String {
            fs::read_to_string(self.config()).unwrap()
        }

        fn mode(&self, path: &Path) -> u32 {
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        }
    }

    const LINE: &str = "Include \"/h/ssh_config\"\n";

    #[test]
    fn without_a_configuration_one_is_made_private() {
        let place = Place::new();
        assert_eq!(place.include(), Included::Now);
        assert_eq!(place.text(), LINE);
        assert_eq!(place.mode(&place.config()), 0o600);
        assert_eq!(place.mode(place.config().parent().unwrap()), 0o700);
    }

    #[test]
    fn an_existing_one_gets_one_line_at_the_top_once_and_keeps_the_rest() {
        let place = Place::with("Host a\n\tUser b\r\n# \u{fc}\n", 0o640);
        assert_eq!(place.include(), Included::Now);
        assert_eq!(place.include(), Included::Already);
        assert_eq!(place.text(), format!("{LINE}Host a\n\tUser b\r\n# \u{fc}\n"));
        assert_eq!(place.mode(&place.config()), 0o640);
        let beside = fs::read_dir(place.config().parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1, "a scratch file was left behind");
    }

    #[test]
    fn a_line_inside_a_block_does_not_count() {
        let place = Place::with(&format!("Match all\n{LINE}"), 0o600);
        assert_eq!(place.include(), Included::Now);
        assert_eq!(place.text(), format!("{LINE}Match all\n{LINE}"));
    }

    #[test]
    fn a_line_below_other_settings_but_above_the_first_block_counts() {
        let content = format!("# mine\nCompression yes\n{LINE}Host a\n");
        let place = Place::with(&content, 0o600);
        assert_eq!(place.include(), Included::Already);
        assert_eq!(place.text(), content);
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        let place = Place::with("", 0o600);
        fs::write(place.config(), b"# \xff\xfe\nHost x\n").unwrap();
        assert_eq!(place.include(), Included::Now);
        let expected = [LINE.as_bytes(), b"# \xff\xfe\nHost x\n"].concat();
        assert_eq!(fs::read(place.config()).unwrap(), expected);
    }

    #[test]
    fn a_link_stays_a_link_and_its_target_is_changed() {
        let place = Place::new();
        let real = place.dir.path().join("dotfiles/config");
        fs::create_dir_all(real.parent().unwrap()).unwrap();
        fs::create_dir(place.dir.path().join(".ssh")).unwrap();
        fs::write(&real, "Host a\n").unwrap();
        symlink("../dotfiles/config", place.config()).unwrap();
        assert_eq!(place.include(), Included::Now);
        assert!(fs::symlink_metadata(place.config()).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), format!("{LINE}Host a\n"));
    }

    #[test]
    fn a_link_to_nowhere_is_filled_and_a_loop_is_refused() {
        let place = Place::new();
        fs::create_dir(place.dir.path().join(".ssh")).unwrap();
        symlink("real", place.config()).unwrap();
        assert_eq!(place.include(), Included::Now);
        assert!(fs::symlink_metadata(place.config()).unwrap().is_symlink());
        let looped = place.dir.path().join(".ssh/loop");
        symlink("loop", &looped).unwrap();
        assert!(include_first(&looped, Path::new("/h/x")).is_err());
    }

    #[test]
    fn a_directory_or_an_unwritable_place_is_refused_and_unharmed() {
        let place = Place::new();
        fs::create_dir_all(place.config()).unwrap();
        assert!(matches!(
            include_first(&place.config(), Path::new("/h/x")),
            Err(IncludeError::NotAFile(_))
        ));
        assert!(include_first(Path::new("/proc/self/config"), Path::new("/h/x")).is_err());
    }
}
