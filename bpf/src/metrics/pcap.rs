//! Packets of a device, copied into a file that tcpdump and Wireshark read.
//!
//! The format is pcap with nanoseconds (draft-ietf-opsawg-pcap). Invariants: a packet is never held up, and one whose copy
//! finds no room is counted as lost; within one batch packets are in the order of their times; the file's size is bounded; a clsact
//! filter, where the kernel has no tcx, is in the journal as that of a fault is, and a watchdog removes it after a SIGKILL.
//! Next: `progs/pcap.bpf.c`.

use std::cell::RefCell;
use std::io::{self, Write};
use std::time::Duration;

use libbpf_rs::{MapHandle, Object, RingBuffer, RingBufferBuilder};
use zerocopy::FromBytes as _;

use super::abi::{Capture, Captured};
use crate::abi::Counts;
use crate::device::Device;
use crate::error::{During as _, Error, Result};
use crate::faults::packet;
use crate::link::Attached;
use crate::registry::Journal;
use crate::select::{Target, Way};
use crate::spec::Spec;
use crate::{link, programs, time};

/// Bytes that can be copied of a packet; one of many segments is larger.
pub const SNAPLEN_MAX: u32 = 16_384;

/// Says that times have nanoseconds.
const MAGIC: u32 = 0xA1B2_3C4D;
/// `LINKTYPE_ETHERNET` and `LINKTYPE_RAW`.
const LINKTYPES: [u32; 2] = [1, 101];
/// Bytes of the file's header, and of each packet's.
const FILE_HEADER: u64 = 24;
const PACKET_HEADER: u64 = 16;

/// What the journal calls it, where it needs one.
const NAME: &str = "netprobe.pcap";

/// The program on one direction of a device. What attaches it goes first.
struct One {
    _attached: Attached,
    packets: MapHandle,
    counts: MapHandle,
    _object: Object,
}

/// Packets being copied.
pub struct Pcap {
    ways: Vec<One>,
    journal: Option<Journal>,
    snaplen: u32,
    linktype: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Packets in the file.
    pub packets: u64,
    /// Its size.
    pub bytes: u64,
    /// Packets that matched and found no room.
    pub lost: u64,
}

impl Pcap {
    /// Begins to copy what a target means, on its device in this thread's network namespace, of that name if it is another than
    /// this process began in. This process's own executable has the command `watchdog`.
    ///
    /// # Errors
    /// There is no such device; the kernel has neither tcx nor clsact, or refuses.
    pub fn start(target: &Target, snaplen: u32, netns: Option<&str>) -> Result<Self> {
        let device = Device::open(target.dev.as_deref().unwrap_or_default())?;
        let mut pcap = Self {
            ways: Vec::new(),
            journal: None,
            snaplen: snaplen.clamp(1, SNAPLEN_MAX),
            linktype: LINKTYPES[usize::from(device.l2_len == 0)],
        };
        for way in target.dir.ways() {
            pcap.attach(target, &device, *way, netns)?;
        }
        Ok(pcap)
    }

    fn attach(
        &mut self,
        target: &Target,
        device: &Device,
        way: Way,
        netns: Option<&str>,
    ) -> Result<()> {
        let mut object = programs::open("pcap")?;
        link::prepare(&mut object, "copy_packet", way);
        let object = programs::load_opened("pcap", object)?;
        packet::fill_networks(&object, target)?;
        let (selector, l2_len) = (target.to_abi(&[]), device.l2_len);
        let told = Capture { selector, l2_len, snaplen: self.snaplen };
        programs::write(&programs::map(&object, "capture")?, 0, &told)?;
        let program = programs::program(&object, "copy_packet")?;
        let attached = match link::attach_tcx(&program, device) {
            Ok(link) => Attached::Tcx(link),
            Err(error) if link::is_no_tcx(&error) => {
                let mut journal = match self.journal.take() {
                    Some(journal) => journal,
                    None => {
                        let target = target.clone();
                        Journal::open(&Spec { target, ..Spec::new(NAME) }, netns, false, true)?
                    }
                };
                let attached = link::attach_filter(&program, device, way, &mut journal);
                self.journal = Some(journal);
                attached?
            }
            Err(error) => {
                return Err(Error::failed(format!(
                    "copy packets of {} ({way}): {error}",
                    device.name
                )));
            }
        };
        self.ways.push(One {
            _attached: attached,
            packets: programs::map(&object, "packets")?,
            counts: programs::map(&object, "counts")?,
            _object: object,
        });
        Ok(())
    }

    /// Ends it, and undoes what does not go with this process.
    ///
    /// # Errors
    /// Something cannot be undone.
    pub fn end(self) -> Result<()> {
        drop(self.ways);
        self.journal.map_or(Ok(()), Journal::close)
    }

    /// Writes a file's header and then packets, until `ends` or the file would have more bytes than `max_bytes`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(
        &self,
        to: &mut impl Write,
        max_bytes: u64,
        ends: impl Fn() -> bool,
    ) -> Result<Written> {
        let batch = RefCell::new(Vec::new());
        let ring = self.ring(&batch)?;
        let (wall, monotonic) = (time::unix_ms() * 1_000_000, time::monotonic_ns());
        let doing = || "write packets".to_owned();
        to.write_all(&file_header(self.snaplen, self.linktype)).during(doing)?;
        let mut written = Written { bytes: FILE_HEADER, ..Written::default() };
        let mut is_over = false;
        while !is_over {
            is_over = ends();
            // The program wakes this thread only when there is much.
            ring.poll(Duration::from_millis(50)).or_else(interrupted).during(doing)?;
            ring.consume().or_else(interrupted).during(doing)?;
            let mut packets = batch.borrow_mut();
            packets.sort_by_key(|(head, _): &(Captured, Vec<u8>)| head.at_ns);
            for (head, bytes) in packets.drain(..) {
                let size = PACKET_HEADER + u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                if written.bytes.saturating_add(size) > max_bytes {
                    is_over = true;
                    break;
                }
                let at_ns = wall.saturating_add(head.at_ns).saturating_sub(monotonic);
                write_packet(to, at_ns, head.len, &bytes).during(doing)?;
                written.packets += 1;
                written.bytes += size;
            }
        }
        to.flush().during(doing)?;
        written.lost = self.lost()?;
        Ok(written)
    }

    fn ring<'a>(&'a self, batch: &'a RefCell<Vec<(Captured, Vec<u8>)>>) -> Result<RingBuffer<'a>> {
        let mut builder = RingBufferBuilder::new();
        for one in &self.ways {
            let take = |record: &[u8]| {
                if let Ok((head, bytes)) = Captured::read_from_prefix(record) {
                    batch.borrow_mut().push((head, bytes.to_vec()));
                }
                0
            };
            builder.add(&one.packets, take).during(|| "read packets".to_owned())?;
        }
        builder.build().during(|| "read packets".to_owned())
    }

    fn lost(&self) -> Result<u64> {
        let mut lost = 0;
        for one in &self.ways {
            let by_cpu: Vec<Counts> = programs::read_per_cpu(&one.counts, 0)?;
            let counts = by_cpu.into_iter().fold(Counts::default(), Counts::and);
            lost += counts.matched.saturating_sub(counts.chosen);
        }
        Ok(lost)
    }
}

/// A signal ends a wait, and no more than that.
fn interrupted(error: libbpf_rs::Error) -> libbpf_rs::Result<()> {
    if error.kind() == libbpf_rs::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

fn file_header(snaplen: u32, linktype: u32) -> Vec<u8> {
    let version: [u16; 2] = [2, 4];
    let mut header = MAGIC.to_ne_bytes().to_vec();
    header.extend(version.iter().flat_map(|part| part.to_ne_bytes()));
    // The time zone and the accuracy are always 0.
    header.extend([0, 0, snaplen, linktype].iter().flat_map(|part: &u32| part.to_ne_bytes()));
    header
}

fn write_packet(to: &mut impl Write, at_ns: u64, len: u32, bytes: &[u8]) -> io::Result<()> {
    // Until 2106.
    let seconds = u32::try_from(at_ns / time::SECOND_NS).unwrap_or(u32::MAX);
    let rest = u32::try_from(at_ns % time::SECOND_NS).unwrap_or(0);
    let kept = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    for part in [seconds, rest, kept, len] {
        to.write_all(&part.to_ne_bytes())?;
    }
    to.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::{FILE_HEADER, PACKET_HEADER, file_header, write_packet};

    #[test]
    fn headers_have_the_sizes_of_the_format() {
        let header = file_header(100, 1);
        assert_eq!(header.len() as u64, FILE_HEADER);
        assert_eq!(header[..4], 0xA1B2_3C4D_u32.to_ne_bytes());
        assert_eq!(header[16..20], 100_u32.to_ne_bytes());
        let mut packet = Vec::new();
        write_packet(&mut packet, 3_000_000_007, 90, b"abc").expect("memory");
        assert_eq!(packet.len() as u64, PACKET_HEADER + 3);
        let parts: Vec<u32> = packet[..16]
            .chunks(4)
            .map(|part| u32::from_ne_bytes(part.try_into().expect("four bytes")))
            .collect();
        assert_eq!(parts, [3, 7, 3, 90]);
    }
}
