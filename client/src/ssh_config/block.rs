//! The block itself.

use std::path::Path;

use belay_proto::names::Login;

use super::quote::{UnfitPath, shell_word, ssh_path};
use crate::home::{File, Home, VARIABLE};

/// What the block is made of.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// The client's files.
    pub home: &'a Home,
    /// This program.
    pub program: &'a Path,
    /// The login of a `ssh` that names none; otherwise the local user's name, as ssh has it.
    pub login: Option<&'a Login>,
}

/// The block cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A path of the home does not fit.
    #[error("{0}; set {VARIABLE} to a directory with a plain name")]
    Home(UnfitPath),
    /// The program's path is not text.
    #[error("the path of this program is not UTF-8; move it to a directory with a plain name")]
    Program,
}

impl Block<'_> {
    /// The text, ending in a line feed.
    ///
    /// AES-GCM stands first because every CPU of the last ten years has it in hardware. Key
    /// exchange is left to ssh: both sides prefer a post-quantum one where ssh has it, and a name
    /// an older ssh does not know would stop it.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn text(&self) -> Result<String, BlockError> {
        let path = |file| ssh_path(&self.home.path(file)).map_err(BlockError::Home);
        let mut text = String::from(
            "# Devices behind a Belay relay. Written by: belay ssh-config\nHost *.belay\n",
        );
        let mut option = |key: &str, value: &str| text.push_str(&format!("    {key} {value}\n"));
        option("ProxyCommand", &self.proxy_command()?);
        if let Some(login) = self.login {
            option("User", login.as_str());
        }
        option("IdentityFile", &path(File::SshKey)?);
        option("CertificateFile", &path(File::SshCertificate)?);
        option("IdentitiesOnly", "yes");
        option("PreferredAuthentications", "publickey");
        option("UserKnownHostsFile", &path(File::KnownHosts)?);
        option("StrictHostKeyChecking", "yes");
        option("UpdateHostKeys", "no");
        option("HostKeyAlgorithms", "ssh-ed25519-cert-v01@openssh.com");
        option("CASignatureAlgorithms", "ssh-ed25519");
        option(
            "Ciphers",
            "aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com",
        );
        // A session outlives its line; ssh must not end it because nobody answers for a while.
        option("ServerAliveInterval", "0");
        Ok(text)
    }

    fn proxy_command(&self) -> Result<String, BlockError> {
        let program = self.program.to_str().ok_or(BlockError::Program)?;
        let mut words = vec![token_free(&word(program))];
        if !self.home.is_default() {
            let home = self.home.dir().to_str().ok_or(BlockError::Program)?;
            words.push("--home".into());
            words.push(token_free(&word(home)));
        }
        // ssh puts login and host in here; the quotes keep them single words in the shell that
        // reads the line.
        let (login, host) = if cfg!(windows) { ("%r", "%h") } else { ("'%r'", "'%h'") };
        words.extend(["proxy".into(), "--login".into(), login.into(), host.into()]);
        Ok(words.join(" "))
    }
}

fn word(text: &str) -> String {
    if cfg!(windows) { format!("\"{text}\"") } else { shell_word(text) }
}

/// `%` begins a token in ProxyCommand; `%%` is the character itself (ssh_config(5), TOKENS).
fn token_free(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::process::Command;

    use super::*;

    fn text(home: &Path, program: &str) -> Result<String, BlockError> {
        let home = Home::locate(Some(home)).unwrap();
        Block { home: &home, program: Path::new(program), login: None }.text()
    }

    /// What the installed ssh makes of the block; `None` where there is no ssh.
    fn ssh_reads(block: &str, destination: &str) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        std::fs::write(&config, block).unwrap();
        let output =
            Command::new("ssh").arg("-G").arg("-F").arg(&config).arg(destination).output().ok()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}\n{block}");
        Some(String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn the_installed_ssh_reads_the_block_as_it_was_meant() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("be lay's home");
        let block = text(&home, "/opt/my tools/it's/be%lay").unwrap();
        let Some(read) = ssh_reads(&block, "root@pump-17.belay") else { return };
        let has = |line: &str| assert!(read.lines().any(|l| l == line), "{line}\n{read}");
        has(&format!("identityfile {}", home.join("id_ed25519").display()));
        has(&format!("certificatefile {}", home.join("id_ed25519-cert.pub").display()));
        has("stricthostkeychecking true");
        has("identitiesonly yes");
        has("hostkeyalgorithms ssh-ed25519-cert-v01@openssh.com");
        has("ciphers aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com");
        assert!(read.contains("proxycommand '/opt/my tools/it'\\''s/be%%lay' --home "), "{read}");
        let other = ssh_reads(&block, "example.com").unwrap();
        assert!(!other.contains("belay proxy"), "{other}");
    }

    #[test]
    fn a_default_login_is_written_only_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(dir.path())).unwrap();
        let login = "support".parse().unwrap();
        let program = Path::new("/usr/bin/belay");
        let with = Block { home: &home, program, login: Some(&login) }.text().unwrap();
        assert!(with.contains("    User support\n"));
        assert!(!text(dir.path(), "/usr/bin/belay").unwrap().contains("User support"));
    }

    #[test]
    fn a_home_whose_name_means_something_to_ssh_is_refused_with_the_remedy() {
        let error = text(Path::new("/home/100%h"), "/usr/bin/belay").unwrap_err().to_string();
        assert!(error.contains("set BELAY_HOME"), "{error}");
    }
}
