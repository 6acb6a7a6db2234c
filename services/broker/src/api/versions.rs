//! `ApiVersions`: what this broker speaks. Answered inline, since every connection begins with it.
//!
//! A client that asks in a version we do not know gets error 35 in the oldest form, with the list all the same
//! (KIP-511). Features tell clients which protocols to use; none is finalised here, so that they use the
//! classic ones. Next: `wire::kafka::api` for the list.

use wire::kafka::Writer;
use wire::kafka::api::{APIS, Api};
use wire::kafka::frame::{self, RequestHeader};

use crate::code::Code;

/// Appends the whole answer; with the requests to log in, where clients do.
pub(crate) fn answer(out: &mut Vec<u8>, header: &RequestHeader<'_>, api: &Api, logins: bool) {
    let known = api.has(header.version);
    let version = if known { header.version } else { 0 };
    let flexible = api.is_flexible(version);
    let start = frame::begin_response(out, api, version, header.correlation_id);
    out.i16(if known { 0 } else { Code::UnsupportedVersion.number() });
    let listed = || APIS.iter().filter(|api| logins || !api.is_login());
    out.array_len(listed().count(), flexible);
    for api in listed() {
        out.i16(api.key);
        out.i16(api.min);
        out.i16(api.max);
        out.no_tagged_fields(flexible);
    }
    if version >= 1 {
        out.i32(0);
    }
    out.no_tagged_fields(flexible);
    frame::end(out, start, 0);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::ApiVersionsResponse;
    use kafka_protocol::protocol::Decodable;
    use wire::kafka::api::API_VERSIONS;

    use super::*;

    #[test]
    fn every_version_is_answered_in_its_own_form_and_unknown_ones_in_the_oldest() {
        let api = Api::find(API_VERSIONS).expect("a row");
        for (asked, form, error) in
            [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 4, 0), (5, 0, 35), (99, 0, 35)]
        {
            let mut out = Vec::new();
            let header =
                RequestHeader { key: 18, version: asked, correlation_id: 9, client_id: None };
            let mut without = Vec::new();
            answer(&mut out, &header, api, true);
            answer(&mut without, &header, api, false);
            let mut body = Bytes::from(without.split_off(8));
            let response = ApiVersionsResponse::decode(&mut body, form).expect("valid");
            assert_eq!(response.api_keys.len(), APIS.len() - 2, "no log-in where nobody logs in");
            assert!(!response.api_keys.iter().any(|api| matches!(api.api_key, 17 | 36)));
            assert_eq!(frame::frame_len(&out, 10_000), Ok(Some(out.len())));
            assert_eq!(out[4..8], 9_i32.to_be_bytes());
            let mut body = Bytes::from(out.split_off(8));
            let response = ApiVersionsResponse::decode(&mut body, form).expect("valid");
            assert!(body.is_empty());
            assert_eq!(response.error_code, error);
            assert_eq!(response.api_keys.len(), APIS.len());
            // librdkafka decides from it which codecs to offer.
            assert_eq!((response.api_keys[0].api_key, response.api_keys[0].min_version), (0, 0));
        }
    }
}
