//! Error codes of the Kafka protocol that this broker answers with.
//!
//! Source: the protocol guide's table of error codes. Next: `api` for who answers what.

use std::fmt;

macro_rules! codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// An error as the peer sees it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $text] $name,)*
        }

        impl Code {
            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> i16 {
                match self { $(Self::$name => $code,)* }
            }

            /// What it means.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    UnknownServerError = -1, "the broker met an error it did not expect";
    OffsetOutOfRange = 1, "the offset is outside the range of the partition";
    CorruptMessage = 2, "the record batch is damaged: its checksum or its lengths do not fit";
    UnknownTopicOrPartition = 3, "there is no such topic or partition here";
    LeaderNotAvailable = 5, "the partition is being made";
    NotLeaderOrFollower = 6, "this broker does not lead the partition";
    MessageTooLarge = 10, "the record batch is larger than max.message.bytes";
    CoordinatorNotAvailable = 15, "the coordinator is not available";
    NotCoordinator = 16, "this broker does not coordinate the group";
    InvalidTopic = 17, "the topic's name is not valid";
    InvalidRequiredAcks = 21, "acks must be -1, 0 or 1";
    InvalidTimestamp = 32, "a record's timestamp is out of the allowed range";
    UnsupportedSaslMechanism = 33, "the SASL mechanism is not offered";
    IllegalSaslState = 34, "there is no log-in to do here now";
    UnsupportedVersion = 35, "the version of the request is not supported";
    TopicAlreadyExists = 36, "a topic of this name exists";
    InvalidPartitions = 37, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, "the replication factor must be 1: there is one machine";
    InvalidReplicaAssignment = 39, "the replica assignment is not valid";
    InvalidConfig = 40, "a configuration value is not valid";
    NotController = 41, "this broker is not the controller";
    InvalidRequest = 42, "the request is not valid";
    UnsupportedForMessageFormat = 43, "the message format is too old: record batches of magic 2 only";
    PolicyViolation = 44, "a limit of this broker forbids that";
    OutOfOrderSequence = 45, "the batch does not follow the producer's last one";
    InvalidProducerEpoch = 47, "the producer's epoch is older than one already seen";
    TransactionalIdAuthorizationFailed = 53, "transactions are not supported";
    StorageError = 56, "the partition's files cannot be read or written";
    LogDirNotFound = 57, "this broker has no such log directory";
    SaslAuthenticationFailed = 58, "the log-in failed";
    GroupIdNotFound = 69, "there is no such group";
    FetchSessionIdNotFound = 70, "there is no such fetch session";
    InvalidFetchSessionEpoch = 71, "the fetch session's epoch does not fit";
    UnknownLeaderEpoch = 75, "the leader epoch is newer than the broker's";
    UnsupportedCompressionType = 76, "the compression type is not known";
    ElectionNotNeeded = 84, "the partition's only replica leads it";
    NoReassignmentInProgress = 85, "no reassignment is in progress: partitions stay where they are";
    InvalidRecord = 87, "a record in the batch is not valid";
    UnknownTopicId = 100, "there is no topic of this id";
    FetchSessionTopicId = 106, "the fetch session names topics in another way";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
