//! Packets from a capture file through a translator to another one: no device, no clock, no rate limit.

use crate::buffer::{Frame, HEADROOM, Kind, PacketBuf};
use crate::config::IcmpErrors;
use crate::counters::{CountersSnapshot, DropReason};
use crate::flow::Flow;
use crate::gso::Offload;
use crate::pcap::{self, PcapError, Reader, Record};
use crate::translator::{Translator, Verdict};
use alloc::{format, string::String, vec::Vec};

/// What happened to the packets of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets read.
    pub packets: u64,
    /// Packets translated.
    pub translated: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// ICMP errors made for dropped packets.
    pub answered: u64,
    /// Packets written: translated ones or their fragments, and ICMP errors.
    pub written: u64,
    /// The counters in full.
    pub counters: CountersSnapshot,
}

/// Runs the pcap file `input` through the translator and appends the resulting pcap file to `output`.
///
/// The IP version of a packet tells its direction. Results follow in the order of their causes, with their time
/// stamps; an ICMP error of the translator stands where the packet was dropped. `on_drop` gets one line of text (no
/// line feed) for each dropped packet. The same input always gives the same output. Generated errors are not rate
/// limited; [`IcmpErrors::Off`] is respected. On an error `output` holds what came before it.
pub fn run(
    translator: &Translator,
    input: &[u8],
    output: &mut Vec<u8>,
    on_drop: &mut dyn FnMut(String),
) -> Result<Summary, PcapError> {
    let reader = Reader::new(input)?;
    pcap::write_header(output, reader.is_nanoseconds());
    let mut worker = translator.worker_with(
        0,
        match translator.config().icmp_errors {
            IcmpErrors::Off => IcmpErrors::Off,
            _ => IcmpErrors::Unlimited,
        },
    );
    let mut summary = Summary::default();
    let mut buffer = Vec::new();
    for record in reader {
        let record = record?;
        summary.packets += 1;
        buffer.clear();
        buffer.resize(HEADROOM, 0);
        buffer.extend_from_slice(record.data);
        let Some(mut packet) = PacketBuf::new(&mut buffer, HEADROOM, record.data.len()) else {
            continue;
        };
        let mut write = |_: Kind, _: &Offload, frame: Frame<'_>| {
            summary.written += 1;
            pcap::write_record(
                output,
                &Record {
                    data: frame.bytes(),
                    ..record
                },
            );
        };
        match translator.translate(&mut worker, 0, Offload::NONE, &mut packet, &mut write) {
            Verdict::Translated => summary.translated += 1,
            Verdict::Dropped { reason, answered } => {
                summary.dropped += 1;
                summary.answered += u64::from(answered);
                on_drop(drop_line(summary.packets, record.data, reason, answered));
            }
        }
    }
    summary.counters = worker.counters().snapshot();
    Ok(summary)
}

/// `packet 3: dropped udp-zero-checksum (UDP without checksum): 192.0.0.1 -> 198.51.100.1 protocol 17 ports 5 -> 7`
fn drop_line(number: u64, packet: &[u8], reason: DropReason, answered: bool) -> String {
    let mut line = format!("packet {number}: dropped {} ({})", reason.name(), reason.text());
    if let Some(flow) = Flow::read(packet) {
        line += &format!(": {flow}");
    }
    if answered {
        line += "; answered";
    }
    line
}
