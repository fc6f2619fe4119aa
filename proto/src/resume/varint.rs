//! QUIC's variable-length integers (RFC 9000 §16): one, two, four or eight bytes, up to 2^62-1.

use bytes::{BufMut as _, BytesMut};

/// The largest value the encoding holds. At 10 GB/s an offset reaches it after fourteen years.
pub(super) const MAX: u64 = (1 << 62) - 1;

/// Appends `value` in its shortest form. A value above [`MAX`] is written as [`MAX`]: no offset
/// gets there, because the replay buffer admits none that would.
pub(super) fn put(value: u64, out: &mut BytesMut) {
    let value = value.min(MAX);
    if let Some(one) = u8::try_from(value).ok().filter(|one| *one < 1 << 6) {
        out.put_u8(one);
    } else if let Some(two) = u16::try_from(value).ok().filter(|two| *two < 1 << 14) {
        out.put_u16(two | 0x4000);
    } else if let Some(four) = u32::try_from(value).ok().filter(|four| *four < 1 << 30) {
        out.put_u32(four | 0x8000_0000);
    } else {
        out.put_u64(value | 0xc000_0000_0000_0000);
    }
}

/// The integer `bytes` begins with and what follows it, or `None` when more bytes are needed. Like
/// RFC 9000, it takes a value in a longer form than it needs.
pub(super) fn take(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, _) = bytes.split_first()?;
    let length = 1usize << (first >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    let value = number.iter().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
    // The two highest bits of the first byte are the length.
    let mask = u64::MAX >> (64 - (8 * length - 2));
    Some((value & mask, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn written(value: u64) -> BytesMut {
        let mut out = BytesMut::new();
        put(value, &mut out);
        out
    }

    #[test]
    fn the_examples_of_the_rfc_read_and_write() {
        // RFC 9000 appendix A.1.
        let examples: [(u64, &[u8]); 4] = [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ];
        for (value, bytes) in examples {
            assert_eq!(written(value), bytes);
            assert_eq!(take(bytes), Some((value, [].as_slice())));
        }
        assert_eq!(take(&[0x40, 0x25]), Some((37, [].as_slice())));
    }

    #[test]
    fn every_width_reads_back_and_a_cut_one_waits() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, MAX] {
            let bytes = written(value);
            assert_eq!(take(&bytes), Some((value, [].as_slice())));
            for cut in 0..bytes.len() {
                assert_eq!(take(bytes.get(..cut).unwrap()), None);
            }
        }
    }
}
