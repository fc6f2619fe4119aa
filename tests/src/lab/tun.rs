//! A TUN device: the far side of a network interface as a file, one IP packet
//! a read or write.
//!
//! The one module of this crate that holds unsafe code: the kernel gives no
//! other way to name the device than an ioctl.

#![allow(unsafe_code, reason = "TUNSETIFF is an ioctl; its one call is audited below")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, ensure};
use nix::libc;

/// Size of an interface name with its closing zero (`IFNAMSIZ`).
const NAME_LEN: usize = 16;

/// `struct ifreq` as TUNSETIFF reads it: a name, flags, and the rest of the
/// union, 40 bytes in all on every 64-bit Linux.
#[repr(C)]
struct IfReq {
    name: [u8; NAME_LEN],
    flags: libc::c_short,
    rest: [u8; 22],
}

nix::ioctl_write_ptr_bad!(
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    IfReq
);

/// Makes a TUN device called `name` in the calling thread's network namespace.
/// It lives until the file is closed. The file does not block.
///
/// # Errors
/// When the name is too long or taken, or the kernel refuses.
pub fn open(name: &str) -> Result<File> {
    let bytes = name.as_bytes();
    ensure!(
        !bytes.is_empty() && bytes.len() < NAME_LEN,
        "an interface name has 1 to 15 bytes: {name:?}"
    );
    let mut request = IfReq {
        name: [0; NAME_LEN],
        // Bare IP packets, without the four bytes of packet information.
        flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
        rest: [0; 22],
    };
    for (to, from) in request.name.iter_mut().zip(bytes) {
        *to = *from;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("opening /dev/net/tun")?;
    // SAFETY: the descriptor is open for the whole call; `request` is a live,
    // fully initialised ifreq of the size the kernel copies (40 bytes), its
    // name is closed by a zero because it is shorter than the field; the
    // kernel keeps no pointer to it.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }
        .with_context(|| format!("making the TUN device {name}"))?;
    Ok(file)
}

const _: () = assert!(size_of::<IfReq>() == 40, "struct ifreq is 40 bytes");
