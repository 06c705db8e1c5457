//! The way into a pod that the pod's own resource does not tell of: its kubelet, which whoever may use the proxy of the
//! node can ask for the same.

use percent_encoding::percent_decode_str;

use super::event::ObjectRef;

/// What the kubelet is asked for, and as which subresource of the pod that is known. Of a container it saves, all that is in
/// its memory is in the file.
const WAYS: [(&str, &str); 5] = [
    ("attach", "attach"),
    ("checkpoint", "checkpoint"),
    ("exec", "exec"),
    ("portForward", "portforward"),
    ("run", "exec"),
];

/// Parts of `/api/v1/nodes/<name>/proxy`, the empty one before the first slash included.
const PROXY_PARTS: usize = 6;

/// The pod that is gone into with such a request, if it is one. What a kubelet shows of itself, as whoever measures reads it
/// again and again, is none.
pub(super) fn pod(object: &ObjectRef, request_uri: &str) -> Option<ObjectRef> {
    if (object.group(), object.resource(), object.subresource()) != ("", "nodes", "proxy") {
        return None;
    }
    let path = request_uri.split_once('?').map_or(request_uri, |(path, _)| path);
    // Decoded and without detours: so the API server passes it on.
    let path = percent_decode_str(path).decode_utf8_lossy();
    let mut parts = Vec::new();
    for part in path.split('/').skip(PROXY_PARTS) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let [asked, namespace, name, ..] = parts[..] else { return None };
    let (_, way) = WAYS.iter().find(|(word, _)| *word == asked)?;
    Some(ObjectRef {
        api_group: None,
        resource: Some("pods".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        subresource: Some((*way).to_owned()),
        uid: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(resource: &str, path: &str) -> Option<String> {
        let of = |word: &str| Some(word.to_owned());
        let node = ObjectRef {
            resource: of(resource),
            name: of("node"),
            subresource: of("proxy"),
            ..ObjectRef::default()
        };
        pod(&node, &format!("/api/v1/nodes/proxy/proxy{path}")).map(|pod| pod.describe())
    }

    #[test]
    fn what_leads_into_a_pod_is_told_from_what_shows_the_node() {
        for (path, expected) in [
            ("/exec/tenant/pod-0/worker?command=sh&command=-c", "pods/exec tenant/pod-0"),
            ("/exec/tenant/pod-0/0d3c/worker", "pods/exec tenant/pod-0"),
            ("/run/tenant/pod-0/worker?cmd=id", "pods/exec tenant/pod-0"),
            ("/attach/tenant/pod-0/worker", "pods/attach tenant/pod-0"),
            ("/portForward/tenant/pod-0", "pods/portforward tenant/pod-0"),
            ("/checkpoint/tenant/pod-0/worker", "pods/checkpoint tenant/pod-0"),
            ("//%65xec%2Ftenant/./pod%2D0/worker", "pods/exec tenant/pod-0"),
            ("/metrics/../exec/tenant/pod-0/worker", "pods/exec tenant/pod-0"),
            ("/%2e%2e/x%2F..%2Frun/tenant/a/../pod-0/worker", "pods/exec tenant/pod-0"),
        ] {
            assert_eq!(through("nodes", path).as_deref(), Some(expected), "{path}");
        }
        for path in [
            "",
            "/",
            "/metrics",
            "/pods",
            "/stats/summary",
            "/exec",
            "/exec/tenant",
            "/logs/exec/a/b",
            "/exec/../metrics/a/b",
        ] {
            assert_eq!(through("nodes", path), None, "{path}");
        }
        assert_eq!(through("services", "/exec/tenant/pod-0/worker"), None);
    }
}
