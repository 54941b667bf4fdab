//! Classic pcap files with raw IP packets, on byte slices.
//!
//! Both byte orders and both time stamp units (magic `a1b2c3d4` and `a1b23c4d`) are read; LINKTYPE_RAW (101), its
//! old values 12 and 14, and LINKTYPE_IPV4/IPV6 (228, 229) are accepted. Files are written little endian, with
//! LINKTYPE_RAW.

use alloc::vec::Vec;

/// Why a file could not be read; positions are octets from its start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PcapError {
    /// Shorter than a file header.
    #[error("not a pcap file: only {0} bytes long")]
    TooShort(usize),
    /// An unknown first word.
    #[error("not a classic pcap file: it starts with {0:02x?} (pcapng is not read)")]
    Magic([u8; 4]),
    /// A version other than 2.
    #[error("pcap version {0} is not known (expected 2)")]
    Version(u16),
    /// Packets with a link layer.
    #[error("link type {0} is not raw IP (expected 101, LINKTYPE_RAW)")]
    LinkType(u32),
    /// The file ends inside of a record.
    #[error("packet {packet} at byte {at} is cut off")]
    CutOff {
        /// Number of the packet, from 1.
        packet: usize,
        /// Where its record starts.
        at: usize,
    },
    /// A record longer than any packet.
    #[error("packet {packet} at byte {at} claims {length} bytes")]
    TooLong {
        /// Number of the packet, from 1.
        packet: usize,
        /// Where its record starts.
        at: usize,
        /// What it claims.
        length: u32,
    },
}

/// One captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Seconds of the time stamp.
    pub seconds: u32,
    /// Microseconds or nanoseconds of the time stamp, as the file has them.
    pub fraction: u32,
    /// The captured octets, perhaps fewer than the packet had.
    pub data: &'a [u8],
}

/// Reads records; an iterator that ends after the first error.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    file: &'a [u8],
    at: usize,
    packet: usize,
    big_endian: bool,
    nanoseconds: bool,
}

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
/// More than a maximal IPv6 packet; what tcpdump and Wireshark refuse, too.
const LONGEST: u32 = 262_144;

impl<'a> Reader<'a> {
    /// Checks the file header.
    pub fn new(file: &'a [u8]) -> Result<Self, PcapError> {
        let header: &[u8; FILE_HEADER] = file.first_chunk().ok_or(PcapError::TooShort(file.len()))?;
        let [a, b, c, d, ..] = *header;
        let (big_endian, nanoseconds) = match [a, b, c, d] {
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, false),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, true),
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, false),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, true),
            magic => return Err(PcapError::Magic(magic)),
        };
        let reader = Self {
            file,
            at: FILE_HEADER,
            packet: 0,
            big_endian,
            nanoseconds,
        };
        let version = [header[4], header[5]];
        let version = if big_endian {
            u16::from_be_bytes(version)
        } else {
            u16::from_le_bytes(version)
        };
        if version != 2 {
            return Err(PcapError::Version(version));
        }
        // The upper half may hold the length of a frame check sequence.
        match reader.word(20).unwrap_or(0) & 0xffff {
            12 | 14 | 101 | 228 | 229 => Ok(reader),
            other => Err(PcapError::LinkType(other)),
        }
    }

    /// Whether `fraction` counts nanoseconds, not microseconds.
    pub fn is_nanoseconds(&self) -> bool {
        self.nanoseconds
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = *self.file.get(at..)?.first_chunk()?;
        Some(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    fn record(&self) -> Result<Record<'a>, PcapError> {
        let (packet, at) = (self.packet, self.at);
        let cut_off = PcapError::CutOff { packet, at };
        let words = (self.word(at), self.word(at + 4), self.word(at + 8), self.word(at + 12));
        let (Some(seconds), Some(fraction), Some(length), Some(_)) = words else {
            return Err(cut_off);
        };
        if length > LONGEST {
            return Err(PcapError::TooLong { packet, at, length });
        }
        let start = at + RECORD_HEADER;
        let data = self.file.get(start..start + length as usize).ok_or(cut_off)?;
        Ok(Record {
            seconds,
            fraction,
            data,
        })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Record<'a>, PcapError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.file.len() {
            return None;
        }
        self.packet += 1;
        let record = self.record();
        match &record {
            Ok(record) => self.at += RECORD_HEADER + record.data.len(),
            Err(_) => self.at = usize::MAX,
        }
        Some(record)
    }
}

/// Appends a file header to `out`.
pub fn write_header(out: &mut Vec<u8>, nanoseconds: bool) {
    let magic: u32 = if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    out.extend(magic.to_le_bytes());
    out.extend([2, 0, 4, 0]);
    out.extend([0; 8]);
    out.extend(LONGEST.to_le_bytes());
    out.extend(101u32.to_le_bytes());
}

/// Appends a record to `out`.
pub fn write_record(out: &mut Vec<u8>, record: &Record<'_>) {
    let length = (record.data.len() as u32).to_le_bytes();
    out.extend(record.seconds.to_le_bytes());
    out.extend(record.fraction.to_le_bytes());
    out.extend(length);
    out.extend(length);
    out.extend(record.data);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(magic: [u8; 4], swap: bool, link: u32) -> Vec<u8> {
        let word = |value: u32| if swap { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut out = magic.to_vec();
        out.extend(if swap { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
        out.extend([0; 8]);
        out.extend(word(65535));
        out.extend(word(link));
        for value in [7, 8, 3, 3] {
            out.extend(word(value));
        }
        out.extend([1, 2, 3]);
        out
    }

    #[test]
    fn all_four_magics() {
        for (magic, swap, nanoseconds) in [
            ([0xa1, 0xb2, 0xc3, 0xd4], true, false),
            ([0xa1, 0xb2, 0x3c, 0x4d], true, true),
            ([0xd4, 0xc3, 0xb2, 0xa1], false, false),
            ([0x4d, 0x3c, 0xb2, 0xa1], false, true),
        ] {
            let file = file(magic, swap, 101);
            let reader = Reader::new(&file).unwrap();
            assert_eq!(reader.is_nanoseconds(), nanoseconds);
            let records: Vec<_> = reader.map(Result::unwrap).collect();
            assert_eq!(
                records,
                [Record {
                    seconds: 7,
                    fraction: 8,
                    data: &[1, 2, 3]
                }]
            );
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        write_header(&mut out, true);
        let record = Record {
            seconds: 1,
            fraction: 2,
            data: &[9; 60],
        };
        write_record(&mut out, &record);
        let mut reader = Reader::new(&out).unwrap();
        assert!(reader.is_nanoseconds());
        assert_eq!(reader.next(), Some(Ok(record)));
        assert_eq!(reader.next(), None);
    }

    #[test]
    fn errors_say_where() {
        let good = file([0xd4, 0xc3, 0xb2, 0xa1], false, 101);
        assert_eq!(Reader::new(&good[..10]).unwrap_err(), PcapError::TooShort(10));
        assert_eq!(
            Reader::new(&file([0x0a, 0x0d, 0x0d, 0x0a], false, 101)).unwrap_err(),
            PcapError::Magic([10, 13, 13, 10])
        );
        assert_eq!(
            Reader::new(&file([0xd4, 0xc3, 0xb2, 0xa1], false, 1)).unwrap_err(),
            PcapError::LinkType(1)
        );
        for end in FILE_HEADER + 1..good.len() {
            let mut reader = Reader::new(&good[..end]).unwrap();
            assert_eq!(
                reader.next(),
                Some(Err(PcapError::CutOff {
                    packet: 1,
                    at: FILE_HEADER
                })),
                "{end}"
            );
            assert_eq!(reader.next(), None);
        }
    }
}
