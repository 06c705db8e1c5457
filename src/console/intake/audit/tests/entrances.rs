//! Ways into a running pod.

use serde_json::json;

use super::*;

#[test]
fn an_entrance_is_recorded_when_it_begins_and_when_it_is_refused() {
    for entrance in ["exec", "attach", "portforward"] {
        let object = of("", "pods", "tenant-a", "auditbot-worker-0", entrance);
        let mut begun = event("alice", "create", &object);
        begun["stage"] = "ResponseStarted".into();
        begun["responseStatus"]["code"] = 101.into();
        assert_eq!(said(&begun).len(), 1, "{entrance}");
        let mut ended = begun.clone();
        ended["stage"] = "ResponseComplete".into();
        assert!(said(&ended).is_empty(), "{entrance} is one record");
        ended["responseStatus"]["code"] = 403.into();
        let refused = read(&ended);
        assert!(refused[0].draft.text.as_ref().unwrap().ends_with("refused with 403"));
        assert!(refused[0].draft.changes.iter().any(|change| change.path == "/response/code"));
    }
    let mut early = event("alice", "get", &secret("tenant-a", "auditbot-account"));
    early["stage"] = "RequestReceived".into();
    assert!(said(&early).is_empty());
}

#[test]
fn who_goes_through_the_proxy_names_a_port_beside_the_pod() {
    let through = |name: &str, code: i64| {
        let mut event = event("alice", "get", &of("", "pods", "tenant-a", name, "proxy"));
        event["stage"] = "ResponseStarted".into();
        event["responseStatus"]["code"] = code.into();
        read(&event)
    };
    let pod = Relation::new("pod", "tenant-a/auditbot-worker-0", "target");
    for (name, code) in [
        ("auditbot-worker-0", 200),
        ("auditbot-worker-0:8080", 200),
        ("https:auditbot-worker-0:8443", 200),
        ("http:auditbot-worker-0:", 200),
    ] {
        let draft = through(name, code).remove(0).draft;
        assert_eq!(draft.action, "pod.entered");
        assert!(draft.relations.contains(&pod), "{name} {:?}", draft.relations);
        let asked = draft.changes.iter().find(|change| change.path == "/request/name");
        let asked = asked.and_then(|change| change.after.as_ref()?.as_str());
        assert_eq!(asked.unwrap_or("auditbot-worker-0"), name);
    }
    for name in ["other-0:8080", "auditbot-worker-0:1:2:3", "auditbot-worker-0:other-0:80"] {
        assert!(through(name, 200).is_empty(), "{name}");
    }
    let refused: Vec<_> = ["auditbot-worker-0:1", "auditbot-worker-0:2"]
        .map(|name| through(name, 403))
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0], refused[1], "whoever asks chooses the port freely");
    assert!(refused[0].draft.relations.contains(&pod));
}

#[test]
fn who_goes_by_way_of_the_kubelet_goes_into_the_pod() {
    let through = |path: &str, code: i64| {
        let mut event = event("alice", "create", &of("", "nodes", "", "https:node-1:10250", "proxy"));
        event["stage"] = if code < 300 { "ResponseStarted" } else { "ResponseComplete" }.into();
        event["responseStatus"]["code"] = code.into();
        event["requestURI"] = format!("/api/v1/nodes/https:node-1:10250/proxy/{path}").into();
        read(&event)
    };
    let run = "run/tenant-a/auditbot-worker-0/worker?cmd=id";
    let entry = through(run, 200).remove(0);
    assert!(matches!(&entry.target, Target::Bot(bot) if bot.namespace == "tenant-a"));
    let draft = entry.draft;
    assert_eq!(draft.action, "pod.entered");
    assert_eq!(draft.text.as_deref(), Some("alice: create pods/exec tenant-a/auditbot-worker-0"));
    let said = |path: &str| draft.changes.iter().find(|change| change.path == path)?.after.clone();
    assert_eq!(said("/request/subresource"), Some(json!("exec")));
    assert_eq!(said("/request/name"), Some(json!("https:node-1:10250")));
    let refused = through(run, 403).remove(0).draft;
    assert!(refused.text.unwrap().ends_with("refused with 403"));
    for path in ["metrics", "run/tenant-a/other-0/worker?cmd=id", "run/elsewhere/auditbot-worker-0/worker"] {
        assert_eq!(through(path, 200), [], "{path}");
    }
}
