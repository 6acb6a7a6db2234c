//! The client's half of the hot messages: requests written, responses read where they lie.
//!
//! Who needs it: the load generator, which must not be slower than the broker, and the simulation's clients. A
//! frame is `frame::begin_request`, a request of [`produce`] or [`fetch`], `frame::end`; its
//! response begins with `frame::read_response_header`. Invariants: as for the broker's half, reading allocates
//! nothing and no input panics. Next: [`produce`].

pub mod fetch;
pub mod produce;

use super::list::List;
use super::{Malformed, Reader, TopicRef, Writer};

/// A topic in a request, with what is asked of its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic<'a, P> {
    /// Which topic. By id where the version names topics so, by name elsewhere.
    pub topic: TopicRef<'a>,
    /// Its partitions.
    pub partitions: &'a [P],
}

/// Topics of a response, each with its partitions.
pub type Topics<'a, P> = List<'a, (TopicRef<'a>, List<'a, P>)>;

/// Which forms a version of a message has.
#[derive(Clone, Copy)]
struct Form {
    flexible: bool,
    by_id: bool,
}

fn write_topics<P>(
    out: &mut Vec<u8>,
    flexible: bool,
    topics: &[Topic<'_, P>],
    mut partition: impl FnMut(&mut Vec<u8>, &P),
) {
    out.array_len(topics.len(), flexible);
    for topic in topics {
        match topic.topic {
            TopicRef::Name(name) => out.string(name, flexible),
            TopicRef::Id(id) => out.uuid(&id),
        }
        out.array_len(topic.partitions.len(), flexible);
        for one in topic.partitions {
            partition(out, one);
        }
        out.no_tagged_fields(flexible);
    }
}

/// The topic at the front, which is read to its end.
fn read_topic<'a, P>(
    reader: &mut Reader<'a>,
    version: i16,
    form: Form,
    partition: fn(&mut Reader<'a>, i16) -> Result<P, Malformed>,
) -> Result<(TopicRef<'a>, List<'a, P>), Malformed> {
    let topic = if form.by_id {
        TopicRef::Id(reader.uuid()?)
    } else {
        TopicRef::Name(reader.string(form.flexible)?)
    };
    let partitions = List::read(reader, version, form.flexible, partition)?;
    reader.skip_tagged_fields(form.flexible)?;
    Ok((topic, partitions))
}
