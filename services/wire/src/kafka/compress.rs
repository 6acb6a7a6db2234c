//! The bodies of compressed batches, made plain and compressed again, a piece at a time.
//!
//! A broker opens a batch only where it has to see keys: when it is stored in a compacted topic, and when that is
//! compacted. Invariants: what comes out is bounded whatever goes in, and so is what a decoder keeps; one step does no
//! more than it was asked for, but for a block of the codec, 4 MiB at most. Snappy is read in xerial's frame, as Java
//! clients write it, and without one, as others do, and written in the frame; LZ4 is written in independent
//! blocks, the only ones that Java clients read. Source: the documentation's "Compression", the codecs' own
//! formats. Next: `records` for what the bodies say.

use std::io::{self, Read, Write};

use super::batch::Codec;

/// The largest window of a zstd frame that is read, as a power of two: 16 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;
/// What the magic number of xerial's frame and its two versions take.
const XERIAL_HEAD_BYTES: usize = 16;
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Plain bytes of a block in xerial's frame (its default).
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// Why a body cannot be made plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It would be longer than this.
    TooLong(usize),
    /// It does not follow its codec's format.
    Damaged(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(most) => {
                write!(f, "the records take more than {most} bytes decompressed")
            }
            Self::Damaged(why) => write!(f, "the records cannot be decompressed: {why}"),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// A body that is being made plain.
pub struct Decompress<'a> {
    from: Box<dyn Read + 'a>,
    plain: Vec<u8>,
    max_bytes: usize,
}

impl<'a> Decompress<'a> {
    /// Begins; more than `max_bytes` are a [`Problem`].
    ///
    /// # Errors
    /// The decoder refuses the start.
    pub fn new(codec: Codec, body: &'a [u8], max_bytes: usize) -> Result<Self, Problem> {
        let from: Box<dyn Read + 'a> = match codec {
            Codec::None => Box::new(body),
            Codec::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
            Codec::Snappy => Box::new(Snappy::new(body, max_bytes)),
            Codec::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(body)),
            Codec::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        };
        Ok(Self { from, plain: Vec::new(), max_bytes })
    }

    /// Goes on for about `budget_bytes` of plain bytes. Whether that was the end.
    ///
    /// # Errors
    /// The body is damaged, or too long.
    pub fn step(&mut self, budget_bytes: usize) -> Result<bool, Problem> {
        let budget = u64::try_from(budget_bytes.max(1)).unwrap_or(u64::MAX);
        let read = (&mut self.from).take(budget).read_to_end(&mut self.plain);
        let read = read.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => Problem::TooLong(self.max_bytes),
            _ => error.into(),
        })?;
        if self.plain.len() > self.max_bytes {
            return Err(Problem::TooLong(self.max_bytes));
        }
        Ok(u64::try_from(read).unwrap_or(u64::MAX) < budget)
    }

    /// What was made plain so far.
    #[must_use]
    pub fn into_plain(self) -> Vec<u8> {
        self.plain
    }
}

impl std::fmt::Debug for Decompress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompress").field("plain_bytes", &self.plain.len()).finish_non_exhaustive()
    }
}

/// The whole of a body at once.
///
/// # Errors
/// As [`Decompress::step`].
pub fn decompress(codec: Codec, body: &[u8], max_bytes: usize) -> Result<Vec<u8>, Problem> {
    let mut job = Decompress::new(codec, body, max_bytes)?;
    // By pieces, so that what is too long is given up early.
    while !job.step(XERIAL_BLOCK_BYTES)? {}
    Ok(job.into_plain())
}

/// Snappy blocks, in xerial's frame or one without.
struct Snappy<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    at: usize,
    max_bytes: usize,
}

impl<'a> Snappy<'a> {
    fn new(body: &'a [u8], max_bytes: usize) -> Self {
        let framed = body.starts_with(XERIAL_MAGIC);
        let rest = if framed { body.get(XERIAL_HEAD_BYTES..).unwrap_or_default() } else { body };
        Self { rest, framed, block: Vec::new(), at: 0, max_bytes }
    }

    /// Reads the next block; there is one.
    fn next(&mut self) -> io::Result<()> {
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "a block is cut");
        let block = if self.framed {
            let (len, rest) = self.rest.split_first_chunk::<4>().ok_or_else(cut)?;
            let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| cut())?;
            let (block, rest) = rest.split_at_checked(len).ok_or_else(cut)?;
            self.rest = rest;
            block
        } else {
            std::mem::take(&mut self.rest)
        };
        let len = snap::raw::decompress_len(block)?;
        if len > self.max_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.block = snap::raw::Decoder::new().decompress_vec(block)?;
        self.at = 0;
        Ok(())
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.next()?;
        }
        let mut left = self.block.get(self.at..).unwrap_or_default();
        let read = left.read(into)?;
        self.at += read;
        Ok(read)
    }
}

/// A body that is being compressed.
pub struct Compress(Encoder);

enum Encoder {
    Plain(Vec<u8>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Snappy { done: Vec<u8>, block: Vec<u8> },
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Compress {
    /// Begins.
    ///
    /// # Errors
    /// There is no memory for the encoder.
    pub fn new(codec: Codec) -> io::Result<Self> {
        Ok(Self(match codec {
            Codec::None => Encoder::Plain(Vec::new()),
            Codec::Gzip => Encoder::Gzip(flate2::write::GzEncoder::new(
                Vec::new(),
                flate2::Compression::default(),
            )),
            Codec::Snappy => {
                let mut done = XERIAL_MAGIC.to_vec();
                done.extend_from_slice(&1_i32.to_be_bytes());
                done.extend_from_slice(&1_i32.to_be_bytes());
                Encoder::Snappy { done, block: Vec::with_capacity(XERIAL_BLOCK_BYTES) }
            }
            Codec::Lz4 => {
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_mode(lz4_flex::frame::BlockMode::Independent)
                    .block_size(lz4_flex::frame::BlockSize::Max64KB);
                let encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                Encoder::Lz4(Box::new(encoder))
            }
            Codec::Zstd => Encoder::Zstd(zstd::stream::write::Encoder::new(
                Vec::new(),
                zstd::DEFAULT_COMPRESSION_LEVEL,
            )?),
        }))
    }

    /// Takes in a piece.
    ///
    /// # Errors
    /// The encoder refuses it.
    pub fn write(&mut self, mut piece: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Encoder::Plain(done) => done.write_all(piece),
            Encoder::Gzip(encoder) => encoder.write_all(piece),
            Encoder::Lz4(encoder) => encoder.write_all(piece),
            Encoder::Zstd(encoder) => encoder.write_all(piece),
            Encoder::Snappy { done, block } => {
                while !piece.is_empty() {
                    let room = XERIAL_BLOCK_BYTES.saturating_sub(block.len());
                    let (now, later) = piece.split_at(room.min(piece.len()));
                    block.extend_from_slice(now);
                    piece = later;
                    if block.len() >= XERIAL_BLOCK_BYTES {
                        end_block(done, block)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Ends; the compressed body.
    ///
    /// # Errors
    /// The encoder cannot end.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self.0 {
            Encoder::Plain(done) => Ok(done),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Snappy { mut done, mut block } => {
                if !block.is_empty() {
                    end_block(&mut done, &mut block)?;
                }
                Ok(done)
            }
        }
    }
}

impl std::fmt::Debug for Compress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compress").finish_non_exhaustive()
    }
}

fn end_block(done: &mut Vec<u8>, block: &mut Vec<u8>) -> io::Result<()> {
    let compressed = snap::raw::Encoder::new().compress_vec(block)?;
    let len = i32::try_from(compressed.len()).map_err(io::Error::other)?;
    done.extend_from_slice(&len.to_be_bytes());
    done.extend_from_slice(&compressed);
    block.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(len: usize) -> Vec<u8> {
        (0..len)
            .map(|at| if at % 7 < 3 { b'a' } else { u8::try_from(at / 11 % 251).unwrap_or(0) })
            .collect()
    }

    fn compress(codec: Codec, plain: &[u8], piece: usize) -> Vec<u8> {
        let mut job = Compress::new(codec).expect("memory");
        for piece in plain.chunks(piece) {
            job.write(piece).expect("taken");
        }
        job.finish().expect("an end")
    }

    #[test]
    fn what_was_compressed_comes_back_by_pieces_of_any_size() {
        for codec in Codec::ALL {
            for len in [0, 1, XERIAL_BLOCK_BYTES, XERIAL_BLOCK_BYTES + 1, 300_000] {
                let plain = body(len);
                let packed = compress(codec, &plain, 7001);
                assert_eq!(decompress(codec, &packed, len), Ok(plain.clone()), "{codec:?} {len}");
                let mut job = Decompress::new(codec, &packed, len).expect("a start");
                while !job.step(997).expect("whole") {}
                assert_eq!(job.into_plain(), plain);
            }
        }
    }

    #[test]
    fn no_more_comes_out_than_is_allowed() {
        let zeros = vec![0; 4 << 20];
        for codec in Codec::ALL {
            let packed = compress(codec, &zeros, 1 << 20);
            assert!(decompress(codec, &packed, zeros.len()).is_ok(), "{codec:?} at the bound");
            assert!(decompress(codec, &packed, zeros.len() - 1).is_err(), "{codec:?} beyond");
            let mut job = Decompress::new(codec, &packed, 100_000).expect("a start");
            let problem = loop {
                match job.step(10_000) {
                    Ok(done) => assert!(!done, "{codec:?} ends too early"),
                    Err(problem) => break problem,
                }
            };
            assert_eq!(problem, Problem::TooLong(100_000), "{codec:?}");
            assert!(job.plain.len() <= 110_000, "{codec:?} kept {}", job.plain.len());
        }
        let raw = snap::raw::Encoder::new().compress_vec(&zeros).expect("short");
        assert!(decompress(Codec::Snappy, &raw, 1000).is_err());
        assert_eq!(decompress(Codec::Snappy, &raw, zeros.len()), Ok(zeros), "without a frame");
    }

    #[test]
    fn damage_and_cuts_are_told_and_never_panic() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let plain = body(5000);
            let packed = compress(codec, &plain, 5000);
            for at in 0..packed.len() {
                let cut = packed.get(..at).expect("within");
                // At the end of a block it need not show: compare the number of records with the batch's.
                if let Ok(found) = decompress(codec, cut, 5000) {
                    assert!(plain.starts_with(&found), "{codec:?} cut at {at}");
                }
                let mut bent = packed.clone();
                if let Some(byte) = bent.get_mut(at) {
                    *byte ^= 0x55;
                }
                // Some codecs have no checksum: anything but a panic, or more than allowed.
                if let Ok(found) = decompress(codec, &bent, 5000) {
                    assert!(found.len() <= 5000);
                }
            }
        }
    }
}
