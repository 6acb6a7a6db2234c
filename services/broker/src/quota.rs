//! How much clients may use: which limit is whose, and what each has used on this shard.
//!
//! A client above its limit is answered at once, told for how long it waits, and its connection is not read for
//! that long (KIP-219). The most specific rule counts: of a client of a user, of the user, of the client, and the one
//! for everybody. What a rule names shares its limit; under the one for everybody each user has its own, or each
//! client id where nobody logs in. Clients choose their ids, so this is for fairness, not a defence. Limits are those of a
//! shard, which is a broker to clients. Next: `logic::log::quota` for the rates.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use engine::config::parse_size;
use engine::error::{Error, Kind as ErrorKind};
use logic::log::Quotas;
use logic::log::quota::{Limit, SAMPLE_MS};
use view::HashMap;

/// Names that have rules of their own.
const RULES_MAX: usize = 10_000;
/// Clients whose use is known, of each kind.
const ENTITIES_MAX: usize = 10_000;
/// Clients looked at for having been silent, each time partitions are looked after.
const EXPIRE_LOOKS: usize = 64;
/// Longest wait that a client is told.
const WAIT_MAX_MS: u64 = i32::MAX as u64;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Bytes of produce requests.
    Produce,
    /// Bytes of records fetched.
    Fetch,
    /// Requests of any kind.
    Requests,
}

const USES: [(Use, &str); 3] =
    [(Use::Produce, "produce"), (Use::Fetch, "fetch"), (Use::Requests, "requests")];

/// Limits of a second, by [`Use`].
pub type Limits = [Option<u64>; 3];

/// Whose limits.
#[derive(Clone, Debug, Default)]
struct Rule {
    limits: Limits,
    clients: HashMap<String, Limits>,
}

/// All limits.
#[derive(Clone, Debug, Default)]
pub struct QuotaRules {
    everybody: Limits,
    users: HashMap<String, Rule>,
    clients: HashMap<String, Limits>,
}

impl QuotaRules {
    /// Limits for everybody, and those of the file at `path`; none if nothing is limited.
    ///
    /// # Errors
    /// The file cannot be read, or is no such file.
    pub fn load(everybody: Limits, path: Option<&Path>) -> Result<Option<Self>, Error> {
        let mut rules = Self { everybody, ..Self::default() };
        if let Some(path) = path {
            rules.parse(&crate::users::read(path)?).map_err(|problem| {
                let problem = format!("{}: {problem}", path.display());
                Error::new("read", ErrorKind::Invalid, problem)
                    .remedied("correct the file of --broker-quotas")
            })?;
        }
        let none = rules.users.is_empty() && rules.clients.is_empty();
        Ok((!none || everybody != Limits::default()).then_some(rules))
    }

    fn parse(&mut self, text: &str) -> Result<(), String> {
        let root: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| error.to_string().trim_end().replace('\n', ", "))?;
        let mut count = 0;
        for (section, value) in &root {
            let table = value.as_table().ok_or_else(|| format!("'{section}' is no table"))?;
            for (name, value) in table {
                let at = format!("{section}.{name}");
                match section.as_str() {
                    "users" => {
                        let mut rule =
                            Rule { limits: limits(&at, value, true)?, ..Rule::default() };
                        let clients = value.get("clients").and_then(toml::Value::as_table);
                        for (client, value) in clients.into_iter().flatten() {
                            let at = format!("{at}.clients.{client}");
                            rule.clients.insert(client.clone(), limits(&at, value, false)?);
                        }
                        count += rule.clients.len();
                        self.users.insert(name.clone(), rule);
                    }
                    "clients" => {
                        self.clients.insert(name.clone(), limits(&at, value, false)?);
                    }
                    _ => return Err(format!("'{section}' is neither users nor clients")),
                }
                count += 1;
            }
        }
        if count > RULES_MAX {
            return Err(format!("{count} names, of {RULES_MAX} at most"));
        }
        Ok(())
    }

    /// The limit of a client, and the name under which its use counts.
    fn find(&self, which: Use, user: Option<&str>, client: &str) -> Option<(Rc<str>, Limit)> {
        let at = which as usize;
        let rule = user.and_then(|user| self.users.get(user));
        let name = user.unwrap_or_default();
        let both = || Some((format!("b{name}\0{client}"), rule?.clients.get(client)?[at]?));
        let user_alone = || Some((format!("u{name}"), rule?.limits[at]?));
        let client_alone = || Some((format!("c{client}"), self.clients.get(client)?[at]?));
        let everybody = || {
            let key = user.map_or_else(|| format!("d{client}"), |user| format!("e{user}"));
            Some((key, self.everybody[at]?))
        };
        let found = both().or_else(user_alone).or_else(client_alone).or_else(everybody)?;
        let wait_max_ms = if which == Use::Requests { SAMPLE_MS } else { WAIT_MAX_MS };
        Some((found.0.into(), Limit { per_second: found.1, wait_max_ms }))
    }
}

fn limits(at: &str, value: &toml::Value, has_clients: bool) -> Result<Limits, String> {
    let table = value.as_table().ok_or_else(|| format!("'{at}' is no table"))?;
    let mut limits = Limits::default();
    for (key, value) in table {
        if has_clients && key == "clients" && value.is_table() {
            continue;
        }
        let which = USES.iter().find(|(_, name)| name == key);
        let (which, _) =
            which.ok_or_else(|| format!("'{at}.{key}' is none of produce, fetch, requests"))?;
        let number = match value {
            toml::Value::Integer(number) => u64::try_from(*number).ok(),
            toml::Value::String(text) if *which != Use::Requests => parse_size(text).ok(),
            _ => None,
        };
        let number = number.filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("'{at}.{key}' is no amount for a second"))?;
        limits[*which as usize] = Some(number);
    }
    Ok(limits)
}

/// A client's limits, found once and kept by its connection.
#[derive(Debug)]
pub(crate) struct Share {
    client: String,
    user: Option<Rc<str>>,
    found: [Option<(Rc<str>, Limit)>; 3],
}

impl Share {
    fn is_of(&self, user: Option<&Rc<str>>, client: &str) -> bool {
        self.client == client && self.user.as_ref() == user
    }
}

/// What clients have used on this shard.
#[derive(Debug)]
pub(crate) struct Used {
    rules: Arc<QuotaRules>,
    rates: [Quotas<Rc<str>>; 3],
}

impl Used {
    pub(crate) fn new(rules: Arc<QuotaRules>) -> Self {
        Self { rules, rates: [(); 3].map(|()| Quotas::new(ENTITIES_MAX)) }
    }

    /// Sees to it that `share` is that of a client.
    pub(crate) fn share<'a>(
        &self,
        share: &'a mut Option<Box<Share>>,
        user: Option<&Rc<str>>,
        client: &str,
    ) -> &'a Share {
        if !share.as_ref().is_some_and(|share| share.is_of(user, client)) {
            let find = |(which, _)| self.rules.find(which, user.map(|user| &**user), client);
            let found = USES.map(find);
            *share =
                Some(Box::new(Share { client: client.to_owned(), user: user.cloned(), found }));
        }
        share.as_ref().expect("set above")
    }

    /// Notes what a client uses; for how many milliseconds it is left alone.
    pub(crate) fn record(&mut self, which: Use, share: &Share, amount: u64, now_ms: u64) -> u32 {
        match &share.found[which as usize] {
            Some((key, limit)) => self.record_as(which, key, amount, *limit, now_ms),
            None => 0,
        }
    }

    fn record_as(
        &mut self,
        which: Use,
        key: &Rc<str>,
        amount: u64,
        limit: Limit,
        now_ms: u64,
    ) -> u32 {
        let wait_ms = self.rates[which as usize].record(key, amount, limit, now_ms);
        u32::try_from(wait_ms.min(WAIT_MAX_MS)).unwrap_or(0)
    }

    /// Notes what an answer to a fetch carries. When that is too much it is to carry nothing, and to say for how many
    /// milliseconds the client waits.
    pub(crate) fn record_fetch(&mut self, job: &FetchLimit, bytes: u64, now_ms: u64) -> u32 {
        let wait_ms = self.record_as(Use::Fetch, &job.key, bytes, job.limit, now_ms);
        if wait_ms > 0 {
            self.rates[Use::Fetch as usize].take_back(&job.key, bytes, now_ms);
        }
        wait_ms
    }

    /// Forgets clients that have been silent for long.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        self.rates.iter_mut().for_each(|rates| rates.expire(now_ms, EXPIRE_LOOKS));
    }
}

/// The limit of a fetch, which counts when its answer is known.
#[derive(Debug)]
pub(crate) struct FetchLimit {
    key: Rc<str>,
    limit: Limit,
}

impl FetchLimit {
    pub(crate) fn of(share: &Share) -> Option<Self> {
        let (key, limit) = share.found[Use::Fetch as usize].as_ref()?;
        Some(Self { key: Rc::clone(key), limit: *limit })
    }

    /// The most that one answer may carry.
    pub(crate) const fn burst(&self) -> u64 {
        self.limit.burst()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
        [users.alice]
        produce = '1mb'
        [users.alice.clients.batch]
        produce = 500
        fetch = '2kb'
        [clients.batch]
        produce = 7
        requests = 9
    ";

    fn rules(text: &str) -> Result<QuotaRules, String> {
        let mut rules = QuotaRules { everybody: [Some(3), None, None], ..QuotaRules::default() };
        rules.parse(text).map(|()| rules)
    }

    #[test]
    fn the_most_specific_rule_counts_for_each_use() {
        let rules = rules(FILE).expect("valid");
        let find = |which, user, client| {
            rules.find(which, user, client).map(|(key, limit)| (key, limit.per_second))
        };
        let is = |which, user, client, key: &str, limit| {
            assert_eq!(find(which, user, client), Some((key.into(), limit)));
        };
        is(Use::Produce, Some("alice"), "batch", "balice\0batch", 500);
        is(Use::Produce, Some("alice"), "other", "ualice", 1 << 20);
        is(Use::Produce, Some("bob"), "batch", "cbatch", 7);
        is(Use::Produce, None, "batch", "cbatch", 7);
        is(Use::Produce, Some("bob"), "other", "ebob", 3);
        is(Use::Produce, None, "other", "dother", 3);
        is(Use::Fetch, Some("alice"), "batch", "balice\0batch", 2048);
        is(Use::Requests, Some("alice"), "batch", "cbatch", 9);
        assert_eq!(find(Use::Fetch, Some("alice"), "other"), None);
        assert_eq!(find(Use::Requests, None, "other"), None);
    }

    #[test]
    fn what_is_no_quotas_file_is_refused() {
        for (text, problem) in [
            ("x", "TOML parse error"),
            ("users = 1", "'users' is no table"),
            ("[others.a]", "'others' is neither users nor clients"),
            ("[users]\na = 1", "'users.a' is no table"),
            ("[users.a]\nclients = 1", "'users.a.clients' is none of"),
            ("[clients.a]\nclients = {}", "'clients.a.clients' is none of"),
            ("[users.a]\nproduce = 0", "'users.a.produce' is no amount"),
            ("[users.a]\nproduce = -1", "'users.a.produce' is no amount"),
            ("[users.a]\nproduce = '1 parsec'", "'users.a.produce' is no amount"),
            ("[users.a]\nrequests = '1mb'", "'users.a.requests' is no amount"),
            ("[users.a.clients]\nb = 1", "'users.a.clients.b' is no table"),
        ] {
            let error = rules(text).expect_err("not valid");
            assert!(error.starts_with(problem), "{text}: {error}");
        }
        let many = |count: usize| {
            rules(&(0..count).map(|n| format!("[clients.c{n}]\n")).collect::<String>())
        };
        assert!(many(RULES_MAX).is_ok());
        assert!(many(RULES_MAX + 1).expect_err("too many").starts_with("10001 names"));
    }

    #[test]
    fn without_limits_there_are_no_rules() {
        assert!(QuotaRules::load(Limits::default(), None).expect("valid").is_none());
        let some = [None, Some(1), None];
        assert!(QuotaRules::load(some, None).expect("valid").is_some());
    }

    #[test]
    fn a_share_follows_its_client_and_user_and_use_is_recorded() {
        let mut used = Used::new(Arc::new(rules(FILE).expect("valid")));
        let mut kept = None;
        let share = used.share(&mut kept, None, "other");
        assert_eq!(share.found[0].as_ref().map(|(key, _)| &**key), Some("dother"));
        let alice: Rc<str> = "alice".into();
        used.share(&mut kept, Some(&alice), "batch");
        let share = kept.as_deref().expect("kept");
        // Ten seconds' worth at once is fine, twice that is ten seconds too much.
        assert_eq!(used.record(Use::Produce, share, 5000, 0), 0);
        assert_eq!(used.record(Use::Produce, share, 5000, 0), 10_000);
        let limit = FetchLimit::of(share).expect("limited");
        assert_eq!(limit.burst(), 20_480);
        assert_eq!(used.record_fetch(&limit, 20_480, 0), 0);
        assert_eq!(used.record_fetch(&limit, 2048, 0), 1000);
        assert_eq!(used.record_fetch(&limit, 0, 0), 0, "what was not sent was taken back");
        used.share(&mut kept, None, "other");
        let other = kept.as_deref().expect("kept");
        assert_eq!(used.record(Use::Requests, other, 1 << 40, 0), 0, "no limit");
        assert!(FetchLimit::of(other).is_none());
    }
}
