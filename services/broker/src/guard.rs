//! What stands before a connection's requests when clients log in or are limited: who it is, and how long it waits.
//!
//! ```text
//! Nobody -> Chosen -> (Challenged ->) User        SaslHandshake, then SaslAuthenticate once or twice
//!              `--> Proving --^                   PLAIN against a verifier takes a while
//!    ^---- any failure: Failing, told after a delay, then closed
//! ```
//! As in Kafka, nothing but `ApiVersions` is answered before the log-in is complete, and a client that cannot log in hears of
//! it, and is closed, only after [`FAILURE_DELAY_NS`], whatever it was that failed. Invariants: a connection without
//! users and quotas has no guard and pays for none; state is bounded by the longest message. Next: `users`,
//! `quota`, `wire::sasl`.

use std::rc::Rc;
use std::sync::Arc;

use engine::exec::sync::{Turns, yield_now};
use view::{HashMap, Instant};
use wire::kafka::Reader;
use wire::kafka::api::{API_VERSIONS, Api, SASL_AUTHENTICATE, SASL_HANDSHAKE};
use wire::kafka::frame::RequestHeader;
use wire::kafka::sasl::{Authenticated, read_authenticate, read_handshake};
use wire::kafka::sasl::{write_bare, write_handshake};
use wire::sasl::scram::{Challenge, First};
use wire::sasl::{Digest, Failure, Hash, Mechanism, plain};

use crate::code::Code;
use crate::quota::{FetchLimit, Share, Use};
use crate::session::{Next, Refused};
use crate::shard::Shard;
use crate::users::{Checked, Proof, Users};
use crate::work::Work;

/// Longest request before a log-in (Kafka's sasl.server.max.receive.size).
pub(crate) const LOGIN_MAX_BYTES: usize = 512 << 10;
/// After so long a failure is told (Kafka's connection.failed.authentication.delay.ms).
const FAILURE_DELAY_NS: u64 = 100_000_000;
/// And so much later the connection is closed: kafka-python loses an answer that ends with its connection.
pub(crate) const CLOSE_DELAY_NS: u64 = 50_000_000;
/// Passwords of a shard that are being derived or wait for it.
const PROOFS_MAX: usize = 256;
/// Iterations before other work of the shard gets its turn: some tenths of a millisecond.
const PROOF_STEP: u32 = 256;

/// What a shard knows of log-ins.
#[derive(Debug)]
pub(crate) struct Logins {
    users: Arc<Users>,
    /// How long a log-in lasts; zero for ever.
    reauth_ms: u64,
    /// Passwords in clear that were right, by user; no more than there are users.
    proven: HashMap<String, Digest>,
    /// Exchanges begun.
    exchanges: u64,
    proofs: usize,
    turns: Rc<Turns>,
}

impl Logins {
    pub(crate) fn new(users: Arc<Users>, reauth_ms: u64) -> Self {
        let (proven, turns) = (HashMap::default(), Rc::default());
        Self { users, reauth_ms, proven, exchanges: 0, proofs: 0, turns }
    }
}

/// How a message of a log-in came, and so how it is answered.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// In `SaslAuthenticate` of a version, with a number.
    Request(i16, i32),
    /// As a frame of its own.
    Bare,
}

impl Asked {
    fn answer(self, out: &mut Vec<u8>, message: &[u8], lifetime_ms: i64) {
        match self {
            Self::Bare => write_bare(out, message),
            Self::Request(version, number) => {
                let answer = Authenticated { message, lifetime_ms, ..Authenticated::default() };
                answer.write(out, version, number);
            }
        }
    }
}

#[derive(Debug)]
enum Stage {
    /// Nobody logs in here.
    Off,
    /// Not logged in yet.
    Nobody,
    /// The mechanism is known; messages come bare or not.
    Chosen { mechanism: Mechanism, bare: bool },
    /// The server's challenge was sent.
    Challenged { challenge: Box<Challenge>, user: String, bare: bool },
    /// A password is being compared.
    Proving { asked: Asked, user: String, fingerprint: Digest, since_ns: u64 },
    /// To be told, and to be closed.
    Failing { answer: Vec<u8> },
    /// Logged in, until then.
    User { expires_ns: u64 },
}

/// A connection's guard.
#[derive(Debug)]
pub(crate) struct Guard {
    stage: Stage,
    /// Who it is, and by which mechanism; stays while it logs in again.
    user: Option<(Rc<str>, Mechanism)>,
    mechanism: Option<Mechanism>,
    share: Option<Box<Share>>,
    muted_until_ns: u64,
}

impl Guard {
    /// The guard of a new connection, if it needs one.
    pub(crate) fn new(shard: &Shard) -> Option<Box<Self>> {
        let stage = if shard.logins.is_some() { Stage::Nobody } else { Stage::Off };
        let needed = shard.logins.is_some() || shard.used.is_some();
        needed.then(|| {
            Box::new(Self { stage, user: None, mechanism: None, share: None, muted_until_ns: 0 })
        })
    }

    /// Until when the connection is not read, if that is later than now.
    pub(crate) fn muted(&self, now: Instant) -> Option<u64> {
        (self.muted_until_ns > now.mono_ns).then_some(self.muted_until_ns)
    }

    pub(crate) fn mute_until(&mut self, until_ns: u64) {
        self.muted_until_ns = self.muted_until_ns.max(until_ns);
    }

    /// Whether the log-in is complete, or none is needed.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Off | Stage::User { .. })
    }

    /// Notes what a request uses; for how long the client is left alone, which its answer says.
    pub(crate) fn record(
        &mut self,
        uses: &[(Use, usize)],
        client: &str,
        shard: &mut Shard,
        now: Instant,
    ) -> u32 {
        let Some(used) = &mut shard.used else { return 0 };
        let user = self.user.as_ref().map(|(user, _)| user);
        used.share(&mut self.share, user, client);
        let Some(share) = &self.share else { return 0 };
        let now_ms = now.mono_ns / 1_000_000;
        let waits =
            uses.iter().map(|(which, amount)| used.record(*which, share, *amount as u64, now_ms));
        let wait_ms = waits.max().unwrap_or(0);
        if wait_ms > 0 {
            shard.stats.throttled += 1;
            self.mute_until(now.mono_ns.saturating_add(u64::from(wait_ms) * 1_000_000));
        }
        wait_ms
    }

    /// The limit of a fetch that was just recorded.
    pub(crate) fn fetch_limit(&self) -> Option<FetchLimit> {
        FetchLimit::of(self.share.as_deref()?)
    }

    /// Looks at a frame before anything else does: `None` if it is a request to be served. `idle` says that all
    /// requests before it are answered.
    pub(crate) fn admit(
        &mut self,
        frame: &[u8],
        idle: bool,
        out: &mut Vec<u8>,
        shard: &mut Shard,
        now: Instant,
    ) -> Option<Next> {
        if let Stage::Chosen { bare: true, .. } | Stage::Challenged { bare: true, .. } = self.stage
        {
            return Some(self.message(frame, Asked::Bare, out, shard, now));
        }
        let mut reader = Reader::new(frame);
        let header = match RequestHeader::read(&mut reader) {
            Ok(header) => header,
            Err(malformed) => return Some(Next::Refused(Refused::Header(malformed))),
        };
        let api = Api::find(header.key)?;
        if api.is_login() {
            return Some(match (idle, api.has(header.version)) {
                (false, _) => Next::Blocked,
                (_, false) => Next::Refused(Refused::Version),
                _ if header.key == SASL_HANDSHAKE => {
                    self.handshake(&header, reader, out, shard, now)
                }
                _ => self.authenticate(&header, reader, out, shard, now),
            });
        }
        match self.stage {
            Stage::Off => None,
            Stage::User { expires_ns } if now.mono_ns < expires_ns => None,
            _ if header.key == API_VERSIONS => None,
            Stage::User { .. } => Some(Next::Refused(Refused::Expired)),
            _ => Some(Next::Refused(Refused::NotLoggedIn)),
        }
    }

    fn handshake(
        &mut self,
        header: &RequestHeader<'_>,
        mut reader: Reader<'_>,
        out: &mut Vec<u8>,
        shard: &mut Shard,
        now: Instant,
    ) -> Next {
        let wanted = match read_handshake(&mut reader) {
            Ok(wanted) => wanted,
            Err(malformed) => return Next::Refused(Refused::Body(malformed)),
        };
        let again = shard.logins.as_ref().is_some_and(|logins| logins.reauth_ms > 0);
        match self.stage {
            Stage::Nobody => {}
            Stage::User { .. } if again && header.version > 0 => {}
            Stage::Off | Stage::User { .. } => {
                refuse_login(out, header);
                return Next::Taken;
            }
            _ => return Next::Refused(Refused::NotLoggedIn),
        }
        let names = || Mechanism::ALL.iter().map(|mechanism| mechanism.name());
        let Some(mechanism) = Mechanism::find(wanted) else {
            let mut answer = Vec::new();
            let code = Code::UnsupportedSaslMechanism.number();
            write_handshake(&mut answer, header, code, names());
            return self.fail(answer, shard, now.mono_ns);
        };
        self.stage = Stage::Chosen { mechanism, bare: header.version == 0 };
        self.mechanism = Some(mechanism);
        write_handshake(out, header, 0, names());
        Next::Taken
    }

    fn authenticate(
        &mut self,
        header: &RequestHeader<'_>,
        mut reader: Reader<'_>,
        out: &mut Vec<u8>,
        shard: &mut Shard,
        now: Instant,
    ) -> Next {
        match self.stage {
            Stage::Chosen { .. } | Stage::Challenged { .. } => {}
            Stage::Off | Stage::User { .. } => {
                refuse_login(out, header);
                return Next::Taken;
            }
            _ => return Next::Refused(Refused::NotLoggedIn),
        }
        match read_authenticate(&mut reader, header.version) {
            Ok(message) => {
                let asked = Asked::Request(header.version, header.correlation_id);
                self.message(message, asked, out, shard, now)
            }
            Err(malformed) => Next::Refused(Refused::Body(malformed)),
        }
    }

    /// A message of the mechanism.
    fn message(
        &mut self,
        message: &[u8],
        asked: Asked,
        out: &mut Vec<u8>,
        shard: &mut Shard,
        now: Instant,
    ) -> Next {
        let result = match std::mem::replace(&mut self.stage, Stage::Nobody) {
            Stage::Chosen { mechanism: Mechanism::Plain, .. } => {
                plain::read(message).and_then(|login| self.plain(&login, asked, shard, now))
            }
            Stage::Chosen { mechanism: Mechanism::Scram(hash), bare } => {
                First::read(message).map(|first| {
                    self.challenge(hash, &first, bare, asked, out, shard);
                    Step::Next(Next::Taken)
                })
            }
            Stage::Challenged { challenge, user, .. } => {
                challenge.finish(message).map(|end| Step::Known(user, end.into_bytes()))
            }
            _ => return Next::Refused(Refused::NotLoggedIn),
        };
        match result {
            Ok(Step::Next(next)) => next,
            Ok(Step::Known(user, end)) => self.accept(user, &end, asked, out, shard, now),
            Err(failure) => self.deny(failure, asked, shard, now.mono_ns),
        }
    }

    fn challenge(
        &mut self,
        hash: Hash,
        first: &First<'_>,
        bare: bool,
        asked: Asked,
        out: &mut Vec<u8>,
        shard: &mut Shard,
    ) {
        let index = shard.cx.index() as u64;
        let Some(logins) = &mut shard.logins else { return };
        logins.exchanges += 1;
        let nonce = logins.users.nonce(index, logins.exchanges);
        let (verifier, nobody) = logins.users.verifier(hash, &first.user);
        let (message, challenge) = first.challenge(verifier, &nobody, &nonce);
        asked.answer(out, message.as_bytes(), 0);
        let (challenge, user) = (Box::new(challenge), first.user.clone());
        self.stage = Stage::Challenged { challenge, user, bare };
    }

    fn plain(
        &mut self,
        login: &plain::Login<'_>,
        asked: Asked,
        shard: &mut Shard,
        now: Instant,
    ) -> Result<Step, Failure> {
        let Some(logins) = &mut shard.logins else { return Err(Failure::Credentials) };
        let user = login.user.to_owned();
        match logins.users.check(login, logins.proven.get(login.user)) {
            Checked::Right => Ok(Step::Known(user, Vec::new())),
            Checked::Wrong => Err(Failure::Credentials),
            Checked::Unproven(_) if logins.proofs >= PROOFS_MAX => {
                Err(Failure::Malformed("too many log-ins at once; try again"))
            }
            Checked::Unproven(proof) => {
                logins.proofs += 1;
                let fingerprint = logins.users.fingerprint(login);
                self.stage = Stage::Proving { asked, user, fingerprint, since_ns: now.mono_ns };
                Ok(Step::Next(Next::Await(Work::Prove(proof))))
            }
        }
    }

    /// A password was compared.
    pub(crate) fn proven(
        &mut self,
        right: bool,
        out: &mut Vec<u8>,
        shard: &mut Shard,
        now: Instant,
    ) -> Next {
        if let Some(logins) = &mut shard.logins {
            logins.proofs -= 1;
        }
        match std::mem::replace(&mut self.stage, Stage::Nobody) {
            Stage::Proving { asked, user, fingerprint, .. } if right => {
                if let Some(logins) = &mut shard.logins {
                    logins.proven.insert(user.clone(), fingerprint);
                }
                self.accept(user, b"", asked, out, shard, now)
            }
            Stage::Proving { asked, since_ns, .. } => {
                self.deny(Failure::Credentials, asked, shard, since_ns)
            }
            _ => Next::Refused(Refused::NotLoggedIn),
        }
    }

    fn accept(
        &mut self,
        user: String,
        end: &[u8],
        asked: Asked,
        out: &mut Vec<u8>,
        shard: &mut Shard,
        now: Instant,
    ) -> Next {
        let Some(mechanism) = self.mechanism else { return Next::Refused(Refused::NotLoggedIn) };
        if self.user.as_ref().is_some_and(|before| (&*before.0, before.1) != (&user, mechanism)) {
            let why = Failure::Malformed("another user or mechanism than before");
            return self.deny(why, asked, shard, now.mono_ns);
        }
        if self.user.is_none() {
            self.user = Some((user.into(), mechanism));
        }
        let lifetime_ms = shard.logins.as_ref().map_or(0, |logins| logins.reauth_ms);
        // A client of bare messages cannot log in again: it stays.
        let expires_ns = match (asked, lifetime_ms) {
            (Asked::Request(1.., _), 1..) => {
                now.mono_ns.saturating_add(lifetime_ms.saturating_mul(1_000_000))
            }
            _ => u64::MAX,
        };
        shard.stats.logins += 1;
        self.stage = Stage::User { expires_ns };
        asked.answer(out, end, i64::try_from(lifetime_ms).unwrap_or(i64::MAX));
        Next::Taken
    }

    /// Prepares the answer to a log-in that failed, in Kafka's words, which its clients' users search for.
    fn deny(&mut self, failure: Failure, asked: Asked, shard: &mut Shard, since_ns: u64) -> Next {
        let text = match (failure, self.mechanism) {
            (Failure::Malformed(why), _) => format!("Authentication failed: {why}"),
            (Failure::Credentials, Some(mechanism @ Mechanism::Scram(_))) => format!(
                "Authentication failed during authentication due to invalid credentials with SASL \
                 mechanism {}",
                mechanism.name()
            ),
            (Failure::Credentials, _) => {
                "Authentication failed: Invalid username or password".to_owned()
            }
        };
        let mut answer = Vec::new();
        // Who sends bare messages is not answered: it would take the answer for a part of the exchange.
        if let Asked::Request(version, number) = asked {
            let error = Code::SaslAuthenticationFailed.number();
            let error_message = Some(text.as_str());
            Authenticated { error, error_message, ..Authenticated::default() }.write(
                &mut answer,
                version,
                number,
            );
        }
        self.fail(answer, shard, since_ns)
    }

    fn fail(&mut self, answer: Vec<u8>, shard: &mut Shard, since_ns: u64) -> Next {
        shard.stats.failed_logins += 1;
        self.stage = Stage::Failing { answer };
        Next::Await(Work::Deny(since_ns.saturating_add(FAILURE_DELAY_NS)))
    }

    /// The delay of a failure is over: what the client is told, once.
    pub(crate) fn denial(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.stage, Stage::Nobody) {
            Stage::Failing { answer } => Some(answer),
            _ => None,
        }
    }
}

/// What a message of the mechanism led to.
enum Step {
    Next(Next),
    /// The client is this user; the server's last message.
    Known(String, Vec<u8>),
}

/// Refuses a log-in where there is none to do.
pub(crate) fn refuse_login(out: &mut Vec<u8>, header: &RequestHeader<'_>) {
    let error = Code::IllegalSaslState.number();
    if header.key == SASL_AUTHENTICATE {
        let error_message = Some(Code::IllegalSaslState.text());
        Authenticated { error, error_message, ..Authenticated::default() }.write(
            out,
            header.version,
            header.correlation_id,
        );
    } else {
        write_handshake(out, header, error, [].into_iter());
    }
}

/// Whose turn it is to compare passwords on a shard.
pub(crate) fn turns(shard: &Shard) -> Option<Rc<Turns>> {
    shard.logins.as_ref().map(|logins| Rc::clone(&logins.turns))
}

/// Compares a password, in steps between which the shard does other things, one at a time.
pub(crate) async fn prove(turns: Option<Rc<Turns>>, mut proof: Box<Proof>) -> bool {
    let Some(turns) = turns else { return false };
    let _turn = turns.turn().await;
    loop {
        if let Some(right) = proof.step(PROOF_STEP) {
            return right;
        }
        yield_now().await;
    }
}
