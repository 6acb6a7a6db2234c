//! Users, rules and checks, without a server.

use super::{Denied, Rules, User, may_run, merge_selectors, rules::Wrong};
use crate::command::table::Index;

fn apply(commands: &Index, user: &mut User, rules: &[&str]) -> Result<(), Wrong> {
    let with = Rules { commands, all_channels: false };
    rules.iter().try_for_each(|rule| with.apply(user, rule.as_bytes()))
}

fn made(commands: &Index, rules: &[&str]) -> User {
    let mut user = User::new(b"ann", false);
    apply(commands, &mut user, rules).unwrap_or_else(|wrong| panic!("{rules:?}: {wrong:?}"));
    user
}

fn described(commands: &Index, rules: &[&str]) -> String {
    let with = Rules { commands, all_channels: false };
    String::from_utf8_lossy(&made(commands, rules).describe(&with)).into_owned()
}

fn run(commands: &Index, user: &User, words: &[&str]) -> Result<(), Denied> {
    let mut id = commands.find(words[0].as_bytes()).expect("a command");
    if !commands.row(id).subs.is_empty() {
        id = commands.find_sub(id, words[1].as_bytes()).expect("a subcommand");
    }
    may_run(user, id, commands.row(id), words.len(), |at| words[at].as_bytes())
}

#[test]
fn users_are_described_by_rules_that_make_them_again() {
    let commands = Index::new();
    for (rules, shown) in [
        (&[][..], "off resetchannels -@all"),
        (&["on", "nopass", "~*", "&*", "+@all"], "on nopass ~* &* +@all"),
        (&["+@all", "-@all", "+get"], "off resetchannels -@all +get"),
        (&["~a*", "%R~b", "%W~c"], "off ~a* %R~b %W~c resetchannels -@all"),
        (&["&ch.*"], "off resetchannels &ch.* -@all"),
        (&["+@hash"], "off resetchannels -@all +@hash"),
        (&["+@all", "-@hash"], "off resetchannels +@all -@hash"),
        (&["+config|get"], "off resetchannels -@all +config|get"),
        (&["+select|0"], "off resetchannels -@all +select|0"),
        (&["(~x +get)", "+set"], "off resetchannels -@all +set (~x resetchannels -@all +get)"),
    ] {
        let text = described(&commands, rules);
        assert_eq!(text, shown, "{rules:?}");
        let words: Vec<&str> = text.split(' ').collect();
        let merged = merge_selectors(words.iter().map(|word| word.as_bytes())).expect("closed");
        let words: Vec<String> =
            merged.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(made(&commands, &words), made(&commands, rules), "{text}");
    }
}

#[test]
fn rules_that_are_wrong_are_told_apart() {
    let commands = Index::new();
    for (rules, wrong) in [
        (&["+nosuch"][..], Wrong::Unknown),
        (&["+@nosuch"], Wrong::Unknown),
        (&["-config|nosuch"], Wrong::Unknown),
        (&["nonsense"], Wrong::Syntax),
        (&["%~x"], Wrong::Syntax),
        (&["%X~x"], Wrong::Syntax),
        (&["%RR~x"], Wrong::Syntax),
        (&["~a b"], Wrong::Syntax),
        (&["+get|"], Wrong::Syntax),
        (&["~*", "~x"], Wrong::KeysAfterAll),
        (&["&*", "&x"], Wrong::ChannelsAfterAll),
        (&["<x"], Wrong::NoSuchPassword),
        (&["#x"], Wrong::NotAHash),
        (&["+config|get|x"], Wrong::FirstArgOfSubcommand),
    ] {
        let mut user = User::new(b"ann", false);
        assert_eq!(apply(&commands, &mut user, rules), Err(wrong), "{rules:?}");
    }
}

#[test]
fn commands_keys_and_channels_are_checked() {
    let commands = Index::new();
    let user = made(&commands, &["+@all", "-config|set", "~a*", "%R~r*", "%W~w*"]);
    for (words, result) in [
        (&["GET", "ab"][..], Ok(())),
        (&["GET", "rx"], Ok(())),
        (&["GET", "wx"], Err(Denied::Key(1))),
        (&["SET", "wx", "1"], Ok(())),
        (&["SET", "wx", "1", "GET"], Err(Denied::Key(1))),
        (&["SET", "rx", "1"], Err(Denied::Key(1))),
        (&["MGET", "a", "r", "x"], Err(Denied::Key(3))),
        (&["COPY", "r1", "w1"], Ok(())),
        (&["COPY", "w1", "r1"], Err(Denied::Key(1))),
        (&["CONFIG", "GET", "x"], Ok(())),
        (&["CONFIG", "SET", "x", "y"], Err(Denied::Command)),
    ] {
        assert_eq!(run(&commands, &user, words), result, "{words:?}");
    }
    let user = made(&commands, &["+select|0"]);
    assert_eq!(run(&commands, &user, &["SELECT", "0"]), Ok(()));
    assert_eq!(run(&commands, &user, &["SELECT", "1"]), Err(Denied::Command));
    let user = made(&commands, &["(~x +get)", "(~y +set)"]);
    assert_eq!(run(&commands, &user, &["GET", "x"]), Ok(()));
    assert_eq!(run(&commands, &user, &["GET", "y"]), Err(Denied::Key(1)));
    assert_eq!(run(&commands, &user, &["DEL", "x"]), Err(Denied::Command));
}

#[test]
fn passwords_are_kept_as_hashes() {
    let commands = Index::new();
    let mut user = made(&commands, &["on", ">secret", ">secret"]);
    assert_eq!(user.passwords.len(), 1);
    assert!(user.accepts(b"secret") && !user.accepts(b"Secret") && !user.accepts(b""));
    let hash = String::from_utf8_lossy(&user.passwords[0]).into_owned();
    assert_eq!(hash, "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b");
    apply(&commands, &mut user, &["off"]).expect("a rule");
    assert!(!user.accepts(b"secret"), "off");
    apply(&commands, &mut user, &["on", &format!("!{hash}")]).expect("a rule");
    assert!(!user.accepts(b"secret") && user.passwords.is_empty());
    apply(&commands, &mut user, &["nopass"]).expect("a rule");
    assert!(user.accepts(b"anything"));
}

#[test]
fn a_parenthesis_that_is_not_closed_is_found() {
    let merge = |rules: &[&str]| merge_selectors(rules.iter().map(|rule| rule.as_bytes()));
    assert_eq!(merge(&["on", "(~a", "+get)", "off"]).map(|rules| rules.len()), Ok(3));
    assert_eq!(merge(&["on", "(~a", "+get"]), Err(1));
}
