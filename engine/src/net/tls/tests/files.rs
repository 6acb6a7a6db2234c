//! What is said about files that cannot be used.

use super::{Authority, World};

#[test]
fn each_wrong_file_is_named_with_what_is_wrong() {
    let world = World::new("files");
    let other = Authority::new("other").sign("localhost");
    let other_key = world.write("other.pem", &other.key);
    let text = world.write("text.pem", "no PEM\n");
    let broken =
        world.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let long = world.write("long.pem", &" ".repeat((1 << 20) + 1));
    let missing = world.dir.path().join("missing.pem");
    let good = &world.files;
    let with =
        |cert, key, client_ca| super::TlsFiles { cert, key, client_ca, client_optional: false };
    for (files, name, what) in [
        (with(missing.clone(), good.key.clone(), None), "missing.pem", "ENOENT"),
        (with(good.cert.clone(), missing.clone(), None), "missing.pem", "ENOENT"),
        (with(good.cert.clone(), good.key.clone(), Some(missing)), "missing.pem", "ENOENT"),
        (with(world.dir.path().to_owned(), good.key.clone(), None), "tls-files", "EISDIR"),
        (with(text.clone(), good.key.clone(), None), "text.pem", "no certificate"),
        (with(good.key.clone(), good.key.clone(), None), "key.pem", "no certificate"),
        (with(good.cert.clone(), text.clone(), None), "text.pem", "no private key"),
        (with(good.cert.clone(), good.cert.clone(), None), "cert.pem", "no private key"),
        (with(good.cert.clone(), good.key.clone(), Some(text)), "text.pem", "no certificate"),
        (with(good.cert.clone(), other_key, None), "other.pem", "not the key of the certificate"),
        (with(broken.clone(), good.key.clone(), None), "broken.pem", ""),
        (with(good.cert.clone(), good.key.clone(), Some(broken)), "broken.pem", ""),
        (with(long, good.key.clone(), None), "long.pem", "1048577 bytes"),
    ] {
        let Err(error) = files.load() else { panic!("{files:?} can be used") };
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(what), "{files:?}: {text}");
    }
    assert!(world.files.load().is_ok());
}
