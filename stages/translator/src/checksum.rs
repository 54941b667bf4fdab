//! The Internet checksum (RFC 1071): full sums, and incremental updates (RFC 1624).
//!
//! A "sum" here is an unfolded ones' complement sum of big-endian 16-bit words in a `u64`; sums are added freely
//! and folded once.

/// The checksum field value over `bytes`, an odd last byte padded with zero.
#[inline]
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// Adds up the 16-bit words of `bytes`.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // 32-bit words are added instead of 16-bit ones: folding makes the result equal (RFC 1071 section 2).
    let (words, tail) = bytes.as_chunks::<4>();
    let mut total = 0u64;
    for word in words {
        total += u64::from(u32::from_be_bytes(*word));
    }
    let mut last = [0u8; 4];
    for (to, from) in last.iter_mut().zip(tail) {
        *to = *from;
    }
    total + u64::from(u32::from_be_bytes(last))
}

/// The sum of an IPv4 address.
#[inline]
pub(crate) fn sum4(address: u32) -> u64 {
    u64::from(address)
}

/// The sum of an IPv6 address.
#[inline]
pub(crate) fn sum6(address: u128) -> u64 {
    let (high, low) = ((address >> 64) as u64, address as u64);
    (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
}

/// Folds a sum to 16 bits; zero only for a sum of zero.
#[inline(always)]
pub(crate) fn fold(sum: u64) -> u16 {
    let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let sum = sum + u32::from(carry);
    let (sum, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
    sum + u16::from(carry)
}

/// A multiple of 0xffff, which is nothing to a folded sum, larger than any sum: subtracting from it complements.
const NOTHING: u64 = 0xffff << 46;

/// The new value of a checksum field after words adding up to `minus` were replaced by words adding up to `plus`
/// (RFC 1624, equation 3).
#[inline(always)]
pub(crate) fn update(field: u16, minus: u64, plus: u64) -> u16 {
    !fold(u64::from(!field) + (NOTHING - minus) + plus)
}

/// The same for a field that holds an unfinished, not complemented sum (an offloaded checksum).
#[inline(always)]
pub(crate) fn update_partial(field: u16, minus: u64, plus: u64) -> u16 {
    fold(u64::from(field) + (NOTHING - minus) + plus)
}

/// The sum of the IPv6 pseudo-header (RFC 8200 section 8.1) of `length` octets of protocol `next`.
#[inline]
pub(crate) fn pseudo6(source: u128, destination: u128, length: usize, next: u8) -> u64 {
    sum6(source) + sum6(destination) + length as u64 + u64::from(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn slow(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn equals_the_naive_sum_for_all_lengths() {
        let bytes: Vec<u8> = (0..300u32).map(|n| (n * 151 + 7) as u8).collect();
        for end in 0..bytes.len() {
            assert_eq!(fold(sum(&bytes[..end])), slow(&bytes[..end]), "{end}");
        }
        assert_eq!(fold(sum(&[0xff; 70000])), slow(&[0xff; 70000]));
    }

    #[test]
    fn rfc1624_example() {
        // RFC 1624 section 4: HC = DD2F, m = 5555, m' = 3285 gives 0000, where equation 2 of RFC 1141 fails.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }
}
