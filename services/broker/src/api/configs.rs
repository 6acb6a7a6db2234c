//! Configuration of topics, read and changed; that of brokers, read.

use std::rc::Rc;

use engine::net::Server;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalResponse;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, ListConfigResourcesRequest,
    ListConfigResourcesResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::text;
use crate::code::Code;
use crate::control::{self, Change};
use crate::serve::Broker;
use crate::shard::Shard;
use crate::topic_config::{self, Kind, ROWS, Row};

/// Kinds of resources, by number.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Known to clients, and never there.
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// Where a value comes from, by number.
const FROM_TOPIC: i8 = 1;
const FROM_START: i8 = 4;
const FROM_DEFAULT: i8 = 5;

/// What brokers say of themselves: clients look for these.
fn broker_values(shard: &Shard, name: &str) -> [(&'static str, String); 10] {
    let config = &shard.config;
    let named =
        (0..config.plain.ports.len()).find(|one| config.broker_id(*one).to_string() == name);
    let port = config.plain.ports.get(named.unwrap_or(shard.cx.index())).copied().unwrap_or(0);
    [
        ("advertised.listeners", format!("PLAINTEXT://{}:{port}", config.plain.host)),
        ("auto.create.topics.enable", config.auto_create.to_string()),
        ("default.replication.factor", "1".into()),
        ("delete.topic.enable", "true".into()),
        ("log.cleanup.policy", "delete".into()),
        ("log.retention.ms", "604800000".into()),
        ("log.segment.bytes", "1073741824".into()),
        ("message.max.bytes", "1048588".into()),
        ("num.partitions", config.partitions.to_string()),
        ("socket.request.max.bytes", config.request_max_bytes.to_string()),
    ]
}

/// What is configured.
pub(super) fn describe(
    server: &Server<Broker>,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let shard = server.shard().borrow();
    let results = request.resources.into_iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let found = match resource.resource_type {
            TOPIC => describe_topic(
                &shard,
                &resource,
                &request_flags(&request.include_synonyms, &request.include_documentation),
            ),
            BROKER => Ok(describe_broker(&shard, &resource)),
            _ => Err((
                Code::InvalidRequest,
                "only topics and brokers have a configuration".to_owned(),
            )),
        };
        match found {
            Ok(configs) => result.with_configs(configs),
            Err((code, why)) => {
                result.with_error_code(code.number()).with_error_message(Some(text(why)))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

struct Flags {
    synonyms: bool,
    documentation: bool,
}

const fn request_flags(synonyms: &bool, documentation: &bool) -> Flags {
    Flags { synonyms: *synonyms, documentation: *documentation }
}

fn is_wanted(resource: &DescribeConfigsResource, name: &str) -> bool {
    // No list, and by habit of some clients an empty one, means all.
    let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
}

fn describe_topic(
    shard: &Shard,
    resource: &DescribeConfigsResource,
    flags: &Flags,
) -> Result<Vec<DescribeConfigsResourceResult>, (Code, String)> {
    let name = resource.resource_name.as_str();
    let Some(topic) = shard.catalog.topics.get(name) else {
        return Err((Code::UnknownTopicOrPartition, format!("there is no topic {name}")));
    };
    let rows = ROWS.iter().filter(|row| is_wanted(resource, row.name));
    Ok(rows.map(|row| described(row, topic.config.get(row.name), flags)).collect())
}

fn described(row: &Row, set: Option<&String>, flags: &Flags) -> DescribeConfigsResourceResult {
    let synonym = |value: &str, source| {
        DescribeConfigsSynonym::default()
            .with_name(text(row.name))
            .with_value(Some(text(value)))
            .with_source(source)
    };
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(text(row.name))
        .with_value(Some(text(set.map_or(row.default, String::as_str))))
        .with_config_source(if set.is_some() { FROM_TOPIC } else { FROM_DEFAULT })
        .with_config_type(row.wire_type);
    if flags.synonyms {
        result.synonyms.extend(set.map(|value| synonym(value, FROM_TOPIC)));
        result.synonyms.push(synonym(row.default, FROM_DEFAULT));
    }
    if flags.documentation {
        result.documentation = Some(text(row.doc));
    }
    result
}

fn describe_broker(
    shard: &Shard,
    resource: &DescribeConfigsResource,
) -> Vec<DescribeConfigsResourceResult> {
    let values = broker_values(shard, &resource.resource_name)
        .into_iter()
        .filter(|(name, _)| is_wanted(resource, name));
    values
        .map(|(name, value)| {
            DescribeConfigsResourceResult::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
                .with_read_only(true)
                .with_config_source(FROM_START)
                .with_config_type(2)
        })
        .collect()
}

/// What has a configuration (KIP-1142). Version 0 asks for client metrics alone.
pub(super) fn resources(
    server: &Server<Broker>,
    request: &ListConfigResourcesRequest,
    version: i16,
) -> ListConfigResourcesResponse {
    let shard = server.shard().borrow();
    let kinds = &request.resource_types;
    let known = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    if kinds.iter().any(|kind| !known.contains(kind)) {
        return ListConfigResourcesResponse::default()
            .with_error_code(Code::UnsupportedVersion.number());
    }
    let wanted = |kind: i8| version > 0 && (kinds.is_empty() || kinds.contains(&kind));
    let resource = |kind: i8, name: String| {
        ConfigResource::default().with_resource_type(kind).with_resource_name(text(name))
    };
    let mut found = Vec::new();
    if wanted(TOPIC) {
        found.extend(shard.catalog.topics.keys().map(|name| resource(TOPIC, name.clone())));
    }
    if wanted(BROKER) {
        let brokers = (0..shard.config.plain.ports.len()).map(|one| shard.config.broker_id(one));
        found.extend(brokers.map(|id| resource(BROKER, id.to_string())));
    }
    ListConfigResourcesResponse::default().with_config_resources(found)
}

async fn configure(
    server: &Rc<Server<Broker>>,
    (kind, name): (i8, &StrBytes),
    values: Vec<(String, Option<String>)>,
    replace: bool,
    check_only: bool,
) -> Result<(), (Code, String)> {
    if kind != TOPIC {
        let why = "only topics can be configured while the broker runs";
        return Err((Code::InvalidRequest, why.to_owned()));
    }
    if let Some((option, _)) =
        values.iter().find(|(option, _)| topic_config::find(option).is_none())
    {
        return Err((Code::InvalidConfig, format!("unknown topic config name: {option}")));
    }
    let change = Change::Configure { name: name.to_string(), values, replace, check_only };
    control::request(server, change).await.map(drop)
}

fn told(outcome: Result<(), (Code, String)>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(()) => (0, None),
        Err((code, why)) => (code.number(), Some(text(why))),
    }
}

/// Replaces what is set.
pub(super) async fn alter(
    server: &Rc<Server<Broker>>,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let values = resource.configs.into_iter();
        let values =
            values.map(|set| (set.name.to_string(), set.value.map(|value| value.to_string())));
        let named = (resource.resource_type, &resource.resource_name);
        let outcome = configure(server, named, values.collect(), true, request.validate_only).await;
        let (error_code, error_message) = told(outcome);
        responses.push(
            AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_code(error_code)
                .with_error_message(error_message),
        );
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// Sets, unsets, and adds to or takes from lists (KIP-339).
pub(super) async fn alter_incrementally(
    server: &Rc<Server<Broker>>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let named = (resource.resource_type, &resource.resource_name);
        let values: Result<Vec<_>, _> = resource
            .configs
            .iter()
            .map(|set| {
                let value = set.value.as_ref().map(StrBytes::as_str);
                let value = {
                    let shard = server.shard().borrow();
                    changed(
                        &shard,
                        &resource.resource_name,
                        &set.name,
                        set.config_operation,
                        value,
                    )?
                };
                Ok((set.name.to_string(), value))
            })
            .collect();
        let outcome = match values {
            Ok(values) => configure(server, named, values, false, request.validate_only).await,
            Err(refused) => Err(refused),
        };
        let (error_code, error_message) = told(outcome);
        responses.push(
            IncrementalResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_code(error_code)
                .with_error_message(error_message),
        );
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

/// The value after an operation: 0 set, 1 delete, 2 append, 3 subtract.
fn changed(
    shard: &Shard,
    topic: &str,
    name: &str,
    operation: i8,
    value: Option<&str>,
) -> Result<Option<String>, (Code, String)> {
    let given = || value.ok_or_else(|| (Code::InvalidConfig, format!("{name}: no value")));
    if operation == 1 {
        return Ok(None);
    }
    if operation == 0 {
        return given().map(|value| Some(value.to_owned()));
    }
    let row = topic_config::find(name)
        .filter(|row| matches!(row.kind, Kind::Choices(_)))
        .ok_or_else(|| (Code::InvalidConfig, format!("{name} is no list")))?;
    let set = shard.catalog.topics.get(topic).and_then(|topic| topic.config.get(name));
    let mut list: Vec<&str> = set.map_or(row.default, String::as_str).split(',').collect();
    let parts = given()?;
    match operation {
        2 => {
            for part in parts.split(',') {
                if !list.contains(&part) {
                    list.push(part);
                }
            }
        }
        3 => list.retain(|one| !parts.split(',').any(|part| part == *one)),
        _ => return Err((Code::InvalidRequest, format!("operation {operation} is not known"))),
    }
    Ok(Some(list.join(",")))
}
