//! A bot whose specification does not fit the schema: its metadata and status. (client)

use std::{borrow::Cow, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    core::{DynamicObject, NamespaceResourceScope},
};
use serde::{Deserialize, Serialize};

use crate::{
    crd::{Bot, BotStatus},
    kube_util::{self, error::describe_name},
};

/// A bot as it is stored, whatever that looks like.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub(super) struct Unread<B> {
    object: DynamicObject,
    #[serde(skip)]
    kind: PhantomData<B>,
}

impl<B: Bot> Unread<B> {
    /// The status; `None` if it cannot be read.
    pub(super) fn status(&self) -> Option<BotStatus> {
        match self.object.data.get("status") {
            None => Some(BotStatus::default()),
            Some(status) => serde_json::from_value(status.clone()).ok(),
        }
    }
}

impl<B: Bot> Resource for Unread<B> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        B::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        B::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        B::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        B::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.object.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.object.metadata
    }
}

/// Reads the object with this name and UID, if there still is one.
pub(super) async fn read<B: Bot>(
    client: &Client,
    metadata: &ObjectMeta,
) -> kube_util::Result<Option<Unread<B>>> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let api: Api<Unread<B>> = Api::namespaced(client.clone(), namespace);
    let found = api
        .get_opt(name)
        .await
        .map_err(|e| kube_util::Error::new("get", describe_name::<B>(Some(namespace), name), e))?;
    Ok(found.filter(|found| found.meta().uid == metadata.uid))
}
