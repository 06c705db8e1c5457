//! What belongs to operator and console, and what they do themselves.

use super::*;
use crate::console::estate::Place;

/// What is open for long is recorded when it begins.
fn begun(user: &str, verb: &str, object: &Value) -> Value {
    let lasts = object["subresource"] == "exec";
    let mut event = event(user, verb, object);
    event["stage"] = (if lasts { "ResponseStarted" } else { "ResponseComplete" }).into();
    event
}

#[test]
fn the_console_may_say_its_certificate_and_nothing_else_unseen() {
    let own =
        of("admissionregistration.k8s.io", "validatingwebhookconfigurations", "", "ems-bots-console", "");
    let mut event = event(CONSOLE, "patch", &own);
    let says = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "ems-bots-console", "uid": "u"},
        "webhooks": [{"name": "bots.ems.element.io", "clientConfig": {"caBundle": "Q0E="}}],
    });
    event["requestObject"] = says.clone();
    event["responseObject"] = json!({"webhooks": [{"rules": []}]});
    assert!(said(&event).is_empty());
    for (path, value) in [
        ("/webhooks/0", json!({"name": "bots.ems.element.io", "rules": [{"resources": ["secrets"]}]})),
        ("/webhooks/0/clientConfig", json!({"caBundle": "Q0E=", "url": "https://elsewhere"})),
        ("/metadata", json!({"name": "ems-bots-console", "labels": {}})),
        ("/webhooks", json!({})),
        ("", json!([])),
    ] {
        *event.pointer_mut("/requestObject").unwrap() = says.clone();
        *event["requestObject"].pointer_mut(path).unwrap() = value;
        assert_eq!(said(&event)[0].0, "admission.changed", "{path}");
    }
}

#[test]
fn what_is_ours_has_the_names_that_it_was_given() {
    let place = Place {
        namespace: "platform".into(),
        operator: "the-operator".into(),
        console: "the-console".into(),
        secrets: ["the-token".to_owned()].into(),
    };
    // A bot beside them makes what is theirs nobody's secret.
    let mut beside = estate().of("tenant-a").next().unwrap().clone();
    beside.name.namespace = "platform".into();
    let estate = Estate::new(place, [beside]);
    let said = |event: &Value| convert(list(&json!([event])).as_bytes(), Caller::ApiServer, &estate);
    for object in [
        secret("platform", "the-token"),
        of("", "serviceaccounts", "platform", "the-operator", "token"),
        of("", "pods", "platform", "ems-bots-console-5d-x7", "exec"),
    ] {
        let event = begun("alice", "create", &object);
        let entries = said(&event).unwrap().entries;
        assert_eq!(entries.len(), 1, "{object}");
        assert!(entries[0].draft.text.as_ref().unwrap().contains(object["name"].as_str().unwrap()));
    }
    for object in [
        secret("platform", "ems-bots-console-tls"),
        of("", "serviceaccounts", "platform", "ems-bots-operator", "token"),
        of("", "pods", "platform", "other", "exec"),
    ] {
        let event = begun("alice", "create", &object);
        assert_eq!(said(&event).unwrap().entries, [], "{object}");
    }
    let mut acts = event("alice", "get", &of("", "nodes", "", "one", ""));
    for (account, records) in [("the-operator", 1), ("the-console", 1), ("ems-bots-operator", 0)] {
        acts["impersonatedUser"] = json!({"username": format!("system:serviceaccount:platform:{account}")});
        assert_eq!(said(&acts).unwrap().entries.len(), records, "{account}");
    }
}
