//! What a message of fan-out carries: who sent it where, its number, when it was meant to leave, and a pattern.
//!
//! Why in the payload: a subscriber then knows without asking anybody what is lost, twice or late. Invariant: a
//! message is right as a whole or not at all; every byte of it is compared.

/// What each message has in front: publisher, channel, number, intended time, all little endian.
pub const HEAD_LEN_BYTES: usize = 24;

/// The head of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Who sent it.
    pub publisher: u32,
    /// Where to.
    pub channel: u32,
    /// Its number among those of this publisher on this channel, from zero.
    pub number: u64,
    /// When it was meant to leave, on the monotonic clock.
    pub intended_ns: u64,
}

/// Messages of one length.
#[derive(Clone, Debug)]
pub struct Messages {
    pattern: Vec<u8>,
}

impl Messages {
    /// Of `len` bytes, at least [`HEAD_LEN_BYTES`].
    #[must_use]
    pub fn new(len: usize) -> Self {
        let rest = len.saturating_sub(HEAD_LEN_BYTES);
        Self { pattern: (0..rest).map(|at| b'a' + u8::try_from(at % 23).unwrap_or(0)).collect() }
    }

    /// Their length.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        HEAD_LEN_BYTES + self.pattern.len()
    }

    /// Appends one.
    pub fn write(&self, head: Head, to: &mut Vec<u8>) {
        to.extend_from_slice(&head.publisher.to_le_bytes());
        to.extend_from_slice(&head.channel.to_le_bytes());
        to.extend_from_slice(&head.number.to_le_bytes());
        to.extend_from_slice(&head.intended_ns.to_le_bytes());
        to.extend_from_slice(&self.pattern);
    }

    /// The head of one that is as it was written.
    #[must_use]
    pub fn read(&self, bytes: &[u8]) -> Option<Head> {
        let (publisher, rest) = bytes.split_first_chunk()?;
        let (channel, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (intended, rest) = rest.split_first_chunk()?;
        (rest == self.pattern).then(|| Head {
            publisher: u32::from_le_bytes(*publisher),
            channel: u32::from_le_bytes(*channel),
            number: u64::from_le_bytes(*number),
            intended_ns: u64::from_le_bytes(*intended),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let head = Head { publisher: 3, channel: 70_000, number: 1 << 40, intended_ns: u64::MAX };
        for len in [HEAD_LEN_BYTES, HEAD_LEN_BYTES + 1, 64, 5_000] {
            let messages = Messages::new(len);
            let mut bytes = Vec::new();
            messages.write(head, &mut bytes);
            assert_eq!((bytes.len(), messages.len_bytes()), (len, len));
            assert_eq!(messages.read(&bytes), Some(head));
            assert_eq!(messages.read(&bytes[..len - 1]), None);
            bytes.push(b'a');
            assert_eq!(messages.read(&bytes), None);
            bytes.pop();
            for at in HEAD_LEN_BYTES..len {
                bytes[at] ^= 1;
                assert_eq!(messages.read(&bytes), None, "byte {at}");
                bytes[at] ^= 1;
            }
        }
    }
}
