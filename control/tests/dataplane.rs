//! The dataplane configuration: read, followed, told to the proxies.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod common;

use std::{fs, os::unix::fs::symlink, path::Path};

use common::{Mesh, Table};
use modelring_control::dataplane::{Dataplane, Source};
use modelring_proto::v1::Role;

/// A method, where it carries the id, whether that names a vmodel.
type Rule<'a> = (&'a str, &'a [u32], bool);

/// The rules, and whether other methods may be called.
fn told(table: &Table) -> (Vec<Rule<'_>>, Option<bool>) {
    let rules = table.tuning.rpcs.iter().map(|rule| (rule.method.as_str(), &rule.id_path[..], rule.vmodel));
    (rules.collect(), table.tuning.allow_other_rpcs)
}

async fn with(dataplane: Source) -> Mesh {
    let mut mesh = Mesh::start(&[]).await;
    mesh.dataplane = dataplane;
    mesh.restart().await;
    mesh
}

/// A configuration that permits one method.
fn only(method: &str) -> String {
    format!(r#"{{"rpcConfigs": {{"a.Service/{method}": {{"idExtractionPath": [2, 1]}}}}}}"#)
}

fn permits(table: &Table, method: &str) -> bool {
    told(table) == (vec![(&format!("a.Service/{method}"), &[2, 1], false)], Some(false))
}

#[tokio::test]
async fn a_literal_configuration_replaces_the_built_in_one() {
    let json = r#"{"rpcConfigs": {"/pkg.S/M": {"idExtractionPath": [1, 1], "vModelId": true}, "pkg.S/List": {}},
                   "allowOtherRpcs": true}"#;
    let mesh = with(Source::Literal(json.to_owned())).await;
    let mut client = mesh.client(Role::Proxy).await;
    let table = client.until("the table", |_| true).await;
    assert_eq!(told(table), (vec![("pkg.S/M", &[1, 1][..], true), ("pkg.S/List", &[], false)], Some(true)));
}

#[tokio::test]
async fn an_empty_configuration_permits_nothing() {
    let mesh = with(Source::Literal("{}".to_owned())).await;
    let mut client = mesh.client(Role::Proxy).await;
    assert_eq!(told(client.until("the table", |_| true).await), (vec![], Some(false)));
}

#[tokio::test]
async fn a_file_is_followed_through_edits_in_place_and_renames() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dataplane.json");
    fs::write(&path, only("One")).unwrap();
    let mesh = with(Source::File(path.clone())).await;
    let mut client = mesh.client(Role::Proxy).await;
    client.until("the file", |table| permits(table, "One")).await;
    fs::write(&path, only("Two")).unwrap();
    client.until("the edit", |table| permits(table, "Two")).await;
    let aside = dir.path().join("aside");
    fs::write(&aside, only("Three")).unwrap();
    fs::rename(aside, &path).unwrap();
    client.until("the rename", |table| permits(table, "Three")).await;
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_when_its_data_link_is_swapped() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mount = |version: &str, method: &str| {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("dataplane"), only(method)).unwrap();
        symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    mount("..1", "One");
    symlink(Path::new("..data").join("dataplane"), at("dataplane")).unwrap();
    let mesh = with(Source::File(at("dataplane"))).await;
    let mut client = mesh.client(Role::Proxy).await;
    client.until("the first version", |table| permits(table, "One")).await;
    mount("..2", "Two");
    fs::remove_dir_all(at("..1")).unwrap();
    client.until("the second version", |table| permits(table, "Two")).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_the_last_good_one_in_force_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dataplane.json");
    fs::write(&path, only("One")).unwrap();
    let mesh = with(Source::File(path.clone())).await;
    let mut client = mesh.client(Role::Observer).await;
    let subject = format!("dataplane configuration {}", path.display());
    client.until("the file", |table| permits(table, "One")).await;
    fs::write(&path, r#"{"rpcConfig": {}}"#).unwrap();
    client.until("an unknown property", |table| table.notes(&subject, "unknown field `rpcConfig`")).await;
    assert!(permits(&client.table, "One"));
    fs::write(&path, "{").unwrap();
    client.until("no JSON", |table| table.notes(&subject, "the last good one stays in force")).await;
    fs::remove_file(&path).unwrap();
    client.until("no file", |table| table.notes(&subject, "cannot be read")).await;
    assert!(permits(&client.table, "One"));
    fs::write(&path, only("Two")).unwrap();
    client.until("a good one", |table| permits(table, "Two") && table.notices.is_empty()).await;
}

#[tokio::test]
async fn control_does_not_start_with_a_configuration_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let start = |dataplane| {
        modelring_control::Control::start(modelring_control::Config {
            dir: dir.path().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            namespace: "default".to_owned(),
            instances: Vec::new(),
            built_in_runtimes: Vec::new(),
            dataplane,
        })
    };
    let error = start(Source::Literal(r#"{"allowOthers": true}"#.to_owned())).await.unwrap_err();
    assert!(error.to_string().contains("unknown field `allowOthers`"), "{error}");
    assert!(!error.is_passing());
    let missing = dir.path().join("missing.json");
    let error = start(Source::File(missing.clone())).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("dataplane configuration {} cannot be read", missing.display())));
}

#[test]
fn properties_have_modelmeshs_defaults_and_unknown_ones_are_refused() {
    let read = Dataplane::parse(r#"{"rpcConfigs": {"a.S/M": {}}}"#).unwrap();
    assert!(!read.allow_other_rpcs);
    assert_eq!(read.rpc_configs["a.S/M"], Default::default());
    assert!(!read.rpc_configs["a.S/M"].vmodel);
    for (json, said) in [
        (r#"{"rpcConfigs": {"a.S/M": {"idInjectionPath": [1]}}}"#, "unknown field `idInjectionPath`"),
        (r#"{"rpcConfigs": {"M": {}}}"#, "`M` is no method"),
        (r#"{"rpcConfigs": {"a.S/": {}}}"#, "is no method"),
        (r#"{"rpcConfigs": {"a.S/M": {"idExtractionPath": [0]}}}"#, "0 in its idExtractionPath"),
        (r#"{"rpcConfigs": {"a.S/M": {"idExtractionPath": [536870912]}}}"#, "536870912"),
        (r#"{"rpcConfigs": {"a.S/M": {"idExtractionPath": [-1]}}}"#, "-1"),
        ("[]", "no dataplane configuration"),
        ("", "no dataplane configuration"),
    ] {
        let error = Dataplane::parse(json).unwrap_err().to_string();
        assert!(error.contains(said), "{json}: {error}");
    }
}
