use super::*;
use crate::storage::key::ModelKey;

fn place(fields: &[(&str, &str)]) -> Result<Place, LoadError> {
    let mut params = serde_json::json!({
        "type": "s3", "access_key_id": "id", "secret_access_key": "secret", "endpoint_url": "http://minio:9000", "region": "r",
    });
    for (name, value) in fields {
        params[*name] = (*value).into();
    }
    let key = serde_json::json!({ "storage_params": params }).to_string();
    Place::of(&Entry::choose(None, &ModelKey::parse(&key).unwrap()).unwrap())
}

#[test]
fn entries_that_differ_only_in_where_a_field_ends_share_no_client() {
    let one = place(&[("access_key_id", "ab"), ("secret_access_key", "c")]).unwrap();
    let other = place(&[("access_key_id", "a"), ("secret_access_key", "bc")]).unwrap();
    let clients = Clients::default();
    clients.get(&one).unwrap();
    clients.get(&other).unwrap();
    clients.get(&one.clone()).unwrap();
    assert_eq!(clients.0.lock().len(), 2, "and the same entry uses its client again");
    for n in 0..100 {
        clients.get(&place(&[("region", &format!("r{n}"))]).unwrap()).unwrap();
    }
    assert_eq!(clients.0.lock().len(), MOST);
}

#[test]
fn endpoints_are_read_as_modelmesh_read_them() {
    for (endpoint, url, host) in [
        ("http://minio:9000", Some("http://minio:9000"), "minio:9000"),
        ("minio:9000", Some("https://minio:9000"), "minio:9000"),
        (
            "https://s3.eu-de.cloud-object-storage.appdomain.cloud/",
            Some("https://s3.eu-de.cloud-object-storage.appdomain.cloud/"),
            "s3.eu-de.cloud-object-storage.appdomain.cloud",
        ),
        ("", None, "s3.r.amazonaws.com"),
    ] {
        let place = place(&[("endpoint_url", endpoint)]).unwrap();
        assert_eq!((place.endpoint.as_deref(), place.host.as_str()), (url, host));
    }
    for endpoint in ["http://", "gopher://x", "http://a b", "http://k:s@minio", "http://minio?x=1"] {
        let error = place(&[("endpoint_url", endpoint)]).unwrap_err();
        assert!(error.text.contains("'endpoint_url'") && !error.text.contains("k:s"), "{}", error.text);
    }
}

#[test]
fn a_certificate_that_is_none_is_refused_before_the_library_sees_it() {
    for pem in [
        "hello",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\naGVsbG8=\n",
    ] {
        let error = place(&[("certificate", pem)]).unwrap_err();
        assert!(error.text.starts_with("configuration 'certificate' "), "{}", error.text);
        assert!(!error.passing);
    }
}

#[test]
fn no_secret_is_shown() {
    assert!(!format!("{:?}", place(&[("secret_access_key", "hunter2")]).unwrap()).contains("hunter2"));
}
