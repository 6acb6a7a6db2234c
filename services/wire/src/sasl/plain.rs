//! `PLAIN`: the name and the password in one message, so that it is only as secret as the connection.
//!
//! Source: RFC 4616. Next: [`super::Verifier`] for what the password is compared with.

use super::{Failure, MESSAGE_MAX_BYTES};

/// What a client says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Login<'a> {
    /// Who it is.
    pub user: &'a str,
    /// How it proves that.
    pub password: &'a str,
}

/// Without the password, which belongs in no log.
impl std::fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Reads the client's only message. To act for somebody else, which the message could ask for, is not offered.
///
/// # Errors
/// It does not have three parts, or one of them is empty that must not be.
pub fn read(message: &[u8]) -> Result<Login<'_>, Failure> {
    if message.len() > MESSAGE_MAX_BYTES {
        return Err(Failure::Malformed("the message is too long"));
    }
    let text = std::str::from_utf8(message).map_err(|_| Failure::Malformed("no UTF-8"))?;
    let mut parts = text.split('\0');
    let (Some(acts_for), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Failure::Malformed("not a name for whom, a name and a password"));
    };
    if user.is_empty() || password.is_empty() {
        return Err(Failure::Malformed("the name or the password is empty"));
    }
    if !acts_for.is_empty() && acts_for != user {
        return Err(Failure::Malformed("to act for another user is not offered"));
    }
    Ok(Login { user, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_parts_are_read() {
        // RFC 4616, section 4.
        let login = Login { user: "tim", password: "tanstaaftanstaaf" };
        assert_eq!(read(b"\0tim\0tanstaaftanstaaf"), Ok(login));
        assert_eq!(read(b"tim\0tim\0tanstaaftanstaaf"), Ok(login));
        assert_eq!(format!("{login:?}"), "Login { user: \"tim\", .. }");
    }

    #[test]
    fn everything_else_is_refused() {
        for message in [
            &b""[..],
            b"tim",
            b"\0tim",
            b"\0tim\0",
            b"\0\0secret",
            b"\0tim\0a\0b",
            b"Ursel\0Kurt\0xipj3plmq",
            b"\0tim\0\xff",
            &[b'a'; MESSAGE_MAX_BYTES + 1],
        ] {
            assert!(matches!(read(message), Err(Failure::Malformed(_))), "{message:?}");
        }
        let longest = [b"\0u\0".as_slice(), &[b'p'; MESSAGE_MAX_BYTES - 3]].concat();
        assert!(read(&longest).is_ok());
    }
}
