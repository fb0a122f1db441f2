//! Tests of identities: files, certificates, and what they keep secret.

use super::*;

#[test]
fn an_identity_is_kept_over_restarts_and_read_by_root_only() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    assert!(Identity::load(&state).unwrap().is_none());
    let identity = Identity::first("n1", SystemTime::now()).unwrap();
    identity.save(&state).unwrap();
    let again = Identity::load(&state).unwrap().unwrap();
    assert_eq!((&again.id, &again.name, &again.cert), (&identity.id, &identity.name, &identity.cert));
    assert_eq!(again.join_code().unwrap(), identity.join_code().unwrap());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(state.join(FILE)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    fs::write(state.join(FILE), "{").unwrap();
    assert!(Identity::load(&state).unwrap_err().to_string().contains("is damaged"));
}

#[test]
fn a_file_of_a_version_before_or_after_this_one_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::first("n1", SystemTime::now()).unwrap();
    let check = |change: &dyn Fn(&mut serde_json::Value), made: u64| {
        let mut file =
            serde_json::to_value(identity.rotated(Rotation { made: 7, ..identity.shared.rotation() })).unwrap();
        change(&mut file);
        fs::write(folder.path().join(FILE), file.to_string()).unwrap();
        let read = Identity::load(folder.path()).unwrap().unwrap();
        assert_eq!((&read.id, read.shared.rotation().made), (&identity.id, made));
        assert_eq!(read.join_code().unwrap(), identity.join_code().unwrap());
    };
    check(&|_| {}, 7);
    check(&|file| drop(file["shared"].as_object_mut().unwrap().remove("secret_made")), 0);
    let more = serde_json::json!({"of": ["the", "next", "version"]});
    check(&|file| file["more"] = more.clone(), 7);
    check(&|file| file["shared"]["more"] = more.clone(), 7);
}

#[test]
fn a_renewed_certificate_is_of_the_same_node() {
    let now = SystemTime::now();
    let first = Identity::first("n1", now).unwrap();
    let later = first.renew_at();
    assert!(later > now + NODE_LIFETIME / 2 && later < now + NODE_LIFETIME);
    let renewed = first.renewed(later).unwrap();
    assert_ne!(renewed.cert, first.cert);
    assert_eq!(node_of(&der(&renewed.cert).unwrap()), Some(first.id.clone()));
    assert!(renewed.renew_at() > later + NODE_LIFETIME / 2);
}

#[test]
fn a_certificate_lives_as_long_as_it_is_told_and_is_renewed_in_time() {
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let short = Identity::first("n1", now).unwrap().living(hour, now).unwrap();
    let after = |at: SystemTime| at.duration_since(now).unwrap().as_secs().div_ceil(60);
    assert_eq!((after(short.ends_at()), after(short.renew_at())), (60, 40));
    let folder = tempfile::tempdir().unwrap();
    short.save(folder.path()).unwrap();
    let renewed = Identity::load(folder.path()).unwrap().unwrap().renewed(now + hour / 2).unwrap();
    assert_eq!(after(renewed.ends_at()), 90);
}

#[test]
fn an_issuer_is_told_as_swarm_mode_tells_it() {
    let root = Shared::new_root(SystemTime::now()).unwrap();
    let issuer = Issuer::of_root(&root.cert).unwrap();
    let der = der(&root.cert).unwrap();
    for part in [&issuer.subject, &issuer.public_key] {
        assert!(part[0] == 0x30 && der.windows(part.len()).any(|it| it == part), "{part:02x?}");
    }
    assert_eq!(sequence(&[7; 200])[..4], [0x30, 0x81, 200, 7]);
    assert_eq!(sequence(&[7; 300])[..5], [0x30, 0x82, 1, 44, 7]);
}

#[test]
fn keys_are_not_in_the_debug_form() {
    let identity = Identity::first("n1", SystemTime::now()).unwrap();
    let text = format!("{identity:?} {:?}", identity.shared);
    assert!(!text.contains("KEY") && !text.contains("secret"));
}
