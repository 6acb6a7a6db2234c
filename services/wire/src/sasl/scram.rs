//! `SCRAM`: two messages each way, after which each side knows that the other knows the password, and an onlooker
//! knows nothing.
//!
//! ```text
//! client:  n,,n=user,r=nonce                      -> First
//! server:  r=nonce+more,s=salt,i=iterations       First::challenge -> Challenge
//! client:  c=biws,r=nonce+more,p=proof            -> Challenge::finish
//! server:  v=signature
//! ```
//! Each step consumes the one before, so that none can be left out or repeated. The server hashes five times
//! at most: what takes long was done when the verifier was made. Binding to a TLS channel is not offered.
//! Sources: RFC 5802 sections 3, 5 and 7, RFC 7677. Next: `verifier`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::verifier::{Digest, Verifier};
use super::{Failure, Hash, MESSAGE_MAX_BYTES};

/// Longest name of a user.
pub const USER_MAX_BYTES: usize = 1024;

/// A client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First<'a> {
    /// Who the client says it is.
    pub user: String,
    /// What stands before [`First::bare`]; comes back in the last message.
    header: &'a str,
    bare: &'a str,
    nonce: &'a str,
}

/// What the server keeps between its two messages.
#[derive(Clone, Debug)]
pub struct Challenge {
    hash: Hash,
    /// `c=`, the header in base64, `,r=`, both nonces: how the last message must begin.
    expected: String,
    /// The first messages, as they enter the signatures.
    before: String,
    stored_key: Digest,
    server_key: Digest,
    /// The user exists.
    known: bool,
}

fn text(message: &[u8]) -> Result<&str, Failure> {
    if message.len() > MESSAGE_MAX_BYTES {
        return Err(Failure::Malformed("the message is too long"));
    }
    std::str::from_utf8(message).map_err(|_| Failure::Malformed("no UTF-8"))
}

/// A name as it is sent, `,` and `=` written as `=2C` and `=3D`.
fn name(written: &str) -> Result<String, Failure> {
    let mut name = String::with_capacity(written.len());
    let mut parts = written.split('=');
    name.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (char, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(Failure::Malformed("a '=' in the name that stands for nothing")),
        };
        name.push(char);
        name.push_str(rest);
    }
    if name.is_empty() || name.len() > USER_MAX_BYTES {
        return Err(Failure::Malformed("the name is empty or too long"));
    }
    Ok(name)
}

impl<'a> First<'a> {
    /// Reads a client's first message. Extensions that need not be understood are passed over.
    ///
    /// # Errors
    /// It is none, or asks for what is not offered: to act for another user, or a channel binding.
    pub fn read(message: &'a [u8]) -> Result<Self, Failure> {
        let text = text(message)?;
        let mut places = text.match_indices(',').map(|(at, _)| at);
        let (Some(flag_end), Some(header_end)) = (places.next(), places.next()) else {
            return Err(Failure::Malformed("no header of two commas"));
        };
        let (Some(flag), Some(acts_for), Some(header), Some(bare)) = (
            text.get(..flag_end),
            text.get(flag_end + 1..header_end),
            text.get(..=header_end),
            text.get(header_end + 1..),
        ) else {
            return Err(Failure::Malformed("no header of two commas"));
        };
        if !matches!(flag, "n" | "y") {
            return Err(Failure::Malformed("channel binding is not offered"));
        }
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|field| field.strip_prefix("n="));
        let user = name(user.ok_or(Failure::Malformed("no name, or an extension not known"))?)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        let nonce =
            nonce.filter(|nonce| !nonce.is_empty()).ok_or(Failure::Malformed("no nonce"))?;
        if !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::Malformed("the nonce is not of printable characters"));
        }
        if !acts_for.is_empty() {
            let acts_for = acts_for.strip_prefix("a=").ok_or(Failure::Malformed("no header"))?;
            if name(acts_for)? != user {
                return Err(Failure::Malformed("to act for another user is not offered"));
            }
        }
        Ok(Self { user, header, bare, nonce })
    }

    /// The server's first message, and what it keeps. `nonce` is new for every exchange, of printable characters
    /// other than `,`. Without a verifier the exchange goes on with `nobody`'s and fails at its end.
    #[must_use]
    pub fn challenge(
        &self,
        verifier: Option<&Verifier>,
        nobody: &Verifier,
        nonce: &str,
    ) -> (String, Challenge) {
        let used = verifier.unwrap_or(nobody);
        let salt = BASE64.encode(&used.salt);
        let message = format!("r={}{nonce},s={salt},i={}", self.nonce, used.iterations);
        let challenge = Challenge {
            hash: used.hash,
            expected: format!("c={},r={}{nonce}", BASE64.encode(self.header), self.nonce),
            before: format!("{},{message},", self.bare),
            stored_key: used.stored_key,
            server_key: used.server_key,
            known: verifier.is_some(),
        };
        (message, challenge)
    }
}

impl Challenge {
    /// Checks the client's last message; the server's last one, which proves that it knows the user.
    ///
    /// # Errors
    /// The message is malformed or belongs to another exchange, or the proof is wrong.
    pub fn finish(self, message: &[u8]) -> Result<String, Failure> {
        let text = text(message)?;
        let (signed, proof) =
            text.rsplit_once(",p=").ok_or(Failure::Malformed("no proof at the end"))?;
        let rest = signed.strip_prefix(&self.expected);
        if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(',')) {
            return Err(Failure::Malformed("the header or the nonce is another than before"));
        }
        let proof =
            BASE64.decode(proof).map_err(|_| Failure::Malformed("a proof not in base64"))?;
        if proof.len() != self.hash.len_bytes() {
            return Err(Failure::Malformed("a proof of the wrong length"));
        }
        let auth_message: [&[u8]; 2] = [self.before.as_bytes(), signed.as_bytes()];
        let signature = self.hash.keyed(self.stored_key.as_bytes(), &auth_message);
        let client_key: Vec<u8> =
            proof.iter().zip(signature.as_bytes()).map(|(proof, byte)| proof ^ byte).collect();
        let proven = self.hash.of(&client_key) == self.stored_key;
        let signature = self.hash.keyed(self.server_key.as_bytes(), &auth_message);
        if !proven || !self.known {
            return Err(Failure::Credentials);
        }
        Ok(format!("v={}", BASE64.encode(signature.as_bytes())))
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    /// RFC 7677's user.
    fn pencil() -> Verifier {
        let keys = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        Verifier::parse(&format!("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${keys}"))
            .expect("valid")
    }

    fn challenge(first: &[u8], verifier: Option<&Verifier>) -> (String, Challenge) {
        First::read(first).expect("valid").challenge(verifier, &pencil(), NONCE)
    }

    #[test]
    fn the_exchange_of_rfc_7677() {
        let (message, challenge) = challenge(FIRST, Some(&pencil()));
        let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(message, expected);
        let end = challenge.finish(LAST.as_bytes());
        assert_eq!(end.as_deref(), Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn nobody_fails_with_the_right_proof_too_and_is_asked_the_same() {
        let (known, _) = challenge(FIRST, Some(&pencil()));
        let (unknown, challenge) = challenge(FIRST, None);
        assert_eq!(known, unknown);
        assert_eq!(challenge.finish(LAST.as_bytes()), Err(Failure::Credentials));
    }

    #[test]
    fn a_proof_with_any_bit_changed_is_refused() {
        let (_, challenge) = challenge(FIRST, Some(&pencil()));
        let (signed, proof) = LAST.split_once(",p=").expect("a proof");
        let proof = BASE64.decode(proof).expect("base64");
        for bit in 0..proof.len() * 8 {
            let mut wrong = proof.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let message = format!("{signed},p={}", BASE64.encode(wrong));
            let end = challenge.clone().finish(message.as_bytes());
            assert_eq!(end, Err(Failure::Credentials), "bit {bit}");
        }
    }

    #[test]
    fn last_messages_that_do_not_belong_are_refused() {
        let (_, challenge) = challenge(FIRST, Some(&pencil()));
        for (from, to) in [
            ("c=biws", "c=eSws"),
            ("c=biws,", ""),
            ("k0", "k1"),
            ("$k0,", "$k0x,"),
            ("VQ=", "V!"),
            ("dHzb", ""),
            (",p=", ",q="),
        ] {
            let message = LAST.replace(from, to);
            let end = challenge.clone().finish(message.as_bytes());
            assert!(matches!(end, Err(Failure::Malformed(_))), "{message}");
        }
        for cut in 0..LAST.len() {
            assert!(challenge.clone().finish(&LAST.as_bytes()[..cut]).is_err(), "{cut}");
        }
        assert!(challenge.clone().finish(&[0xff]).is_err());
        // An extension that is not known is signed, so this proof does not fit, but the form does.
        let extended = LAST.replace("k0,p", "k0,x=1,p");
        assert_eq!(challenge.finish(extended.as_bytes()), Err(Failure::Credentials));
    }

    #[test]
    fn first_messages_say_who() {
        let user = |message: &[u8]| First::read(message).map(|first| first.user);
        assert_eq!(user(b"n,,n=a=2Cb=3Dc,r=x").as_deref(), Ok("a,b=c"));
        assert_eq!(user(b"y,a=me,n=me,r=x,tokenauth=true").as_deref(), Ok("me"));
        let longest = format!("n,,n={},r=x", "a".repeat(USER_MAX_BYTES));
        assert!(user(longest.as_bytes()).is_ok());
        for message in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=",
            "n,,n=,r=x",
            "n,,n=u",
            "n,,n=u,r=",
            "n,,n=u,r=a b",
            "n,,n=u,r=\u{e4}",
            "n,,r=x,n=u",
            "n,,m=ext,n=u,r=x",
            "p=tls-unique,,n=u,r=x",
            "x,,n=u,r=x",
            "n,a=other,n=u,r=x",
            "n,other,n=u,r=x",
            "n,,n=a=2c,r=x",
            "n,,n=a=,r=x",
            &format!("n,,n={},r=x", "a".repeat(USER_MAX_BYTES + 1)),
            &format!("n,,n=u,r={}", "a".repeat(MESSAGE_MAX_BYTES)),
        ] {
            assert!(matches!(user(message.as_bytes()), Err(Failure::Malformed(_))), "{message}");
        }
        assert!(user(b"n,,n=\xff,r=x").is_err());
    }

    #[test]
    fn the_other_hash_goes_the_same_way() {
        let verifier = Verifier::of_password(Hash::Sha512, "pw", "u", b"secret");
        let nobody = Verifier::of_nobody(Hash::Sha512, "u", b"secret");
        let (message, challenge) =
            First::read(b"n,,n=u,r=abc").expect("valid").challenge(Some(&verifier), &nobody, "def");
        // As a client does it.
        let mut derivation = verifier.derivation(b"pw");
        derivation.step(u32::MAX);
        let signed = "c=biws,r=abcdef";
        let auth = format!("n=u,r=abc,{message},{signed}");
        let client_key = derivation.client_key();
        let stored = Hash::Sha512.of(client_key.as_bytes());
        let signature = Hash::Sha512.keyed(stored.as_bytes(), &[auth.as_bytes()]);
        let proof = BASE64.encode(client_key.xor(&signature).as_bytes());
        let end = challenge.finish(format!("{signed},p={proof}").as_bytes()).expect("proven");
        let signature = Hash::Sha512.keyed(verifier.server_key.as_bytes(), &[auth.as_bytes()]);
        assert_eq!(end, format!("v={}", BASE64.encode(signature.as_bytes())));
    }
}
