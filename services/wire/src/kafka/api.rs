//! Which requests a broker serves: one row each drives the answer to `ApiVersions`, header versions, and
//! dispatch.
//!
//! Ranges are those of Kafka 4.3, as far as this broker implements them. `Produce` is advertised from
//! version 0 although 0 to 2 are refused: librdkafka decides from it which compression codecs
//! to offer (KAFKA-18659).

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Its number.
    pub key: i16,
    /// Its name.
    pub name: &'static str,
    /// The oldest version advertised.
    pub min: i16,
    /// The newest version advertised.
    pub max: i16,
    /// The oldest version with compact types and tagged fields; none when `i16::MAX`.
    pub flexible_from: i16,
}

const NEVER: i16 = i16::MAX;

const fn api(key: i16, name: &'static str, min: i16, max: i16, flexible_from: i16) -> Api {
    Api { key, name, min, max, flexible_from }
}

/// The requests that are served, by number.
pub const APIS: &[Api] = &[
    api(0, "Produce", 0, 13, 9),
    api(1, "Fetch", 4, 18, 12),
    api(2, "ListOffsets", 1, 11, 6),
    api(3, "Metadata", 0, 13, 9),
    api(8, "OffsetCommit", 2, 10, 8),
    api(9, "OffsetFetch", 1, 10, 6),
    api(10, "FindCoordinator", 0, 6, 3),
    api(11, "JoinGroup", 0, 9, 6),
    api(12, "Heartbeat", 0, 4, 4),
    api(13, "LeaveGroup", 0, 5, 4),
    api(14, "SyncGroup", 0, 5, 4),
    api(15, "DescribeGroups", 0, 6, 5),
    api(16, "ListGroups", 0, 5, 3),
    api(17, "SaslHandshake", 0, 1, NEVER),
    api(18, "ApiVersions", 0, 4, 3),
    api(19, "CreateTopics", 2, 7, 5),
    api(20, "DeleteTopics", 1, 6, 4),
    api(21, "DeleteRecords", 0, 2, 2),
    api(22, "InitProducerId", 0, 5, 2),
    api(23, "OffsetForLeaderEpoch", 2, 4, 4),
    api(32, "DescribeConfigs", 1, 4, 4),
    api(33, "AlterConfigs", 0, 2, 2),
    api(34, "AlterReplicaLogDirs", 1, 2, 2),
    api(35, "DescribeLogDirs", 1, 5, 2),
    api(36, "SaslAuthenticate", 0, 2, 2),
    api(37, "CreatePartitions", 0, 3, 2),
    api(42, "DeleteGroups", 0, 2, 2),
    api(43, "ElectLeaders", 0, 2, 2),
    api(44, "IncrementalAlterConfigs", 0, 1, 1),
    api(45, "AlterPartitionReassignments", 0, 1, 0),
    api(46, "ListPartitionReassignments", 0, 0, 0),
    api(47, "OffsetDelete", 0, 0, NEVER),
    api(55, "DescribeQuorum", 0, 2, 0),
    api(60, "DescribeCluster", 0, 2, 0),
    api(61, "DescribeProducers", 0, 0, 0),
    api(74, "ListConfigResources", 0, 1, 0),
    api(75, "DescribeTopicPartitions", 0, 0, 0),
];

/// `Produce`.
pub const PRODUCE: i16 = 0;
/// `Fetch`.
pub const FETCH: i16 = 1;
/// `SaslHandshake`.
pub const SASL_HANDSHAKE: i16 = 17;
/// `ApiVersions`.
pub const API_VERSIONS: i16 = 18;
/// `SaslAuthenticate`.
pub const SASL_AUTHENTICATE: i16 = 36;

impl Api {
    /// The row of a request.
    #[must_use]
    pub fn find(key: i16) -> Option<&'static Self> {
        APIS.binary_search_by(|api| api.key.cmp(&key)).ok().and_then(|at| APIS.get(at))
    }

    /// Whether it is for clients to say who they are, and advertised only where they must.
    #[must_use]
    pub const fn is_login(&self) -> bool {
        matches!(self.key, SASL_HANDSHAKE | SASL_AUTHENTICATE)
    }

    /// Whether a version is advertised.
    #[must_use]
    pub const fn has(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// The version whose form a version has, as far as bytes of the request go: `ListOffsets` 11 only knows one time
    /// more, and `DescribeLogDirs` 5 says one thing more in its answer.
    #[must_use]
    pub const fn decoded_as(&self, version: i16) -> i16 {
        match (self.key, version) {
            (2, 11) => 10,
            (35, 5) => 4,
            _ => version,
        }
    }

    /// Whether the body of a response begins with how long the client is left alone, as most do.
    #[must_use]
    pub const fn begins_with_throttle(&self, version: i16) -> bool {
        match self.key {
            0 | 17 | 18 | 36 | 47 | 55 => false,
            3 | 8 | 9 => version >= 3,
            2 | 19 | 23 => version >= 2,
            10 | 11 | 12 | 13 | 14 | 15 | 16 | 20 => version >= if self.key == 11 { 2 } else { 1 },
            _ => true,
        }
    }

    /// Whether a version has compact types and tagged fields.
    #[must_use]
    pub const fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    /// Whether the header of a response has tagged fields. That of `ApiVersions` never has: the client may
    /// not know yet what the broker speaks (KIP-511).
    #[must_use]
    pub const fn has_flexible_response_header(&self, version: i16) -> bool {
        self.is_flexible(version) && self.key != API_VERSIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_so_that_they_are_found() {
        assert!(APIS.is_sorted_by(|a, b| a.key < b.key));
        for api in APIS {
            assert_eq!(Api::find(api.key), Some(api));
            assert!(api.min <= api.max, "{}", api.name);
        }
        assert_eq!(Api::find(4), None);
        assert_eq!(Api::find(-1), None);
    }

    #[test]
    fn the_answer_about_versions_never_has_tagged_fields_in_its_header() {
        let api = Api::find(API_VERSIONS).expect("a row");
        assert!(api.is_flexible(3) && !api.has_flexible_response_header(3));
        assert!(Api::find(FETCH).expect("a row").has_flexible_response_header(12));
    }
}
