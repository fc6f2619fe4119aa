//! Identities in bulk: keys and certificates, and the devices' records in the relay's store.
//!
//! Everything goes through the relay's own library (its CA, its store), so what is made is what
//! enrolment would have made. The relay must not be running: the store has one writer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use belay_proto::ids::DeviceId;
use belay_proto::names::DeviceName;
use belay_proto::token::Secret;
use belay_proto::wire::frame::{LENGTH_BYTES, decode_payload, encode_frame, payload_length};
use belay_relay::ca::{Authority, DEVICE_LIFE};
use belay_relay::config::Config;
use belay_relay::store::{Enrolment, NameWish, NewToken, Store};
use belay_tunnel::clock;
use belay_tunnel::pki::{TlsKey, requested_key_digest};
use futures::future::try_join_all;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Devices written to the store at once: the size of its largest group commit.
const GROUP: usize = 1000;

/// A host key of a valid form. Nobody connects to a simulated device by SSH, so all share it.
const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtAaeKkiD46K9h4nLg+gm+MLMwdvdDr5mEFMB7Jh2y4";

/// One simulated device.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Member {
    /// Its id in the relay's store.
    #[n(0)]
    pub id: DeviceId,
    /// Its name.
    #[n(1)]
    pub name: DeviceName,
    /// X.509, DER.
    #[n(2)]
    pub certificate: ByteVec,
    /// PKCS #8, PEM.
    #[n(3)]
    pub key: String,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Head {
    #[n(0)]
    relay: String,
    #[n(1)]
    ca: ByteVec,
    #[n(2)]
    members: u32,
}

/// Everything a fleet needs to connect.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The relay's host, as its certificate has it.
    pub relay: String,
    /// The deployment CA, DER.
    pub ca: Vec<u8>,
    /// The devices.
    pub members: Vec<Member>,
}

/// A device with a key and nothing else yet.
struct Made {
    key: TlsKey,
    request: Vec<u8>,
    digest: [u8; 32],
}

impl Credentials {
    /// Enrols `count` devices named `PREFIX-1` and so on in the deployment in `data`.
    ///
    /// # Errors
    /// When the deployment cannot be read or written.
    pub async fn enrol(data: &Path, prefix: &str, count: u32) -> Result<Self> {
        let config = Config::load(data)?;
        let authority = Authority::load(data, config.address.host())?;
        let store = Store::open(data).await?;
        let filled = fill(&store, &authority, prefix, count).await;
        store.close().await;
        Ok(Self {
            relay: config.address.host().to_owned(),
            ca: authority.ca().to_vec(),
            members: filled?,
        })
    }

    /// Writes them to a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut file =
            BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
        let members = u32::try_from(self.members.len()).context("too many members")?;
        let head = Head { relay: self.relay.clone(), ca: self.ca.clone().into(), members };
        file.write_all(&encode_frame(&head)?)?;
        for member in &self.members {
            file.write_all(&encode_frame(member)?)?;
        }
        file.flush().with_context(|| path.display().to_string())
    }

    /// Reads them back.
    ///
    /// # Errors
    /// When the file is not one of [`Credentials::save`].
    pub fn load(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut file = BufReader::new(file);
        let mut next = || -> Result<Vec<u8>> {
            let mut prefix = [0; LENGTH_BYTES];
            file.read_exact(&mut prefix)?;
            let mut payload = vec![0; payload_length(prefix)?];
            file.read_exact(&mut payload)?;
            Ok(payload)
        };
        let head: Head = decode_payload(&next()?)?;
        let members =
            (0..head.members).map(|_| Ok(decode_payload(&next()?)?)).collect::<Result<_>>()?;
        Ok(Self { relay: head.relay, ca: head.ca.into(), members })
    }
}

async fn fill(
    store: &Store,
    authority: &Authority,
    prefix: &str,
    count: u32,
) -> Result<Vec<Member>> {
    let secret = a_token(store, count).await?;
    let mut members = Vec::with_capacity(count as usize);
    let mut from = 1;
    while from <= count {
        let names: Vec<DeviceName> = (from..=count)
            .take(GROUP)
            .map(|n| format!("{prefix}-{n}").parse().context("the prefix makes no names"))
            .collect::<Result<_>>()?;
        from += u32::try_from(names.len())?;
        members.extend(group(store, authority, &secret, names).await?);
    }
    Ok(members)
}

/// A token with as many uses as there are devices, by the deployment's first administrator.
async fn a_token(store: &Store, uses: u32) -> Result<Secret> {
    let mut bytes = [0; 20];
    aws_lc_rs::rand::fill(&mut bytes).context("no random numbers")?;
    let secret = Secret::from_bytes(bytes);
    let user = store.users().await?.into_iter().next().context("the deployment has no user")?;
    let token = NewToken {
        digest: secret.digest(),
        expires: clock::now().plus(Duration::from_secs(3600)),
        uses,
        pattern: None,
        labels: BTreeMap::new(),
    };
    store.create_token(token, user.id, here()).await?;
    Ok(secret)
}

async fn group(
    store: &Store,
    authority: &Authority,
    secret: &Secret,
    names: Vec<DeviceName>,
) -> Result<Vec<Member>> {
    let now = clock::now();
    let made = on_all_processors(&names, |_| {
        let key = TlsKey::generate()?;
        let request = key.request_der()?;
        let digest = requested_key_digest(&request)?;
        Ok(Made { key, request, digest })
    })?;
    let enrolled = try_join_all(names.iter().zip(&made).map(|(name, made)| {
        store.enrol(Enrolment {
            token: secret.digest(),
            key_digest: made.digest,
            wish: NameWish::Exactly(name.clone()),
            ssh_host_key: HOST_KEY.to_owned(),
            hostname: name.to_string(),
            platform: "linux/simulated".to_owned(),
            software: super::device::SOFTWARE.to_owned(),
            now,
            certificate_ends: now.plus(DEVICE_LIFE),
            source: here(),
            note: String::new(),
        })
    }))
    .await?;
    let work: Vec<_> = enrolled.iter().zip(&made).collect();
    on_all_processors(&work, |(enrolled, made)| {
        ensure!(!enrolled.again, "{} was there already", enrolled.name);
        let issued =
            authority.issue_device(enrolled.id, &enrolled.name, &made.request, HOST_KEY, now)?;
        Ok(Member {
            id: enrolled.id,
            name: enrolled.name.clone(),
            certificate: issued.certificate.to_vec().into(),
            key: made.key.to_pem().as_str().to_owned(),
        })
    })
}

fn here() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Maps in order, on as many threads as there are processors.
fn on_all_processors<T: Sync, U: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<U> + Sync,
) -> Result<Vec<U>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let work = &work;
        let shares: Vec<_> = items
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().map(work).collect::<Result<Vec<_>>>()))
            .collect();
        let mut all = Vec::with_capacity(items.len());
        for share in shares {
            match share.join() {
                Ok(made) => all.extend(made?),
                Err(_) => bail!("a thread that makes credentials panicked"),
            }
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn credentials_read_back_as_they_were_written_and_a_cut_file_is_refused() {
        let id = DeviceId::from_slice(&[7; 16]).unwrap();
        let member = Member {
            id,
            name: "sim-1".parse().unwrap(),
            certificate: vec![1, 2, 3].into(),
            key: "key".into(),
        };
        let written =
            Credentials { relay: "relay.test".into(), ca: vec![9], members: vec![member; 3] };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet");
        written.save(&path).unwrap();
        let read = Credentials::load(&path).unwrap();
        assert_eq!((read.relay.as_str(), &read.ca), ("relay.test", &vec![9]));
        assert_eq!(read.members.len(), 3);
        assert!(read.members.iter().all(|m| m.id == id && m.certificate.as_slice() == [1, 2, 3]));

        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, bytes.split_last().unwrap().1).unwrap();
        assert!(Credentials::load(&path).is_err());
    }
}
